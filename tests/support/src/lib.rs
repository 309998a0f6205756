//! What several test suites share: where the golden fixtures lie, the formula that fills weights of any size without
//! shipping them, the heap of a test program, the kept inputs of the fuzzers, tests that are left out or need a process of their own, PyTorch and its CUDA library.

mod alone;
pub mod buckets;
pub mod cuda_library;
mod formula;
pub mod heap;
mod skip;
mod torch_environment;
pub mod torch_save;

pub use alone::is_alone;
pub use formula::{formula, stream};
pub use skip::{python_with, skip, skip_anywhere};
use std::io::Read;
use std::path::{Path, PathBuf};
pub use torch_environment::torch_environment;

/// A file of `tests/fixtures/golden`; one that is compressed there was unpacked by the build script.
pub fn golden(name: &str) -> PathBuf {
    let unpacked = Path::new(env!("OUT_DIR")).join("golden").join(name);
    if unpacked.exists() {
        unpacked
    } else {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/golden").join(name)
    }
}

/// A golden JSON file.
///
/// # Panics
/// When it is missing or broken: the test cannot go on.
pub fn golden_json(name: &str) -> serde_json::Value {
    let text = std::fs::read_to_string(golden(name)).expect("a golden fixture");
    serde_json::from_str(&text).expect("a golden fixture in JSON")
}

/// Rows and columns of [`golden_features`].
pub const GOLDEN_FEATURES: [usize; 2] = [500, 64];

/// The two matrices of features whose FID is in `metrics.json`, row by row.
pub fn golden_features() -> [Vec<f64>; 2] {
    let count = GOLDEN_FEATURES.iter().product();
    [stream("v1:fa", count).collect(), stream("v1:fb", count).map(|value| 1.3 * value + 0.1).collect()]
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

/// Names and bytes of the files in `fuzz/corpus/<target>.tar.gz` below `crate_dir`, sorted by name.
///
/// # Panics
/// When the archive is missing, broken or empty: the test cannot go on.
pub fn corpus(crate_dir: &str, target: &str) -> Vec<(String, Vec<u8>)> {
    archived(&PathBuf::from(crate_dir).join("fuzz/corpus").join(format!("{target}.tar.gz")))
}

/// Names and bytes of the files in a `.tar.gz`, sorted by name.
///
/// # Panics
/// When the archive is missing, broken or empty: the test cannot go on.
pub fn archived(path: &Path) -> Vec<(String, Vec<u8>)> {
    let file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut files = Vec::new();
    for entry in archive.entries().expect("a tar archive") {
        let mut entry = entry.expect("an entry of the archive");
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = entry.path().expect("a name").display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("a file of the archive");
        files.push((name, bytes));
    }
    assert!(!files.is_empty(), "{} is empty", path.display());
    files.sort();
    files
}
