//! An array file of arbitrary bytes, imported.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let dir = tempfile::tempdir().expect("a temporary folder");
    tokengrid_cache::fuzzing::npy(dir.path(), data);
});
