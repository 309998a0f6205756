//! Files that PyTorch wrote, of the old format and the zip one, tensor by tensor (fixtures/torch/make.py).
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

use std::path::PathBuf;
use tch::Tensor;
use tokengrid_model::Weights;
use tokengrid_model::weights::Format;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/torch").join(name)
}

fn open(name: &str) -> Weights {
    Weights::open(&fixture(name)).unwrap()
}

/// Same kind, same shape, same bits.
#[track_caller]
fn assert_same(name: &str, a: &Tensor, b: &Tensor) {
    assert_eq!((a.kind(), a.size()), (b.kind(), b.size()), "{name}");
    assert!(a.equal(b), "{name}: values differ");
}

/// Every tensor of `file` equals the expected one of `case`, and none is missing.
#[track_caller]
fn check(file: &str, case: &str) {
    let (weights, expected) = (open(file), open("expected.safetensors"));
    let prefix = format!("{case}.");
    let names: Vec<&str> = expected.names().filter_map(|name| name.strip_prefix(&prefix)).collect();
    assert!(!names.is_empty());
    assert_eq!(weights.names().collect::<Vec<_>>(), names, "{file}");
    for name in names {
        let want = expected.tensor(&format!("{prefix}{name}")).unwrap();
        assert_same(&format!("{file}: {name}"), &weights.tensor(name).unwrap(), &want);
    }
}

#[test]
fn every_file_of_both_formats_is_read_to_the_bit() {
    for case in ["plain", "kinds", "views", "tied", "parameters", "checkpoint"] {
        check(&format!("legacy-{case}.pth"), case);
        check(&format!("zip-{case}.pth"), case);
    }
    check("legacy-protocol4.pth", "plain");
    check("legacy-parameter-0.1.pth", "parameter-0.1");
}

#[test]
fn the_format_is_told_by_content() {
    assert_eq!(open("legacy-plain.pth").format(), Format::TorchLegacy);
    assert_eq!(open("zip-plain.pth").format(), Format::TorchZip);
    assert_eq!(open("expected.safetensors").format(), Format::Safetensors);
}

#[test]
fn a_training_checkpoint_says_how_far_it_is() {
    for file in ["legacy-checkpoint.pth", "zip-checkpoint.pth"] {
        let weights = open(file);
        assert_eq!(weights.fact("epoch"), Some("12"), "{file}");
        assert_eq!(weights.fact("global_step"), Some("3456"), "{file}");
        assert_eq!(weights.fact("state_dict"), None, "{file}");
        assert_eq!(weights.num_other_tensors(), 2, "{file}: the optimizer's");
    }
}

#[test]
fn a_file_cut_anywhere_is_an_error_and_never_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["legacy-tied.pth", "zip-tied.pth", "expected.safetensors"] {
        let path = folder.path().join(file);
        std::fs::copy(fixture(file), &path).unwrap();
        let whole = std::fs::metadata(&path).unwrap().len();
        for len in (0..whole).rev().step_by(3) {
            std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len).unwrap();
            let error = Weights::open(&path).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(file), "{len} bytes: {error}");
        }
    }
}
