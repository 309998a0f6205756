//! A panic on purpose, for tests of what a defect in a decoder costs: its image, and nothing else.
//!
//! It must be possible in the program as it is built for users, because what happens to a panic there is decided by the
//! program and not by this library. No file is known that makes a decoder panic, so an environment variable names one.

use std::ffi::OsString;
use std::sync::OnceLock;

/// If this variable holds a text, decoding a file that ends with it panics.
const VARIABLE: &str = "TOKENGRID_PANIC_IN_DECODER";

/// Panics if the variable requests it.
pub(super) fn panic_on_request(file: &[u8]) {
    static ENDING: OnceLock<Option<OsString>> = OnceLock::new();
    let ending = ENDING.get_or_init(|| std::env::var_os(VARIABLE).filter(|text| !text.is_empty()));
    if ending.as_ref().is_some_and(|ending| file.ends_with(ending.as_encoded_bytes())) {
        panic!("{VARIABLE} asks for it");
    }
}
