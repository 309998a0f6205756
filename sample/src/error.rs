//! What can go wrong while sampling.

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
    /// A setting that makes no sense.
    #[error("`{value}` is no {what}; expected {expected}")]
    Setting {
        /// Which setting.
        what: &'static str,
        /// As typed.
        value: String,
        /// What is accepted.
        expected: String,
    },
    /// Model and tokenizer do not fit.
    #[error("checkpoint and tokenizer do not fit: {what}")]
    Misfit {
        /// What differs.
        what: String,
    },
    /// The output folder holds another run.
    #[error(
        "{} holds images of other settings ({field} differs); choose another --out, or add --overwrite to replace them",
        path.display()
    )]
    OtherRun {
        /// The folder.
        path: PathBuf,
        /// The first differing setting.
        field: String,
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
    /// A picture could not be decoded.
    #[error("cannot decode {}: {reason}", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Stopped by the user; finished images stay.
    #[error("stopped; run the same command again to go on")]
    Cancelled,
    /// Weights or device.
    #[error(transparent)]
    Tokenize(#[from] tokengrid_tokenize::TokenizeError),
    /// The model.
    #[error(transparent)]
    Train(#[from] tokengrid_train::TrainError),
}

impl SampleError {
    /// Wraps an I/O failure with what was being done to which file.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> SampleError {
        let path = path.into();
        move |source| SampleError::Io { action, path, source }
    }
}
