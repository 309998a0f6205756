//! An arbitrary pickle, and the tensors that it describes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| tokengrid_model::weights::fuzzing::pickle(data));
