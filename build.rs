//! Records what `tokengrid --version` prints: package version, commit, and the libtorch that it is built against.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=.git/HEAD");
    println!("cargo:rerun-if-changed=.git/index");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown commit".into());
    let torch = if std::env::var_os("CARGO_FEATURE_TORCH").is_some() { "libtorch 2.11.0" } else { "without libtorch" };
    println!("cargo:rustc-env=TOKENGRID_VERSION={version} ({commit}, {torch})");
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_string())
}
