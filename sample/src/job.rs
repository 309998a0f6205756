//! Many images: batches through the sampler, pictures and tokens to disk.
//!
//! Images are numbered class-major: image i of the run is index `i % per_class` of class `classes[i / per_class]`. Each
//! image is a file of its own that appears whole; a run that was stopped samples only the images that are missing.

use crate::SampleError;
use crate::arrays::{Dtype, NpzImages, write_npy};
use crate::reconstruct::{decode, tokens_tensor};
use crate::sampler::{Sampler, SamplerConfig, Wanted};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tch::{Kind, Tensor};
use tokengrid_tokenize::{Picture, Runtime, Tokenizer};
use tokengrid_train::ar::ArModel;

/// Everything that a run needs.
pub struct SampleJob<'a> {
    /// The model.
    pub model: &'a ArModel,
    /// The decoder.
    pub tokenizer: &'a Tokenizer,
    /// How to sample.
    pub config: SamplerConfig,
    /// Which classes.
    pub classes: Vec<i64>,
    /// Images a class.
    pub per_class: usize,
    /// Images a batch.
    pub batch_size: usize,
    /// Device.
    pub runtime: Runtime,
    /// Hash of the model's weights, so that a folder is not continued by another model.
    pub model_fingerprint: String,
    /// Replace images of earlier runs.
    pub overwrite: bool,
}

/// What a run came to.
#[derive(Debug, Clone, Serialize)]
pub struct SampleOutcome {
    /// Images of the run.
    pub images: usize,
    /// Images sampled by this call; the others were there.
    pub images_now: usize,
    /// Seconds of this call.
    pub seconds: f64,
    /// Seconds a sampled image.
    pub seconds_per_image: f64,
    /// The picture of all images (of the first 100).
    pub grid: PathBuf,
}

/// What a folder's images were made with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Recorded {
    model: String,
    config: SamplerConfig,
    classes: Vec<i64>,
    per_class: usize,
}

/// Pictures in the grid at most.
const GRID_MAX: usize = 100;

impl SampleJob<'_> {
    /// Samples what is missing in `out` and writes grid, tokens and arrays. `observe` is told images done and all.
    ///
    /// # Errors
    /// Model and tokenizer that do not fit, settings out of range, another run's folder, a full disk.
    pub fn run(
        &self,
        out: &Path,
        npz: Option<&Path>,
        tokens: Option<&Path>,
        cancel: &AtomicBool,
        observe: &mut dyn FnMut(usize, usize),
    ) -> Result<SampleOutcome, SampleError> {
        let started = Instant::now();
        self.check()?;
        self.claim(out)?;
        let mut sampler = Sampler::new(self.model, self.config.clone(), self.runtime.device)?;
        let all = self.wanted();
        let missing: Vec<Wanted> = all.iter().copied().filter(|image| !files(out, image).exist()).collect();
        observe(all.len() - missing.len(), all.len());
        let mut done = all.len() - missing.len();
        for batch in missing.chunks(self.batch_size) {
            self.sample_batch(&mut sampler, batch, out)?;
            done += batch.len();
            observe(done, all.len());
            if cancel.load(Ordering::Relaxed) && done < all.len() {
                return Err(SampleError::Cancelled);
            }
        }
        let grid = self.write_grid(out, &all)?;
        if let Some(path) = npz {
            self.write_npz(path, out, &all)?;
        }
        if let Some(path) = tokens {
            self.write_tokens(path, out, &all)?;
        }
        let seconds = started.elapsed().as_secs_f64();
        let images_now = missing.len();
        let seconds_per_image = seconds / images_now.max(1) as f64;
        Ok(SampleOutcome { images: all.len(), images_now, seconds, seconds_per_image, grid })
    }

    /// Model, tokenizer and classes fit together.
    fn check(&self) -> Result<(), SampleError> {
        let (model, bits) = (&self.model.config, self.tokenizer.architecture.z_channels);
        if i64::from(model.bits()) != bits {
            let what = format!("the model's tokens have {} bits, the tokenizer's {bits}", model.bits());
            return Err(SampleError::Misfit { what });
        }
        let class_num = model.class_num;
        match self.classes.iter().find(|class| !(0..class_num).contains(*class)) {
            Some(&class) => Err(SampleError::Class { class, class_num }),
            None => Ok(()),
        }
    }

    /// Makes the folder ours: records the settings, or checks that they are the recorded ones.
    fn claim(&self, out: &Path) -> Result<(), SampleError> {
        std::fs::create_dir_all(out).map_err(SampleError::io("create", out))?;
        let file = out.join("sample.json");
        let now = Recorded {
            model: self.model_fingerprint.clone(),
            config: self.config.clone(),
            classes: self.classes.clone(),
            per_class: self.per_class,
        };
        let recorded =
            std::fs::read_to_string(&file).ok().and_then(|text| serde_json::from_str::<Recorded>(&text).ok());
        match recorded {
            // The number of images may grow; what an image looks like may not change.
            Some(was) if (&was.model, &was.config) == (&now.model, &now.config) => {}
            Some(was) if !self.overwrite => {
                let field =
                    if was.model != now.model { "the checkpoint or the tokenizer" } else { "the sampling settings" };
                return Err(SampleError::OtherRun { path: out.into(), field: field.into() });
            }
            Some(was) => remove_images(out, &was)?,
            None => {}
        }
        let json = serde_json::to_vec_pretty(&now).expect("settings serialize");
        std::fs::write(&file, json).map_err(SampleError::io("write", &file))
    }

    fn wanted(&self) -> Vec<Wanted> {
        let per_class = self.per_class as u64;
        self.classes.iter().flat_map(|&class| (0..per_class).map(move |index| Wanted { class, index })).collect()
    }

    fn sample_batch(&self, sampler: &mut Sampler, batch: &[Wanted], out: &Path) -> Result<(), SampleError> {
        let tokens = sampler.sample(batch)?;
        let (side, n) = (self.model.config.side(), self.model.config.block_size as usize);
        let pictures = decode(self.tokenizer, &tokens_tensor(&tokens, side, self.runtime.device));
        for ((image, tokens_n), picture) in batch.iter().zip(tokens.chunks_exact(n)).zip(&pictures) {
            let files = files(out, image);
            for folder in [&files.picture, &files.tokens].into_iter().filter_map(|file| file.parent()) {
                std::fs::create_dir_all(folder).map_err(SampleError::io("create", folder))?;
            }
            let bytes: Vec<u8> = tokens_n.iter().flat_map(|token| token.to_le_bytes()).collect();
            write_npy(&files.tokens, Dtype::I32, &[side as usize, side as usize], &bytes)?;
            picture.save(&files.picture)?;
        }
        Ok(())
    }

    fn write_grid(&self, out: &Path, all: &[Wanted]) -> Result<PathBuf, SampleError> {
        let path = out.join("grid.png");
        let columns = grid_columns(self.classes.len(), self.per_class);
        let pictures: Result<Vec<Picture>, SampleError> =
            all.iter().take(GRID_MAX).map(|image| load(&files(out, image).picture)).collect();
        Picture::grid(&pictures?, columns).save(&path)?;
        Ok(path)
    }

    fn write_npz(&self, path: &Path, out: &Path, all: &[Wanted]) -> Result<(), SampleError> {
        let side = (self.model.config.side() as usize) * self.tokenizer.architecture.factor() as usize;
        let mut npz = NpzImages::create(path, all.len(), side)?;
        for image in all {
            npz.push(&load(&files(out, image).picture)?.rgb)?;
        }
        npz.finish()
    }

    fn write_tokens(&self, path: &Path, out: &Path, all: &[Wanted]) -> Result<(), SampleError> {
        let n = self.model.config.block_size as usize;
        let mut bytes = Vec::with_capacity(all.len() * n * 4);
        for image in all {
            let file = files(out, image).tokens;
            let npy = std::fs::read(&file).map_err(SampleError::io("read", &file))?;
            // The header of our own files is one block; the rest is the tokens.
            bytes.extend_from_slice(&npy[npy.len().saturating_sub(n * 4)..]);
        }
        write_npy(path, Dtype::I32, &[all.len(), n], &bytes)
    }
}

/// Pictures a row of the grid: whole classes side by side, about as wide as a screen.
fn grid_columns(classes: usize, per_class: usize) -> usize {
    const WIDE: usize = 12;
    match (classes, per_class) {
        (1, n) => (n as f64).sqrt().ceil() as usize,
        (_, n) if n >= WIDE => WIDE,
        (_, n) => WIDE / n.max(1) * n.max(1),
    }
}

/// Files of one image.
struct ImageFiles {
    picture: PathBuf,
    tokens: PathBuf,
}

impl ImageFiles {
    fn exist(&self) -> bool {
        self.picture.is_file() && self.tokens.is_file()
    }
}

fn files(out: &Path, image: &Wanted) -> ImageFiles {
    let name = format!("{:05}", image.index);
    let class = format!("{:04}", image.class);
    ImageFiles {
        picture: out.join("images").join(&class).join(format!("{name}.png")),
        tokens: out.join("tokens").join(&class).join(format!("{name}.npy")),
    }
}

fn remove_images(out: &Path, recorded: &Recorded) -> Result<(), SampleError> {
    for class in &recorded.classes {
        for index in 0..recorded.per_class as u64 {
            let files = files(out, &Wanted { class: *class, index });
            for path in [files.picture, files.tokens] {
                match std::fs::remove_file(&path) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                        return Err(SampleError::io("remove", path)(e));
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

fn load(path: &Path) -> Result<Picture, SampleError> {
    let refuse = |reason: String| SampleError::Picture { path: path.into(), reason };
    let bytes = std::fs::read(path).map_err(SampleError::io("read", path))?;
    let image = tokengrid_ingest::decode_rgb(&bytes, &Default::default()).map_err(|e| refuse(e.to_string()))?;
    Ok(Picture::new(image.width as usize, image.height as usize, image.pixels))
}

/// A hash of all weights of a model, to tell models apart.
pub fn model_fingerprint(params: &tokengrid_tokenize::Params) -> String {
    // Sums of the tensors and of their squares: enough to tell two checkpoints apart, cheap for gigabytes.
    let text: String = params
        .iter()
        .map(|(name, tensor)| {
            let wide: Tensor = tensor.to_kind(Kind::Double);
            let (sum, squares) = (wide.sum(Kind::Double), wide.square().sum(Kind::Double));
            format!("{name} {:e} {:e}\n", sum.double_value(&[]), squares.double_value(&[]))
        })
        .collect();
    format!("{:016x}", tokengrid_train::rng::hash(text.as_bytes()))
}
