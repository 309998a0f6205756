//! Arbitrary bits of any width, by every kernel.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| tokengrid_cache::fuzzing::packed_rows(data));
