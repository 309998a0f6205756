//! Small dealings with files.

use anyhow::Context;
use std::path::Path;

/// Writes a file that appears whole or not at all.
pub fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let write = || std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, path));
    write().with_context(|| format!("cannot write {}", path.display())).inspect_err(|_| {
        // What is left of it is of no use, and may be what fills the disk.
        let _ = std::fs::remove_file(&temporary);
    })
}

/// Whether a file can be written to `path` later, before the work for it begins: its folder is there, and what it would
/// replace is a file of its kind, which begins with `start`.
pub fn check_target(path: &Path, start: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    anyhow::ensure!(folder.is_dir(), "cannot write {}: there is no folder {}", path.display(), folder.display());
    anyhow::ensure!(!path.is_dir(), "cannot write {}: it is a folder", path.display());
    let Ok(bytes) = std::fs::read(path) else { return Ok(()) };
    let is_own = bytes.is_empty() || bytes.starts_with(start);
    anyhow::ensure!(is_own, "{} is a file of another kind, which would be replaced; give another name", path.display());
    Ok(())
}

/// Writes a report.
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> anyhow::Result<()> {
    write_whole(path, &serde_json::to_vec_pretty(value)?)
}

/// Free bytes of the file system that `path` (or the folder above it that exists) lies on.
#[cfg(feature = "torch")]
pub fn free_bytes(path: &Path) -> Option<u64> {
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
