//! The limit of `--memory`, its default, and pictures that are too large for any memory.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::{json, photos, sorted, text, tokengrid};
use std::path::{Path, PathBuf};

/// The largest picture that is decoded at all, in the least convenient shape: a BMP file of which there is only the header.
fn tall(path: &Path) -> PathBuf {
    let height = tokengrid_ingest::MAX_PIXELS as u32;
    let info = [40u32, 1, height, 24 << 16 | 1, 0, 0, 0, 0, 0, 0].map(u32::to_le_bytes).concat();
    std::fs::write(path, [&b"BM"[..], &[0; 8], &54u32.to_le_bytes(), &info].concat()).unwrap();
    path.to_owned()
}

#[test]
fn a_picture_that_the_tokenizer_has_no_memory_for_is_refused_from_its_header() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path(), 1, 2);
    let class = sorted(&source)[0].clone();
    tall(&class.join("tall.bmp"));
    let fixed = ["eval", "reconstruction", text(&source), "--tokenizer", "tiny", "--size", "original"];
    let report = json(&[&fixed[..], &["--max-bad-fraction", "0.5"]].concat());
    assert_eq!(report["images"], 2);
    let bad = &report["bad"][0];
    assert!(bad["key"].as_str().unwrap().ends_with("tall.bmp"), "{bad}");
    let reason = bad["reason"].as_str().unwrap();
    assert!(reason.contains("178956970 pixels") && reason.contains("--size"), "{reason}");

    let out = folder.path().join("out");
    for size in ["original", "256"] {
        let picture = class.join("tall.bmp");
        let fixed = ["reconstruct", text(&picture), "--tokenizer", "tiny", "--size", size, "--out", text(&out)];
        let output = tokengrid().args(fixed).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("178956970") && !said.contains("truncated"), "{size}: {said}");
    }
}

#[test]
fn whole_pictures_are_evaluated_within_the_budget() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path(), 2, 2);
    let evaluate = |memory: &str| {
        let fixed = ["eval", "reconstruction", text(&source), "--tokenizer", "tiny", "--size", "original"];
        json(&[&fixed[..], &["--max-bad-fraction", "1", "--threads", "4", "--memory", memory]].concat())
    };
    let ample = evaluate("1GB");
    assert_eq!(ample["images"], 4);
    // For one picture at a time.
    let photo = std::fs::read(&sorted(&sorted(&source)[0])[0]).unwrap();
    let (width, height) = tokengrid_ingest::picture_size(&photo, &Default::default()).unwrap();
    let enough = format!("{}", 12 * u64::from(width) * u64::from(height));
    let tight = evaluate(&enough);
    for figure in ["images", "psnr", "ssim", "tokens"] {
        assert_eq!(tight[figure], ample[figure], "{figure}");
    }
}

#[test]
fn processes_on_one_machine_share_the_default_budget_and_not_one_that_was_typed() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (photos(folder.path(), 1, 1), folder.path().join("out"));
    let budget = |processes: &str, more: &[&str]| {
        let mut command = tokengrid();
        command.args(["tokenize", text(&source), "--tokenizer", "tiny", "--size", "32", "--out", text(&out)]);
        command.args(["--dry-run", "--json"]).args(more).env("LOCAL_WORLD_SIZE", processes);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        plan["decoding_bytes"].as_u64().unwrap()
    };
    let (alone, many) = (budget("1", &[]), budget("1000", &[]));
    // Less than a thousandth of half of the memory, and of an eighth on large machines.
    assert!(many <= alone / 100 && many > 0, "{alone} and {many}");
    assert_eq!(budget("1000", &["--memory", "512MiB"]), 512 << 20);
}
