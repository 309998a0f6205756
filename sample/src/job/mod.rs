//! Many images: batches through the sampler, pictures and tokens to disk.
//!
//! Images are numbered class-major: image i of the run is index `i % per_class` of class `classes[i / per_class]`. Each
//! image is a separate file that appears whole and says which settings it is of (`record.rs`); a run that was stopped samples
//! only the images that are missing, and counts none of another run.
//!
//! Several processes share a run through its folder: rank r of W samples every W-th image, beginning with image r. The
//! process that finds no image missing at its end makes the joined files. Two that end at the same moment both do, with the
//! same bytes.

mod folder;
mod joined;
mod record;

use crate::arrays::{Dtype, npy};
use crate::decoder::TorchDecoder;
use crate::guidance::GuidanceMode;
use crate::sampler::{SampleRequest, Sampler, SamplerConfig};
use crate::{SampleError, diagnostics, memory};
use folder::{Folder, ImageFiles, Images, settings_of};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use record::Found;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokengrid_cache::write_atomically;
use tokengrid_model::ar::{ArModel, ModelConfig};
use tokengrid_model::guard::guarded;
use tokengrid_model::tokenizer::{decode, tokens_tensor};
use tokengrid_model::weights::tensors_fingerprint;
use tokengrid_model::{Params, Picture, Runtime, Tokenizer};

/// Largest number of images of a run: a list of them is held in memory.
pub(crate) const IMAGES_MAX: usize = 1 << 24;

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
    /// Images per class.
    pub per_class: usize,
    /// Images per batch.
    pub batch_size: usize,
    /// Device.
    pub runtime: Runtime,
    /// Hash of the model's weights, so that a folder is not continued by another model.
    pub model_fingerprint: String,
    /// Replace images of earlier runs.
    pub overwrite: bool,
    /// Which preset the settings began with, for the record.
    pub preset: Option<String>,
    /// Names of classes by index, as far as they are known.
    pub class_names: Vec<String>,
    /// Also write maps and numbers of the distributions that tokens were drawn from.
    pub diagnostics: bool,
    /// This process among `world_size`.
    pub rank: u32,
    /// Processes that share the run.
    pub world_size: u32,
}

/// Where results go.
#[derive(Debug, Clone)]
pub struct Outputs {
    /// The run's folder.
    pub out: PathBuf,
    /// All pictures as one `.npz` file.
    pub npz: Option<PathBuf>,
    /// All tokens as one `.npy` file.
    pub tokens: Option<PathBuf>,
}

/// The outcome of a run.
#[derive(Debug, Clone, Serialize)]
pub struct SampleOutcome {
    /// Images of the run, those of all ranks.
    pub images: usize,
    /// Images sampled by this call; the others were there.
    pub images_now: usize,
    /// Whether all images are there, and so the joined files.
    pub complete: bool,
    /// Images that other ranks have still to make.
    pub waiting_for: usize,
    /// Seconds of this call.
    pub seconds: f64,
    /// Seconds per sampled image.
    pub seconds_per_image: f64,
    /// The picture of all images (of the first 100).
    pub grid: Option<PathBuf>,
}

impl SampleJob<'_> {
    /// Samples what this rank lacks, and makes the joined files when nothing is missing any more. `observe` is
    /// called with the images of this rank that are done, and all of them.
    ///
    /// # Errors
    /// Model and tokenizer do not fit together; settings are out of range; memory does not suffice; the folder holds another run;
    /// the disk is full; [`SampleError::Cancelled`].
    pub fn run(
        &self,
        outputs: &Outputs,
        cancel: &AtomicBool,
        observe: &mut dyn FnMut(usize, usize),
    ) -> Result<SampleOutcome, SampleError> {
        let started = Instant::now();
        self.check()?;
        let mut sampler = self.sampler()?;
        let all = self.wanted();
        let order = outputs.npz.as_ref().map(|_| joined::npz_order(self.config.seed, all.len()));
        let folder = Folder::open(self, outputs, order.clone())?;
        let ours: Vec<SampleRequest> =
            all.iter().copied().skip(self.rank as usize).step_by(self.world_size.max(1) as usize).collect();
        let missing = self.missing(&folder.images, &ours)?;
        folder.claim(self.overwrite)?;
        let mut done = ours.len() - missing.len();
        observe(done, ours.len());
        for batch in missing.chunks(self.batch_size) {
            self.sample_batch(&mut sampler, batch, &folder.images)?;
            done += batch.len();
            observe(done, ours.len());
            if cancel.load(Ordering::Relaxed) && done < ours.len() {
                return Err(SampleError::Cancelled);
            }
        }
        let sampling_seconds = started.elapsed().as_secs_f64();
        // Images of this rank are there.
        let waiting_for = if self.world_size > 1 { self.missing(&folder.images, &all)?.len() } else { 0 };
        let grid = if waiting_for == 0 { Some(self.join(folder, outputs, &all, order.as_deref())?) } else { None };
        Ok(SampleOutcome {
            images: all.len(),
            images_now: missing.len(),
            complete: waiting_for == 0,
            waiting_for,
            seconds: started.elapsed().as_secs_f64(),
            seconds_per_image: sampling_seconds / missing.len().max(1) as f64,
            grid,
        })
    }

    /// A hash of the run's settings and of the list of its images.
    pub fn identity(&self) -> String {
        let all = serde_json::json!([settings_of(self), self.classes, self.per_class]);
        blake3::hash(all.to_string().as_bytes()).to_hex().to_string()
    }

    /// Model, tokenizer and classes fit together, and the batch into memory.
    fn check(&self) -> Result<(), SampleError> {
        let (model, bits) = (&self.model.config, self.tokenizer.architecture.z_channels);
        if i64::from(model.bits()) != bits {
            let what = format!("the model's tokens have {} bits, the tokenizer's {bits}", model.bits());
            return Err(SampleError::Misfit { what });
        }
        let class_num = model.class_num;
        if let Some(&class) = self.classes.iter().find(|class| !(0..class_num).contains(*class)) {
            return Err(SampleError::Class { class, class_num });
        }
        let images = self.classes.len().saturating_mul(self.per_class);
        if !(1..=IMAGES_MAX).contains(&images) {
            let expected = format!("1 to {IMAGES_MAX}, which is the number of classes times the images of each");
            return Err(SampleError::Setting { what: "number of images", value: images.to_string(), expected });
        }
        self.config.validate(model.vocab())?;
        let sequences = GuidanceMode::of(self.config.cfg_scale, self.config.cfg_schedule).count();
        let images = self.batch_size.min(images);
        memory::check(model, self.runtime.device, self.runtime.precision.kind(), images, sequences)
    }

    fn sampler(&self) -> Result<Sampler<'_>, SampleError> {
        if self.diagnostics && self.runtime.route.runs_ahead {
            // Statistics of the logits are computed on the host.
            let decoder = TorchDecoder::new(self.model, self.runtime);
            return Sampler::over(Box::new(decoder), self.config.clone());
        }
        Sampler::new(self.model, self.config.clone(), self.runtime)
    }

    fn wanted(&self) -> Vec<SampleRequest> {
        let per_class = self.per_class as u64;
        self.classes.iter().flat_map(|&class| (0..per_class).map(move |index| SampleRequest { class, index })).collect()
    }

    /// Those of `images` that have to be made. A foreign image in place of one is refused, or counts as missing and is
    /// replaced.
    fn missing(&self, folder: &Images, images: &[SampleRequest]) -> Result<Vec<SampleRequest>, SampleError> {
        let (diagnostics, overwrite) = (self.diagnostics, self.overwrite);
        let look = |image: &SampleRequest| match folder.find(image, diagnostics) {
            Found::Whole { .. } => Ok(None),
            Found::Foreign if !overwrite => {
                Err(SampleError::ForeignImage { path: ImageFiles::new(&folder.out, image).picture })
            }
            Found::Foreign | Found::Missing => Ok(Some(*image)),
        };
        let found: Result<Vec<Option<SampleRequest>>, SampleError> = images.par_iter().map(look).collect();
        Ok(found?.into_iter().flatten().collect())
    }

    fn sample_batch(&self, sampler: &mut Sampler, batch: &[SampleRequest], folder: &Images) -> Result<(), SampleError> {
        let mut stats = vec![];
        let tokens = match self.diagnostics {
            true => sampler.sample_with_stats(batch, &mut stats)?,
            false => sampler.sample(batch)?,
        };
        let (side, n) = (self.model.config.side(), self.model.config.block_size as usize);
        let pictures =
            guarded(|| decode(self.tokenizer, &tokens_tensor(&tokens, side, self.runtime.device), self.runtime))?;
        for (i, ((image, tokens_n), picture)) in batch.iter().zip(tokens.chunks_exact(n)).zip(&pictures).enumerate() {
            let files = ImageFiles::new(&folder.out, image);
            files.make_folders(self.diagnostics)?;
            if self.diagnostics {
                let image_stats = &stats[i * n..(i + 1) * n];
                let (maps, numbers) = diagnostics::draw(picture, image_stats, self.model.config.vocab());
                write_pair(&files.diagnostics[0], &maps, &files.diagnostics[1], numbers.as_bytes(), folder)?;
            }
            let bytes: Vec<u8> = tokens_n.iter().flat_map(|token| token.to_le_bytes()).collect();
            let tokens_file = npy(Dtype::I32, &[side as usize, side as usize], &bytes);
            write_pair(&files.picture, picture, &files.tokens, &tokens_file, folder)?;
        }
        Ok(())
    }
}

/// Writes a picture and the file that belongs to it. The picture comes last: its record makes both count.
fn write_pair(
    path: &Path,
    picture: &Picture,
    beside_path: &Path,
    beside: &[u8],
    folder: &Images,
) -> Result<(), SampleError> {
    write_atomically(beside_path, beside).map_err(SampleError::io("write", beside_path))?;
    let text = record::text(&folder.settings, beside);
    write_atomically(path, &picture.to_png_with(&[(record::KEYWORD, &text)])).map_err(SampleError::io("write", path))
}

/// Fingerprint of a model: a BLAKE3 hash of the names, shapes and fp32 values of `params`, then the number of heads and the
/// tokens per image, which shapes do not determine. It does not depend on threads, on the device, or on how equal values are
/// stored. A folder of samples records it, together with the tokenizer's fingerprint, as what its images were made with.
pub fn model_fingerprint(config: &ModelConfig, params: &Params) -> String {
    format!("{} n_head={} block_size={}", tensors_fingerprint(params.iter()), config.n_head, config.block_size)
}
