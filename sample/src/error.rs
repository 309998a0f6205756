//! Errors of sampling.

use std::path::PathBuf;

/// Errors of this crate. The text says what was wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SampleError {
    /// A class that the model does not know.
    #[error("class {class} is out of range: the model knows classes 0 to {}", class_num - 1)]
    Class {
        /// As typed.
        class: i64,
        /// Number of classes.
        class_num: i64,
    },
    /// A setting that is out of range.
    #[error("`{value}` is no {what}; expected {expected}")]
    Setting {
        /// Which setting.
        what: &'static str,
        /// As typed.
        value: String,
        /// What is accepted.
        expected: String,
    },
    /// A batch for which there is no memory.
    #[error(
        "a batch of {images} images takes {} of memory, and {} is free: {}",
        gib(*needed_bytes), gib(*free_bytes), advice(*fits)
    )]
    Memory {
        /// Images of the batch.
        images: usize,
        /// Memory that they take.
        needed_bytes: u64,
        /// Memory that is free.
        free_bytes: u64,
        /// Images that would fit.
        fits: u64,
    },
    /// Logits that are not finite.
    #[error(
        "the model's logits at position {position} are not finite (NaN or infinite): the checkpoint is damaged, or \
         --precision fp16 is too narrow for it (try bf16 or fp32)"
    )]
    NotLogits {
        /// Position in the grid, raster order.
        position: usize,
    },
    /// Model and tokenizer do not fit.
    #[error("checkpoint and tokenizer do not fit: {what}")]
    Misfit {
        /// What differs.
        what: String,
    },
    /// The output folder holds another run.
    #[error(
        "{} holds images of other settings: {field}; choose another --out, or add --overwrite to replace them",
        path.display()
    )]
    OtherRun {
        /// The folder.
        path: PathBuf,
        /// The first difference.
        field: String,
    },
    /// A foreign image in place of one of this run.
    #[error(
        "{} is an image of other settings, or one that was not made by `sample`; choose another --out, or add --overwrite to \
         replace it",
        path.display()
    )]
    ForeignImage {
        /// The picture.
        path: PathBuf,
    },
    /// The record of a folder cannot be read, so that it is not known what its images are.
    #[error(
        "{} is damaged, so that it is not known what the images beside it were made with; choose another --out, or add \
         --overwrite, which keeps images of these settings and replaces all others",
        path.display()
    )]
    Record {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A file that would be replaced.
    #[error("{} exists, and this run did not write it; choose another name, or add --overwrite", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file could not be written or read.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A file of an image of this run that was removed or changed while the run went on.
    #[error("cannot use {}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        what: String,
    },
    /// Stopped by the user; finished images stay.
    #[error("stopped; run the same command again to continue")]
    Cancelled,
    /// Weights, model or device.
    #[error(transparent)]
    Model(#[from] tokengrid_model::ModelError),
    /// A NumPy file.
    #[error(transparent)]
    Array(#[from] crate::arrays::ArrayError),
}

impl SampleError {
    /// Wraps an I/O failure with what was being done to which file.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> SampleError {
        let path = path.into();
        move |source| SampleError::Io { action, path, source }
    }
}

fn gib(bytes: u64) -> String {
    format!("{:.2} GiB", bytes as f64 / (1u64 << 30) as f64)
}

fn advice(fits: u64) -> String {
    match fits {
        0 => "not even one image fits".into(),
        fits => format!("--batch-size {fits} would fit"),
    }
}
