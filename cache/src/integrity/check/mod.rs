//! Is a cache right: a sample of its images encoded again and compared.
//!
//! [`crate::verify()`] says that the bytes are those that were written. This says that what was written is what the
//! tokenizer computes from the images, and if not, what kind of difference there is.

pub(crate) mod agreement;
pub(crate) mod compare;
pub(crate) mod report;
