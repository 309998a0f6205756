//! Output files: checks beforehand, and atomic writes.

use anyhow::Context;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Writes a file atomically and durably.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    tokengrid_cache::write_atomically(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// Longest list that is read: the keys of some ten million images.
const LIST_BYTES_MAX: u64 = 2 << 30;

/// The lines of a list of names, without those that are empty. The file may begin with a byte order mark and have line ends of
/// any kind.
pub(crate) fn read_list(path: &Path) -> anyhow::Result<Vec<String>> {
    let reading = || format!("cannot read {}", path.display());
    let mut text = String::new();
    File::open(path).with_context(reading)?.take(LIST_BYTES_MAX + 1).read_to_string(&mut text).with_context(reading)?;
    anyhow::ensure!(text.len() as u64 <= LIST_BYTES_MAX, "{} is larger than 2 GiB: no list of names", path.display());
    let lines = text.trim_start_matches('\u{feff}').lines().filter(|line| !line.is_empty());
    Ok(lines.map(str::to_owned).collect())
}

/// What a file says that this program made: pictures in the text chunk `Software`, reports in their first field, `made_by`.
pub(crate) const MADE_BY: &str = "tokengrid";
/// Bytes at the start of a file that contain the mark.
const MARK_WITHIN_BYTES: u64 = 1024;

/// Whether a file is a picture made by this program.
pub(crate) fn is_own_png(path: &Path) -> io::Result<bool> {
    let start = start_of(path)?;
    Ok(start.starts_with(b"\x89PNG") && contains(&start, &format!("tEXtSoftware\0{MADE_BY}")))
}

/// Whether a file is a report made by this program.
pub(crate) fn is_own_json(path: &Path) -> io::Result<bool> {
    let start = start_of(path)?;
    Ok(start.starts_with(b"{") && contains(&start, &format!("\"made_by\": \"{MADE_BY}\"")))
}

fn start_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut start = vec![];
    File::open(path)?.take(MARK_WITHIN_BYTES).read_to_end(&mut start)?;
    Ok(start)
}

fn contains(bytes: &[u8], mark: &str) -> bool {
    bytes.windows(mark.len()).any(|window| window == mark.as_bytes())
}

/// Checks before the work begins that a file can be written to `path` later: its folder exists, and only an empty file or
/// one made by this program (`is_own`) would be replaced.
pub(crate) fn check_target(path: &Path, is_own: fn(&Path) -> io::Result<bool>) -> anyhow::Result<()> {
    let Some(found) = existing_target(path)? else { return Ok(()) };
    let is_replaceable =
        found.len() == 0 || is_own(path).with_context(|| format!("cannot read {}", path.display()))?;
    anyhow::ensure!(
        is_replaceable,
        "{} exists, and it is not one that this program made: remove it, or give another name",
        path.display()
    );
    Ok(())
}

/// The file that a later write to `path` would replace, if any. The folder must exist and be writable, and an existing
/// `path` must be a regular file: a rename over `/dev/null` would replace the device.
pub(crate) fn existing_target(path: &Path) -> anyhow::Result<Option<std::fs::Metadata>> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    anyhow::ensure!(folder.is_dir(), "cannot write {}: there is no folder {}", path.display(), folder.display());
    let found = match std::fs::metadata(path) {
        Ok(found) => {
            anyhow::ensure!(!found.is_dir(), "cannot write {}: it is a folder", path.display());
            anyhow::ensure!(found.is_file(), "cannot write {}: it is a device, not a file", path.display());
            Some(found)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("cannot write {}", path.display())),
    };
    check_takes_files(folder).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(found)
}

/// Checks by making a temporary file that a folder is writable: finds missing permissions, read-only and full disks.
pub(crate) fn check_takes_files(folder: &Path) -> io::Result<()> {
    // The temporary file is removed when it is dropped.
    tokengrid_cache::AtomicFile::create(&folder.join("probe")).map(drop)
}

/// A report as written to a file: the object, with the mark in front.
#[derive(serde::Serialize)]
struct Report<'a, T> {
    made_by: &'static str,
    #[serde(flatten)]
    value: &'a T,
}

/// Writes a report, which must be a JSON object.
pub(crate) fn write_json(path: &Path, value: &impl serde::Serialize) -> anyhow::Result<()> {
    write_whole(path, &serde_json::to_vec_pretty(&Report { made_by: MADE_BY, value })?)
}
