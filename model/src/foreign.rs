//! Outcomes of the C surface in `csrc/`: null, or a text that says what failed.

use crate::ModelError;
use std::ffi::{CStr, c_char};

/// A text that is to be freed, or null.
pub(crate) type Text = *mut c_char;

unsafe extern "C" {
    fn graph_free_text(text: Text);
}

/// Whether a call went well, in libtorch's words, of which the first line counts.
///
/// # Errors
/// [`ModelError::DeviceFailed`].
pub(crate) fn outcome(text: Text) -> Result<(), ModelError> {
    if text.is_null() {
        return Ok(());
    }
    // SAFETY: such a text ends with a zero, and is ours to free.
    let words = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    // SAFETY: as above; nothing refers to it any more.
    unsafe { graph_free_text(text) };
    Err(ModelError::DeviceFailed { reason: words.lines().next().unwrap_or_default().to_owned() })
}
