//! Caches of the bundled photographs, and the results of `cache check`.
#![allow(dead_code, reason = "each test file uses a part of it")]

use super::common::{json, text, tokengrid};
use std::path::Path;

#[track_caller]
pub(crate) fn tokenize(source: &Path, out: &Path, more: &[&str]) -> serde_json::Value {
    let fixed = ["tokenize", text(source), "--tokenizer", "tiny", "--size", "64", "--out", text(out)];
    json(&[&fixed[..], more].concat())
}

/// Runs `cache check`; exit status, the JSON object.
pub(crate) fn check(cache: &Path, source: &Path, tokenizer: &str) -> (i32, serde_json::Value) {
    let fixed = ["cache", "check", text(cache), "--source", text(source), "--tokenizer", tokenizer, "--json"];
    let output = tokengrid().args(fixed).output().unwrap();
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap())
}
