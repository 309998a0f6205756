//! The libtorch of an installed PyTorch, for programs installed with the Python package.
//!
//! `tokengrid-torch` built from source has the path of libtorch. The one in a wheel uses the libtorch of the PyTorch that is
//! installed beside the package, which must be the version that it was built against.

use anyhow::{Context, bail};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Required version of PyTorch, major and minor number: others have another binary interface.
const VERSION: &str = "2.11";

/// What to type. The packages are made by `make wheel`: pip does not find them by itself.
const INSTALL: &str = "pip install --find-links dist 'tokengrid[torch]', where dist is the folder with both packages";

/// Prints the folder of PyTorch, or nothing.
const ASK: &str =
    "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')";

/// The folder of libtorch's libraries for a program of a Python package; `None` for any other.
///
/// # Errors
/// PyTorch is not installed, or has another version.
pub(super) fn libraries_for(program: &Path) -> anyhow::Result<Option<PathBuf>> {
    let Some(packages) = packages_of(program) else { return Ok(None) };
    let beside = packages.join("torch");
    let torch = if is_torch(&beside) { Some(beside) } else { ask_python(program) };
    let Some(torch) = torch else {
        bail!(
            "this command computes with the libtorch of PyTorch {VERSION}, which is not installed beside {}: \
             {INSTALL}",
            packages.join("tokengrid").display()
        );
    };
    let found = version_of(&torch)?;
    if !found.starts_with(&format!("{VERSION}.")) {
        bail!(
            "this command computes with the libtorch of PyTorch {VERSION}, and {} is PyTorch {found}: \
             pip install 'torch=={VERSION}.*'",
            torch.display()
        );
    }
    Ok(Some(torch.join("lib")))
}

/// The error if the package with `tokengrid-torch` is not installed.
pub(super) fn missing(program: &Path) -> anyhow::Error {
    anyhow::anyhow!(
        "{} is missing: this command needs it, and it comes with the package tokengrid-torch: {INSTALL}",
        program.display()
    )
}

/// `LD_LIBRARY_PATH` with a folder in front.
pub(super) fn search_path(libraries: &Path) -> OsString {
    let mut path = libraries.as_os_str().to_owned();
    if let Some(before) = std::env::var_os("LD_LIBRARY_PATH").filter(|before| !before.is_empty()) {
        path.push(":");
        path.push(before);
    }
    path
}

/// The folder of Python packages that this program was installed with: it contains the package `tokengrid`, at the place
/// relative to the folder of programs where pip, uv or conda puts it.
fn packages_of(program: &Path) -> Option<PathBuf> {
    let prefix = program.parent()?.parent()?;
    let mut folders: Vec<PathBuf> = ["lib", "lib64"].iter().flat_map(|lib| pythons_in(&prefix.join(lib))).collect();
    // `pip install --target` puts programs and packages into one folder.
    folders.push(prefix.to_owned());
    folders.into_iter().find(|folder| folder.join("tokengrid/_errors.py").exists())
}

/// `python3.*/site-packages` and `dist-packages`.
fn pythons_in(lib: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(lib).into_iter().flatten().flatten();
    let is_python = |name: &OsString| name.to_str().is_some_and(|name| name.starts_with("python3"));
    let mut pythons: Vec<PathBuf> =
        entries.filter(|entry| is_python(&entry.file_name())).map(|entry| entry.path()).collect();
    pythons.sort();
    pythons.iter().flat_map(|python| ["site-packages", "dist-packages"].map(|folder| python.join(folder))).collect()
}

fn is_torch(folder: &Path) -> bool {
    folder.join("version.py").exists()
}

/// The folder of PyTorch according to Python, if it is not beside the package: for example the user's packages, or the
/// system's below an environment.
fn ask_python(program: &Path) -> Option<PathBuf> {
    let beside = program.with_file_name("python3");
    let python = if beside.exists() { beside } else { "python3".into() };
    let output = Command::new(python).args(["-c", ASK]).output().ok()?;
    let folder = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    is_torch(&folder).then_some(folder)
}

/// Version of PyTorch, such as `2.11.0+cpu`.
fn version_of(torch: &Path) -> anyhow::Result<String> {
    let file = torch.join("version.py");
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let version = text.lines().find_map(|line| line.strip_prefix("__version__ = "));
    Ok(version.map_or("of an unknown version", |version| version.trim_matches(['\'', '"'])).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// An environment in pip's layout, with the package and PyTorch of a version.
    fn environment(torch: Option<&str>) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let packages = folder.path().join("lib/python3.12/site-packages");
        fs::create_dir_all(packages.join("tokengrid")).unwrap();
        fs::create_dir_all(folder.path().join("bin")).unwrap();
        fs::write(packages.join("tokengrid/_errors.py"), "").unwrap();
        // A Python without PyTorch, so that the one of this machine is not used.
        std::os::unix::fs::symlink("/bin/true", folder.path().join("bin/python3")).unwrap();
        if let Some(version) = torch {
            fs::create_dir_all(packages.join("torch/lib")).unwrap();
            let text = format!("from typing import Optional\n__version__ = '{version}'\ndebug = False\n");
            fs::write(packages.join("torch/version.py"), text).unwrap();
        }
        let program = folder.path().join("bin/tokengrid");
        (folder, program)
    }

    #[test]
    fn the_matching_pytorch_is_found_and_others_are_refused_by_name() {
        for version in ["2.11.0+cpu", "2.11.1+cu130"] {
            let (folder, program) = environment(Some(version));
            let libraries = libraries_for(&program).unwrap();
            assert_eq!(libraries, Some(folder.path().join("lib/python3.12/site-packages/torch/lib")));
        }
        for (version, words) in [
            (Some("2.10.0"), "is PyTorch 2.10.0: pip install 'torch==2.11.*'"),
            (Some("2.110.0"), "is PyTorch 2.110.0"),
            (None, "is not installed beside"),
            (None, "pip install --find-links dist 'tokengrid[torch]'"),
        ] {
            let (_folder, program) = environment(version);
            let error = libraries_for(&program).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_program_outside_a_package_is_not_affected() {
        let (folder, program) = environment(Some("1.0"));
        fs::remove_dir_all(folder.path().join("lib/python3.12/site-packages/tokengrid")).unwrap();
        assert_eq!(libraries_for(&program).unwrap(), None);
    }

    #[test]
    fn python_gives_the_location_of_a_pytorch_elsewhere() {
        let (folder, program) = environment(None);
        let elsewhere = folder.path().join("elsewhere/torch");
        fs::create_dir_all(&elsewhere).unwrap();
        fs::write(elsewhere.join("version.py"), "__version__ = '2.11.0'\n").unwrap();
        let python = folder.path().join("bin/python3");
        fs::remove_file(&python).unwrap();
        fs::write(&python, format!("#!/bin/sh\necho {}\n", elsewhere.display())).unwrap();
        fs::set_permissions(&python, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(libraries_for(&program).unwrap(), Some(elsewhere.join("lib")));
    }
}
