//! A file of arbitrary bytes: zip, old-style or safetensors.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| tokengrid_model::weights::fuzzing::file(data));
