//! Small dealings with files.

use anyhow::Context;
use std::fs::File;
use std::io::Read;
use std::io::{Seek, SeekFrom};
use std::path::Path;

/// Writes a file that appears whole or not at all, and is on the disk then.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    tokengrid_cache::write_atomically(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// Kinds of files that commands write to a path of the user's choice. Each says in itself that this program made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnFile {
    /// A picture: its text chunk `Software`.
    Png,
    /// A report: its first field, `made_by`.
    Json,
    /// Arrays: the comment of the archive.
    Npz,
}

/// What a file says that this program made.
const MADE_BY: &str = "tokengrid";
/// The marks of pictures and reports are near their beginning.
const MARK_WITHIN_BYTES: u64 = 1024;

impl OwnFile {
    fn is_made_by_us(self, path: &Path) -> std::io::Result<bool> {
        let mut file = File::open(path)?;
        let mut start = vec![];
        file.by_ref().take(MARK_WITHIN_BYTES).read_to_end(&mut start)?;
        let contains = |mark: &[u8]| start.windows(mark.len()).any(|bytes| bytes == mark);
        Ok(match self {
            OwnFile::Png => start.starts_with(b"\x89PNG") && contains(format!("tEXtSoftware\0{MADE_BY}").as_bytes()),
            OwnFile::Json => start.starts_with(b"{") && contains(format!("\"made_by\": \"{MADE_BY}\"").as_bytes()),
            OwnFile::Npz => {
                let mut end = vec![0; MADE_BY.len()];
                let has_end = file.seek(SeekFrom::End(-(end.len() as i64))).and_then(|_| file.read_exact(&mut end));
                start.starts_with(b"PK") && has_end.is_ok() && end == MADE_BY.as_bytes()
            }
        })
    }
}

/// Whether a file can be written to `path` later, before the work for it begins: its folder is there, and nothing would be
/// replaced but an empty file or one of its kind that this program made.
pub(crate) fn check_target(path: &Path, kind: OwnFile) -> anyhow::Result<()> {
    let Some(found) = existing_target(path)? else { return Ok(()) };
    let is_own =
        found.len() == 0 || kind.is_made_by_us(path).with_context(|| format!("cannot read {}", path.display()))?;
    anyhow::ensure!(
        is_own,
        "{} exists, and it is not one that this program made: remove it, or give another name",
        path.display()
    );
    Ok(())
}

/// The file that a later write to `path` would replace, if there is one. The folder must be there and take new files, and
/// what is there must be a plain file: a rename over `/dev/null` would replace the device.
pub(crate) fn existing_target(path: &Path) -> anyhow::Result<Option<std::fs::Metadata>> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    anyhow::ensure!(folder.is_dir(), "cannot write {}: there is no folder {}", path.display(), folder.display());
    let found = match std::fs::metadata(path) {
        Ok(found) => {
            anyhow::ensure!(!found.is_dir(), "cannot write {}: it is a folder", path.display());
            anyhow::ensure!(found.is_file(), "cannot write {}: it is a device, not a file", path.display());
            Some(found)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("cannot write {}", path.display())),
    };
    check_takes_files(folder).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(found)
}

/// Whether new files can be made in a folder. Permissions, read-only disks and full disks are found by trying.
pub(crate) fn check_takes_files(folder: &Path) -> std::io::Result<()> {
    // Dropped unpublished, it leaves nothing.
    tokengrid_cache::AtomicFile::create(&folder.join("probe")).map(drop)
}

/// A report as it is written to a file: the object, and who made it.
#[derive(serde::Serialize)]
struct Report<'a, T> {
    made_by: &'static str,
    #[serde(flatten)]
    value: &'a T,
}

/// Writes a report, an object.
pub(crate) fn write_json(path: &Path, value: &impl serde::Serialize) -> anyhow::Result<()> {
    write_whole(path, &serde_json::to_vec_pretty(&Report { made_by: MADE_BY, value })?)
}

/// Free bytes of the file system that `path` (or the folder above it that exists) lies on.
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    use std::os::unix::ffi::OsStrExt;
    let absolute = std::path::absolute(path).ok()?;
    let existing = absolute.ancestors().find(|folder| folder.exists())?;
    let name = std::ffi::CString::new(existing.as_os_str().as_bytes()).ok()?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the name is NUL-terminated, and the buffer has the size of the struct that the call fills.
    let ok = unsafe { libc::statvfs(name.as_ptr(), stat.as_mut_ptr()) } == 0;
    // SAFETY: the call succeeded, so the struct is filled.
    ok.then(|| unsafe { stat.assume_init() }).map(|stat| stat.f_bavail * stat.f_frsize)
}
