//! Records what `tokengrid --version` prints: package version, commit, and the libtorch that it is built against.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    carry_photos();
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

/// Writes a list of the files below `data/photos` and `data/unseen` with their bytes: they are built into the program for its demo.
fn carry_photos() {
    let data = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("data");
    let mut files: Vec<PathBuf> = vec![];
    for folder in ["photos", "unseen"] {
        println!("cargo:rerun-if-changed=data/{folder}");
        files.extend(files_below(&data.join(folder)));
    }
    files.sort();
    let entry = |file: &PathBuf| {
        let name = file.strip_prefix(&data).unwrap_or(file);
        format!("({:?}, include_bytes!({file:?})),\n", name)
    };
    let list: String = files.iter().map(entry).collect();
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default()).join("photos.rs");
    let text = format!("static PHOTOS: &[(&str, &[u8])] = &[\n{list}];\n");
    if let Err(error) = std::fs::write(&out, text) {
        panic!("cannot write {}: {error}", out.display());
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
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
