//! A working folder that was deleted.
//!
//! MKL, which is part of libtorch, ends the process while it is loaded when it cannot ask for the folder's path. Loading comes
//! before `main`, so the process must be elsewhere earlier still: functions in `.preinit_array` run before those of any
//! library.

use std::sync::atomic::{AtomicBool, Ordering};

static WAS_DELETED: AtomicBool = AtomicBool::new(false);

#[used]
#[unsafe(link_section = ".preinit_array")]
static BEFORE_LIBRARIES: extern "C" fn() = leave_if_deleted;

/// Goes to a folder that holds numbers only and takes no files, so that a relative path finds nothing and leaves nothing.
extern "C" fn leave_if_deleted() {
    let mut path = [0u8; libc::PATH_MAX as usize];
    // SAFETY: the buffer has the length that is given. Both calls do little more than enter the kernel.
    let left = unsafe {
        libc::getcwd(path.as_mut_ptr().cast(), path.len()).is_null()
            && *libc::__errno_location() == libc::ENOENT
            && libc::chdir(c"/proc/self/task".as_ptr()) == 0
    };
    WAS_DELETED.store(left, Ordering::Relaxed);
}

/// Says so, where the log is ready for it.
pub(super) fn warn_if_deleted() {
    if WAS_DELETED.load(Ordering::Relaxed) {
        tracing::warn!("the working folder was deleted: relative paths lead nowhere");
    }
}
