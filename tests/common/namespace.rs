//! Private file systems for tests.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs a shell script as root of a user namespace, where it may mount. `None`, with the reason recorded, where the system
/// does not allow that.
pub(crate) fn in_namespace(script: &str, arguments: &[&str]) -> Option<Output> {
    let unshare = |script: &str, arguments: &[&str]| {
        let fixed = ["--user", "--map-root-user", "--mount", "sh", "-euc", script, "sh"];
        Command::new("unshare").args(fixed).args(arguments).output()
    };
    let folder = tempfile::tempdir().unwrap();
    match unshare("mount -t tmpfs -o size=64k tmpfs \"$1\"", &[folder.path().to_str().unwrap()]) {
        Ok(output) if output.status.success() => Some(unshare(script, arguments).unwrap()),
        Ok(output) => {
            let reason = String::from_utf8_lossy(&output.stderr).trim().to_string();
            tokengrid_test_support::skip_anywhere(&format!("no file system can be mounted here ({reason})"));
            None
        }
        Err(error) => {
            tokengrid_test_support::skip_anywhere(&format!("`unshare` cannot be run ({error})"));
            None
        }
    }
}

/// Set in a test that runs again in its own namespace: the mount point of its small disk.
const DISK: &str = "TOKENGRID_TEST_DISK";

/// Runs `test` of this program again in its own namespace with a small disk: there, it returns the disk, and the test
/// continues on it; here, `None`.
pub(crate) fn small_disk(test: &str) -> Option<SmallDisk> {
    if let Some(disk) = std::env::var_os(DISK) {
        return Some(SmallDisk { path: disk.into() });
    }
    let folder = tempfile::tempdir().unwrap();
    let (program, disk) = (std::env::current_exe().unwrap(), folder.path().to_str().unwrap());
    let script = format!(
        "mount -t tmpfs -o size=64k tmpfs \"$1\"; export {DISK}=\"$1\"; exec \"$2\" --exact \"$3\" --nocapture"
    );
    let output = in_namespace(&script, &[disk, program.to_str().unwrap(), test])?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    None
}

/// A file system in memory whose size can be changed.
pub(crate) struct SmallDisk {
    pub path: PathBuf,
}

impl SmallDisk {
    /// Sets the size of the disk, which must hold the existing files.
    pub(crate) fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        let status = Command::new("mount").args(["-o", &options]).arg(&self.path).status().unwrap();
        assert!(status.success(), "{} cannot be made {size}", self.path.display());
    }

    /// Removes everything.
    pub(crate) fn clear(&self) {
        for entry in std::fs::read_dir(&self.path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) }.unwrap();
        }
    }
}

/// Files below a folder, whose names are whole or temporary.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = vec![];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}
