//! A working folder that was deleted.
//!
//! MKL, which is part of libtorch, ends the process while it is loaded if the path of the working folder cannot be determined.
//! It is loaded before `main`, so the process must change its folder earlier: functions in `.preinit_array` run before those
//! of any library.

use std::sync::atomic::{AtomicBool, Ordering};

static WAS_DELETED: AtomicBool = AtomicBool::new(false);

#[used]
#[unsafe(link_section = ".preinit_array")]
static BEFORE_LIBRARIES: extern "C" fn() = leave_if_deleted;

/// Changes to a folder with only numbered entries in which no file can be created, so that relative paths have no effect.
extern "C" fn leave_if_deleted() {
    let mut path = [0u8; libc::PATH_MAX as usize];
    // SAFETY: the buffer has the given length. Both functions are plain system calls, safe before initialization.
    let left = unsafe {
        libc::getcwd(path.as_mut_ptr().cast(), path.len()).is_null()
            && *libc::__errno_location() == libc::ENOENT
            && libc::chdir(c"/proc/self/task".as_ptr()) == 0
    };
    WAS_DELETED.store(left, Ordering::Relaxed);
}

/// Warns about it once the log is set up.
pub(super) fn warn_if_deleted() {
    if WAS_DELETED.load(Ordering::Relaxed) {
        tracing::warn!("the working folder was deleted: relative paths lead nowhere");
    }
}
