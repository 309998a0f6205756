//! Errors of evaluations.

use std::path::PathBuf;

/// Errors of this crate. The text says what was wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// Model and tokenizer do not fit.
    #[error("checkpoint and tokenizer do not fit: {what}")]
    Misfit {
        /// What differs.
        what: String,
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
    /// Weights that are published elsewhere are not there.
    #[error(
        "{} does not exist; {flag} names {what}, the file {file}, which is published at {published}",
        path.display()
    )]
    NoWeights {
        /// As typed.
        path: PathBuf,
        /// What the weights are.
        what: &'static str,
        /// Their published name.
        file: &'static str,
        /// Where they are.
        published: &'static str,
        /// The flag that names them.
        flag: &'static str,
    },
    /// Too few vectors or pictures for a metric.
    #[error("{count} is too few for {what}: at least {needed} are needed")]
    TooFew {
        /// How many there are.
        count: u64,
        /// How many are needed.
        needed: u64,
        /// The metric.
        what: &'static str,
    },
    /// Feature vectors of different lengths.
    #[error("the features have {a} values here and {b} there; features of the same network are needed")]
    Dims {
        /// Length of the first.
        a: usize,
        /// Length of the second.
        b: usize,
    },
    /// Features with infinities or NaN.
    #[error("the features hold values that are not finite (NaN or infinite)")]
    NotFinite,
    /// An image could not be decoded, or too many of them.
    #[error(transparent)]
    Bad(#[from] Box<tokengrid_ingest::TooBad>),
    /// The image source refused something.
    #[error(transparent)]
    Ingest(#[from] tokengrid_ingest::IngestError),
    /// An evaluation was stopped by the user.
    #[error("stopped; an evaluation has no result before its end, and must be started again")]
    Stopped,
    /// The processes that share an evaluation cannot exchange their figures.
    #[error(transparent)]
    Peers(Box<dyn std::error::Error + Send + Sync>),
    /// Weights, model or device.
    #[error(transparent)]
    Model(#[from] tokengrid_model::ModelError),
    /// A NumPy file.
    #[error(transparent)]
    Array(#[from] tokengrid_sample::ArrayError),
}

impl EvalError {
    /// Wraps an I/O failure with what was being done to which file.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> EvalError {
        let path = path.into();
        move |source| EvalError::Io { action, path, source }
    }
}
