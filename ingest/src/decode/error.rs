//! Why a file is not decoded.

use super::Format;

/// Why a file is not decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The file has no bytes.
    #[error("empty file")]
    NoBytes,
    /// The first bytes are of no known format.
    #[error("not a JPEG, PNG, GIF, WebP or BMP file: starts with {start}")]
    Unrecognised {
        /// The first bytes, printable or in hexadecimal.
        start: String,
    },
    /// The data ends before the picture does.
    #[error("truncated {format} file: {what}")]
    Truncated {
        /// The file's format.
        format: Format,
        /// What was being read when the data ended.
        what: &'static str,
    },
    /// The data contradicts itself.
    #[error("broken {format} file: {what}")]
    Broken {
        /// The file's format.
        format: Format,
        /// What is wrong.
        what: String,
    },
    /// A legal file of a kind that is not decoded (nor by Pillow).
    #[error("unsupported {format} file: {what}")]
    Unsupported {
        /// The file's format.
        format: Format,
        /// The feature.
        what: String,
    },
    /// A picture without pixels.
    #[error("empty picture: {width} x {height} pixels")]
    Empty {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// More pixels than [`Limits::max_pixels`](crate::Limits::max_pixels).
    #[error("{width} x {height} pixels are more than the limit of {limit}: a decompression bomb?")]
    TooManyPixels {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
        /// The limit, in pixels.
        limit: u64,
    },
    /// A size that the caller of [`decode_rgb_if`](crate::decode_rgb_if) refused.
    #[error("{reason}")]
    NoUse {
        /// Why.
        reason: String,
    },
    /// Decoding takes more than [`Limits::max_decode_bytes`](crate::Limits::max_decode_bytes).
    #[error(
        "{width} x {height} pixels take {bytes} bytes of memory to decode, more than the limit of {limit}: a decompression bomb?"
    )]
    TooMuchMemory {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
        /// Bytes that decoding takes.
        bytes: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// Decoding takes more than [`memory_budget`](crate::memory_budget).
    #[error(
        "{width} x {height} pixels take {bytes} bytes of memory to decode, more than the {budget} that all threads have together; give more with --memory"
    )]
    OverBudget {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
        /// Bytes that decoding takes.
        bytes: u64,
        /// The budget, in bytes.
        budget: u64,
    },
    /// The decoder panicked: a defect of this program, not of the file.
    #[error("internal error: {reason}")]
    Internal {
        /// The panic's message.
        reason: String,
    },
    /// The system has no memory for the picture.
    #[error("no memory for {bytes} bytes of pixels")]
    OutOfMemory {
        /// Requested bytes.
        bytes: usize,
    },
}

impl DecodeError {
    pub(super) fn truncated(format: Format, what: &'static str) -> DecodeError {
        DecodeError::Truncated { format, what }
    }

    pub(super) fn broken(format: Format, what: impl Into<String>) -> DecodeError {
        DecodeError::Broken { format, what: what.into() }
    }

    pub(super) fn unsupported(format: Format, what: impl Into<String>) -> DecodeError {
        DecodeError::Unsupported { format, what: what.into() }
    }
}
