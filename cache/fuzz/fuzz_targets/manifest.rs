//! A manifest of arbitrary bytes, as it is and with a valid signature.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| tokengrid_cache::fuzzing::manifest(data));
