//! Errors of tokenizing.

use tokengrid_model::ModelError;

/// Errors of this crate. The text says what was wrong, where, and what to do; the cause is in `source`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizeError {
    /// Weights, device or computation.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An input could not be decoded, or too many of them.
    #[error(transparent)]
    Bad(#[from] Box<tokengrid_ingest::TooBad>),
    /// Stopped by the user; everything finished so far is kept.
    #[error("stopped; run the same command again to continue")]
    Cancelled,
    /// The cache refused something.
    #[error(transparent)]
    Cache(#[from] tokengrid_cache::CacheError),
    /// The image source refused something.
    #[error(transparent)]
    Ingest(#[from] tokengrid_ingest::IngestError),
}
