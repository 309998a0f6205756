//! PyTorch as users install it, in a separate environment: 5 GB, so it is made only where `CI` is set.

use crate::skip;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The wheels that `make setup` takes libtorch from; the version of PyTorch is named there.
const WHEELS: &str = include_str!("../../../scripts/setup/libtorch-cpu.txt");

/// The folder of a Python environment with PyTorch: `TOKENGRID_TORCH_ENV`, or one that was made below the target folder. Where
/// there is none, it is made if `CI` is set; otherwise the test is [skipped](skip).
///
/// # Panics
/// Where `CI` is set and it cannot be made.
#[track_caller]
pub fn torch_environment() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("TOKENGRID_TORCH_ENV") {
        return Some(named.into());
    }
    let folder = target_folder().join("torch-env");
    let is_there = |folder: &Path| folder.join("complete").exists();
    if is_there(&folder) {
        return Some(folder);
    }
    if std::env::var_os("CI").is_none_or(|ci| ci.is_empty()) {
        skip("no PyTorch: TOKENGRID_TORCH_ENV names no environment that has it (with CI=1, the test makes one: 5 GB)");
        return None;
    }
    // One test makes it, others wait.
    let lock = File::create(folder.with_extension("lock")).expect("the target folder can be written");
    lock.lock().expect("a lock");
    if !is_there(&folder) {
        make(&folder);
    }
    Some(folder)
}

/// `target`, whose subfolders, such as `release/deps`, hold the test programs.
fn target_folder() -> PathBuf {
    let program = std::env::current_exe().expect("this program");
    let is_target = |folder: &&Path| folder.join("CACHEDIR.TAG").exists();
    program.ancestors().find(is_target).expect("cargo marks its target folder").to_owned()
}

fn make(folder: &Path) {
    let torch = WHEELS.lines().find_map(|line| line.split(' ').next().filter(|word| word.starts_with("torch==")));
    let torch = torch.expect("the version of PyTorch");
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder));
    let install = ["-m", "pip", "install", "--quiet", "--no-cache-dir", "--disable-pip-version-check", torch];
    run(Command::new(folder.join("bin/python")).args(install));
    File::create(folder.join("complete")).expect("a file in the environment");
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
