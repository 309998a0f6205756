//! Checks the output paths of `sample`: no output may replace another, which would be noticed only after the last image.

use crate::args::SampleArgs;
use crate::exit::Usage;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// Files that a run keeps in its folder and replaces as needed.
const OF_THE_RUN: [&str; 5] = ["images", "tokens", "diagnostics", "grid.png", "sample.json"];

const CACHE_OUT: &str = "--cache-out";

/// Checks that the output paths differ from each other and from the files that the run keeps in its folder.
pub(super) fn check(args: &SampleArgs) -> Result<(), Usage> {
    let files = [("--npz", &args.npz), ("--tokens", &args.tokens)];
    let typed: Vec<(&str, &Path)> = files.iter().filter_map(|(flag, path)| Some((*flag, path.as_deref()?))).collect();
    if let [(_, npz), (_, tokens)] = typed[..]
        && real_file(npz) == real_file(tokens)
    {
        return Err(Usage(format!("--npz and --tokens name the same file, {}: give two", npz.display())));
    }
    let cache = args.cache_out.as_deref();
    for (flag, path) in typed.iter().copied().chain(cache.map(|dir| (CACHE_OUT, dir))) {
        check_apart_from_run(flag, path, &args.out)?;
    }
    let Some(cache) = cache else { return Ok(()) };
    for (flag, path) in typed.into_iter().chain([("--out", &*args.out)]) {
        if real_folder(path).starts_with(real_folder(cache)) {
            let (path, cache) = (path.display(), cache.display());
            let text =
                format!("{flag} {path} lies in --cache-out {cache}, a folder that holds a cache and nothing else");
            return Err(Usage(text));
        }
    }
    Ok(())
}

fn check_apart_from_run(flag: &str, path: &Path, out: &Path) -> Result<(), Usage> {
    let (shown, folder) = (path.display(), out.display());
    let real_path = if flag == CACHE_OUT { real_folder(path) } else { real_file(path) };
    let Ok(inside) = real_path.strip_prefix(real_folder(out)) else { return Ok(()) };
    match inside.components().next() {
        None => Err(Usage(format!("{flag} {shown} is --out itself: give another name"))),
        Some(Component::Normal(name)) if OF_THE_RUN.iter().any(|own| name == *own) => {
            let name = name.display();
            Err(Usage(format!(
                "{flag} {shown}: the run keeps `{name}` of its own in --out {folder}; give another name"
            )))
        }
        Some(_) => Ok(()),
    }
}

/// As [`real_file`], but a link to a folder is resolved.
fn real_folder(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| real_file(path))
}

/// The path without links, `.` and `..`; it need not exist. A link at its end stays: a rename replaces the link.
fn real_file(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let (mut folder, mut rest): (PathBuf, Vec<OsString>) = (absolute, vec![]);
    while let (Some(above), last) = (folder.parent().map(Path::to_path_buf), folder.file_name().map(OsString::from)) {
        rest.extend(last.or_else(|| Some("..".into())));
        folder = above;
        if let Ok(found) = folder.canonicalize() {
            folder = found;
            break;
        }
    }
    for name in rest.into_iter().rev() {
        match name == ".." {
            true => _ = folder.pop(),
            false => folder.push(name),
        }
    }
    folder
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // in a test, a panic is the report
mod tests {
    use super::*;

    #[test]
    fn one_place_has_one_path() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("a")).unwrap();
        std::os::unix::fs::symlink("a", root.join("b")).unwrap();
        for (path, expected) in [
            ("a/x", "a/x"),
            ("b/x", "a/x"),
            ("b/./x", "a/x"),
            ("a/../b/x", "a/x"),
            ("new/y/../x", "new/x"),
            ("new/..", ""),
            ("b", "b"),
        ] {
            assert_eq!(real_file(&root.join(path)), root.join(expected).components().collect::<PathBuf>(), "{path}");
        }
    }
}
