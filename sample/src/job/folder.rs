//! The folder of a run: where an image's files are, and what the images were made with.

use super::SampleJob;
use crate::SampleError;
use crate::sampler::{SamplerConfig, Wanted};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// `sample.json`: what a folder's images were made with, and which they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Recorded {
    model: String,
    #[serde(default)]
    precision: Option<String>,
    #[serde(default)]
    preset: Option<String>,
    config: SamplerConfig,
    classes: Vec<i64>,
    per_class: usize,
}

/// Makes the folder ours: records the settings, or checks that they are the recorded ones.
pub fn claim(job: &SampleJob, out: &Path) -> Result<(), SampleError> {
    std::fs::create_dir_all(out).map_err(SampleError::io("create", out))?;
    let file = out.join("sample.json");
    let now = Recorded {
        model: job.model_fingerprint.clone(),
        precision: Some(job.runtime.precision.name().into()),
        preset: job.preset.clone(),
        config: job.config.clone(),
        classes: job.classes.clone(),
        per_class: job.per_class,
    };
    let recorded = std::fs::read_to_string(&file).ok().and_then(|text| serde_json::from_str::<Recorded>(&text).ok());
    let differing = recorded.as_ref().and_then(|was| differing(was, &now));
    match (recorded, differing) {
        (Some(_), Some(field)) if !job.overwrite => {
            return Err(SampleError::OtherRun { path: out.into(), field: field.into() });
        }
        (Some(was), Some(_)) => remove_images(out, &was)?,
        // The number of images may grow; what an image looks like may not change.
        _ => {}
    }
    let json = serde_json::to_vec_pretty(&now).expect("settings serialize");
    // Other ranks write the same file.
    let temporary = out.join(format!("sample.json.{}.tmp", job.rank));
    let write = || std::fs::write(&temporary, json).and_then(|()| std::fs::rename(&temporary, &file));
    write().map_err(SampleError::io("write", &file))
}

/// What makes the images of one run others than those of another.
fn differing(was: &Recorded, now: &Recorded) -> Option<&'static str> {
    if was.model != now.model {
        return Some("the checkpoint or the tokenizer");
    }
    if was.config != now.config {
        return Some("the sampling settings");
    }
    // Folders of earlier versions do not say.
    (was.precision.is_some() && was.precision != now.precision).then_some("the precision")
}

/// Files of one image.
pub struct ImageFiles {
    pub picture: PathBuf,
    pub tokens: PathBuf,
    /// Heat maps, and the numbers behind them.
    pub diagnostics: [PathBuf; 2],
}

impl ImageFiles {
    pub fn new(out: &Path, image: &Wanted) -> ImageFiles {
        let file = |kind: &str, ending: &str| {
            out.join(kind).join(format!("{:04}", image.class)).join(format!("{:05}.{ending}", image.index))
        };
        ImageFiles {
            picture: file("images", "png"),
            tokens: file("tokens", "npy"),
            diagnostics: [file("diagnostics", "png"), file("diagnostics", "json")],
        }
    }

    /// Whether the image is done.
    pub fn exist(&self, diagnostics: bool) -> bool {
        let more = self.diagnostics.iter().filter(|_| diagnostics);
        [&self.picture, &self.tokens].into_iter().chain(more).all(|file| file.is_file())
    }

    /// Makes the folders that the files lie in.
    pub fn make_folders(&self, diagnostics: bool) -> Result<(), SampleError> {
        let more = self.diagnostics.iter().filter(|_| diagnostics);
        for folder in [&self.picture, &self.tokens].into_iter().chain(more).filter_map(|file| file.parent()) {
            std::fs::create_dir_all(folder).map_err(SampleError::io("create", folder))?;
        }
        Ok(())
    }
}

fn remove_images(out: &Path, recorded: &Recorded) -> Result<(), SampleError> {
    for class in &recorded.classes {
        for index in 0..recorded.per_class as u64 {
            let ImageFiles { picture, tokens, diagnostics } = ImageFiles::new(out, &Wanted { class: *class, index });
            for path in [picture, tokens].into_iter().chain(diagnostics) {
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
