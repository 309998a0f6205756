//! What several test suites share: where the golden fixtures lie, the formula that fills weights of any size without
//! shipping them, the kept inputs of the fuzzers, and tests that are left out or need a process of their own.

mod alone;
mod skip;
pub mod torch_save;

pub use alone::is_alone;
pub use skip::{python_with, skip, skip_anywhere};

use std::io::Read;
use std::path::PathBuf;

/// A file of `tests/fixtures/golden`.
pub fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/golden").join(name)
}

/// A golden JSON file.
///
/// # Panics
/// When it is missing or broken: the test cannot go on.
pub fn golden_json(name: &str) -> serde_json::Value {
    let text = std::fs::read_to_string(golden(name)).expect("a golden fixture");
    serde_json::from_str(&text).expect("a golden fixture in JSON")
}

/// Names and shapes of the `tensors` member of a golden JSON file, or of the object itself.
///
/// # Panics
/// When the fixture has another form.
pub fn shapes(tensors: &serde_json::Value) -> Vec<(String, Vec<i64>)> {
    let sizes =
        |v: &serde_json::Value| v.as_array().expect("a shape").iter().map(|n| n.as_i64().expect("a size")).collect();
    tensors.as_object().expect("names and shapes").iter().map(|(name, shape)| (name.clone(), sizes(shape))).collect()
}

/// `count` values in [-1, 1) that depend on `name` alone: FNV-1a of the name seeds a splitmix64 counter.
pub fn stream(name: &str, count: usize) -> impl Iterator<Item = f64> {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    (1..=count as u64).map(move |i| {
        let z = seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let z = z ^ (z >> 31);
        2.0 * ((z >> 40) as f64 / (1u64 << 24) as f64) - 1.0
    })
}

/// The golden weight of tensor `name`: row-major f32 values of `shape`, `gain` 3 unless a fixture says otherwise.
pub fn formula(salt: &str, name: &str, shape: &[i64], gain: f64) -> Vec<f32> {
    let count = shape.iter().product::<i64>() as usize;
    let fan_in = shape.iter().skip(1).product::<i64>() as f64;
    let scale = (gain / fan_in).sqrt();
    let is_scale = name.ends_with("weight") || name.ends_with("running_var");
    let value = |v: f64| match (shape.len() >= 2, is_scale) {
        (true, _) => v * scale,
        (false, true) => 1.0 + 0.1 * v,
        (false, false) => 0.1 * v,
    };
    stream(&format!("{salt}{name}"), count).map(|v| value(v) as f32).collect()
}

/// Names and bytes of the files in `fuzz/corpus/<target>.tar.gz` below `crate_dir`, sorted by name.
///
/// # Panics
/// When the archive is missing, broken or empty: the test cannot go on.
pub fn corpus(crate_dir: &str, target: &str) -> Vec<(String, Vec<u8>)> {
    let path = PathBuf::from(crate_dir).join("fuzz/corpus").join(format!("{target}.tar.gz"));
    let file = std::fs::File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut files = Vec::new();
    for entry in archive.entries().expect("a tar archive") {
        let mut entry = entry.expect("an entry of the corpus");
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = entry.path().expect("a name").display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("a file of the corpus");
        files.push((name, bytes));
    }
    assert!(!files.is_empty(), "{} is empty", path.display());
    files.sort();
    files
}
