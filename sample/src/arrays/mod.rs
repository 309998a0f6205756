//! NumPy's files: `.npy`, and `.npz` with uncompressed members.
//!
//! | module | what it is for |
//! |---|---|
//! | `write` | arrays to files that appear whole |
//! | `read` | arrays of bytes or floats, read from the beginning to the end |

mod read;
mod write;

pub use read::{ArrayReader, Element, Npz};
use std::path::PathBuf;
pub(crate) use write::npy;
pub use write::{Dtype, NamedArray, NpzImages, write_npy, write_npz};

/// Errors of reading and writing NumPy files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArrayError {
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
    /// It does not hold what is needed.
    #[error("cannot use {}: {what}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        what: String,
    },
}

impl ArrayError {
    fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> ArrayError {
        let path = path.into();
        move |source| ArrayError::Io { action, path, source }
    }
}
