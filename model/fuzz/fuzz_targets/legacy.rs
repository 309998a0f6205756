//! Arbitrary bytes behind the fixed beginning of an old-style file.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| tokengrid_model::weights::fuzzing::legacy(data));
