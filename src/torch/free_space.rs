//! Free space on disks.

use std::path::Path;

/// Free bytes of the file system of `path`, or of its nearest existing parent.
pub(super) fn free_bytes(path: &Path) -> Option<u64> {
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
