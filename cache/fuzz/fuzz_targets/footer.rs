//! A shard of arbitrary bytes, opened alone and as part of a cache whose manifest lists it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let dir = tempfile::tempdir().expect("a temporary folder");
    tokengrid_cache::fuzzing::footer(dir.path(), data);
});
