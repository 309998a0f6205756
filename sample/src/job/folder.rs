//! The folder of a run: paths of an image's files, and the record of the run's settings.

use super::record::{self, Found};
use super::{Outputs, SampleJob};
use crate::SampleError;
use crate::sampler::{SampleRequest, SamplerConfig};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokengrid_cache::{AtomicFile, write_atomically};

/// `sample.json`: the settings of a folder's images, and which images there are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Recorded {
    /// [`settings_of`] the run.
    #[serde(default)]
    settings: String,
    model: String,
    #[serde(default)]
    precision: Option<String>,
    #[serde(default)]
    preset: Option<String>,
    config: SamplerConfig,
    classes: Vec<i64>,
    per_class: usize,
    /// Which image is the i-th of the `.npz` file: images are counted class by class, in the order of `classes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    npz_order: Option<Vec<u64>>,
    /// BLAKE3 of the joined files that were written outside of the folder, by absolute path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    files: BTreeMap<String, String>,
    /// The same of files that are getting their names: whichever of the two is there after a kill is the run's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    files_to_come: BTreeMap<String, String>,
}

/// The images of one run's settings in a folder.
pub(super) struct Images {
    /// The folder.
    pub out: PathBuf,
    /// [`settings_of`] the run.
    pub settings: String,
}

impl Images {
    /// What is there of an image, whose files must all be of these settings.
    pub(super) fn find(&self, image: &SampleRequest, diagnostics: bool) -> Found {
        let ImageFiles { picture, tokens, diagnostics: [maps, numbers] } = ImageFiles::new(&self.out, image);
        if diagnostics && !matches!(record::find(&maps, &numbers, &self.settings), Found::Whole { .. }) {
            // A foreign picture is still foreign.
            let is_foreign = matches!(record::find(&picture, &tokens, &self.settings), Found::Foreign);
            return if is_foreign { Found::Foreign } else { Found::Missing };
        }
        record::find(&picture, &tokens, &self.settings)
    }

    /// The picture of all images.
    pub(super) fn grid(&self) -> PathBuf {
        self.out.join("grid.png")
    }
}

/// A folder that belongs to a run.
pub(super) struct Folder {
    /// Its images.
    pub images: Images,
    recorded: Recorded,
    /// Whether the folder says otherwise, or nothing.
    is_new: bool,
}

impl Folder {
    /// Checks that the folder is this run's, or can become it. Nothing is written yet.
    ///
    /// # Errors
    /// Another run's folder, a damaged record, or files that would be replaced, without `overwrite`.
    pub(super) fn open(job: &SampleJob, outputs: &Outputs, npz_order: Option<Vec<u64>>) -> Result<Folder, SampleError> {
        let out = &outputs.out;
        let settings = settings_of(job);
        let was = read(out).or_else(|error| if job.overwrite { Ok(None) } else { Err(error) })?;
        let difference = was.as_ref().and_then(|was| differing(was, job, &settings));
        if let Some(field) = difference.clone().filter(|_| !job.overwrite) {
            return Err(SampleError::OtherRun { path: out.into(), field });
        }
        // The number of images may grow; what an image looks like may not change.
        let kept = was.clone().filter(|_| difference.is_none());
        let (order_was, files, files_to_come) =
            kept.map_or_else(Default::default, |was| (was.npz_order, was.files, was.files_to_come));
        let same_images = |was: &Recorded| (&was.classes, was.per_class) == (&job.classes, job.per_class);
        let recorded = Recorded {
            settings: settings.clone(),
            model: job.model_fingerprint.clone(),
            precision: Some(job.runtime.precision.name().into()),
            preset: job.preset.clone(),
            config: job.config.clone(),
            classes: job.classes.clone(),
            per_class: job.per_class,
            npz_order: npz_order.or(order_was.filter(|_| was.as_ref().is_some_and(same_images))),
            files,
            files_to_come,
        };
        // Other ranks may be adding to a record that is ours already: then it is not changed.
        let is_new = was.as_ref() != Some(&recorded);
        let images = Images { out: out.clone(), settings };
        let folder = Folder { images, recorded, is_new };
        if !job.overwrite {
            folder.check_targets(outputs)?;
        }
        Ok(folder)
    }

    /// Claims the folder for this run: removes images of other settings with `overwrite`, and records the settings.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub(super) fn claim(&self, overwrite: bool) -> Result<(), SampleError> {
        let out = &self.images.out;
        std::fs::create_dir_all(out).map_err(SampleError::io("create", out))?;
        if overwrite {
            self.remove_others()?;
        }
        if self.is_new { self.write() } else { Ok(()) }
    }

    /// Gives a joined file its name. The record comes first: killed in between, the run still knows the file as its own, which
    /// a later call may replace.
    pub(super) fn publish(&mut self, path: &Path, mut file: AtomicFile) -> Result<(), SampleError> {
        let hash = file.unpublished().and_then(hash_of).map_err(SampleError::io("write", path))?;
        let name = absolute(path);
        self.recorded.files_to_come.insert(name.clone(), hash.clone());
        self.write()?;
        file.publish().map_err(SampleError::io("write", path))?;
        self.recorded.files_to_come.remove(&name);
        self.recorded.files.insert(name, hash);
        self.write()
    }

    /// Refuses to replace files that this run did not write.
    fn check_targets(&self, outputs: &Outputs) -> Result<(), SampleError> {
        for path in [&outputs.npz, &outputs.tokens].into_iter().flatten().filter(|path| path.exists()) {
            let (name, found) = (absolute(path), hash_of(path).map_err(SampleError::io("read", path))?);
            let recorded = [&self.recorded.files, &self.recorded.files_to_come];
            if !recorded.iter().any(|files| files.get(&name) == Some(&found)) {
                return Err(SampleError::Exists { path: path.clone() });
            }
        }
        let grid = self.images.grid();
        if record::is_foreign(&grid) { Err(SampleError::Exists { path: grid }) } else { Ok(()) }
    }

    fn write(&self) -> Result<(), SampleError> {
        let file = record_file(&self.images.out);
        let json = serde_json::to_vec_pretty(&self.recorded).expect("settings serialize");
        write_atomically(&file, &json).map_err(SampleError::io("write", &file))
    }

    /// Removes images of other settings, all of them: those that are not replaced now would otherwise enter a later run of
    /// more images. Only files that say of themselves that a run made them.
    fn remove_others(&self) -> Result<(), SampleError> {
        let Images { out, settings } = &self.images;
        for (kind, beside, ending) in [("images", "tokens", "npy"), ("diagnostics", "diagnostics", "json")] {
            for picture in pictures_below(&out.join(kind)) {
                if record::settings_of(&picture).is_none_or(|found| found == *settings) {
                    continue;
                }
                let Ok(inner) = picture.strip_prefix(out.join(kind)) else { continue };
                remove(&out.join(beside).join(inner).with_extension(ending))?;
                // Last: it is what says that the other file is ours.
                remove(&picture)?;
            }
        }
        Ok(())
    }
}

fn record_file(out: &Path) -> PathBuf {
    out.join("sample.json")
}

/// The record of a folder; `None` where there is none. A damaged one is an error: what the images are is not known then.
fn read(out: &Path) -> Result<Option<Recorded>, SampleError> {
    let path = record_file(out);
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(SampleError::io("read", &path))?,
    };
    serde_json::from_slice(&text).map(Some).map_err(|source| SampleError::Record { path, source })
}

/// A hash of all that decides what an image looks like, but its class and number.
pub(crate) fn settings_of(job: &SampleJob) -> String {
    let model = &job.model.config;
    let all = serde_json::json!({
        "model": job.model_fingerprint, "n_head": model.n_head, "block_size": model.block_size,
        "precision": job.runtime.precision.name(), "config": job.config,
    });
    blake3::hash(all.to_string().as_bytes()).to_hex().to_string()
}

/// The first difference between the settings of two runs, with both values where they are short.
fn differing(was: &Recorded, job: &SampleJob, settings: &str) -> Option<String> {
    if was.model != job.model_fingerprint {
        return Some("the checkpoint or the tokenizer differs".into());
    }
    let fields = |config: &SamplerConfig| serde_json::to_value(config).unwrap_or_default();
    let (old, new) = (fields(&was.config), fields(&job.config));
    let names = new.as_object().into_iter().flat_map(|fields| fields.keys());
    let differs = names.filter(|name| old[*name] != new[*name]).map(|name| {
        format!("the sampling settings differ: {} was {}, and is {}", name.replace('_', "-"), old[name], new[name])
    });
    if let Some(difference) = differs.into_iter().next() {
        return Some(difference);
    }
    // Folders of earlier versions do not say.
    let precision = job.runtime.precision.name();
    if let Some(was) = was.precision.as_ref().filter(|was| *was != precision) {
        return Some(format!("the precision was {was}, and is {precision}"));
    }
    let is_other_shape = !was.settings.is_empty() && was.settings != settings;
    is_other_shape.then(|| "the heads or the grid of the model differ".into())
}

fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.into()).to_string_lossy().into_owned()
}

fn hash_of(path: &Path) -> std::io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(std::fs::File::open(path)?)?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// `*/*.png` below a folder.
fn pictures_below(folder: &Path) -> Vec<PathBuf> {
    let inside = |folder: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    };
    let files = inside(folder).into_iter().flat_map(|class| inside(&class));
    files.filter(|file| file.extension().is_some_and(|ending| ending == "png")).collect()
}

fn remove(path: &Path) -> Result<(), SampleError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(SampleError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Files of one image.
pub(crate) struct ImageFiles {
    pub picture: PathBuf,
    pub tokens: PathBuf,
    /// Heat maps, and the numbers behind them.
    pub diagnostics: [PathBuf; 2],
}

impl ImageFiles {
    pub(super) fn new(out: &Path, image: &SampleRequest) -> ImageFiles {
        let file = |kind: &str, ending: &str| {
            out.join(kind).join(format!("{:04}", image.class)).join(format!("{:05}.{ending}", image.index))
        };
        ImageFiles {
            picture: file("images", "png"),
            tokens: file("tokens", "npy"),
            diagnostics: [file("diagnostics", "png"), file("diagnostics", "json")],
        }
    }

    /// Makes the folders that the files lie in.
    pub(crate) fn make_folders(&self, diagnostics: bool) -> Result<(), SampleError> {
        let more = self.diagnostics.iter().filter(|_| diagnostics);
        for folder in [&self.picture, &self.tokens].into_iter().chain(more).filter_map(|file| file.parent()) {
            std::fs::create_dir_all(folder).map_err(SampleError::io("create", folder))?;
        }
        Ok(())
    }
}
