//! Records what `tokengrid --version` prints: package version, commit, and the libtorch that it is built against.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    for file in [".git/HEAD", ".git/index"].into_iter().filter(|file| Path::new(file).exists()) {
        println!("cargo:rerun-if-changed={file}");
    }
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown commit".into());
    let torch = match std::env::var_os("CARGO_FEATURE_TORCH") {
        Some(_) => format!("libtorch {}", libtorch_version().unwrap_or_else(|| "2.11".into())),
        None => "without libtorch".into(),
    };
    println!("cargo:rustc-env=TOKENGRID_VERSION={version} ({commit}, {torch})");
}

/// What libtorch's own folder says of its version: `build-version`, or a Python package's `version.py`.
fn libtorch_version() -> Option<String> {
    let folder = PathBuf::from(std::env::var_os("LIBTORCH")?);
    if let Ok(version) = std::fs::read_to_string(folder.join("build-version")) {
        return Some(version.trim().to_string());
    }
    let text = std::fs::read_to_string(folder.join("version.py")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("__version__ = "))?;
    Some(line.trim_matches(['\'', '"']).to_string())
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_string())
}
