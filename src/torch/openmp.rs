//! Limits the active waiting of libtorch's OpenMP threads.
//!
//! In GNU's OpenMP library, which libtorch includes, an idle thread spins for 300,000 rounds, several milliseconds, before it
//! sleeps. If another process needs the same cores, the spinning threads take the time from the work: on a busy machine two
//! threads were ten times slower than one. Spinning for 0.05 ms bridges the gaps between matrix products nearly as well, and
//! costs little when another process waits for the core.
//!
//! The library reads its settings while it is loaded, before any code of this program runs, so the environment cannot be
//! changed in time (nor by `.preinit_array`: the C library takes its environment from the kernel after that). But it reads
//! them through `getenv`, and a program's own function of that name takes precedence over the C library's.

use std::ffi::{CStr, c_char};

unsafe extern "C" {
    fn secure_getenv(name: *const c_char) -> *mut c_char;
}

/// Default of `GOMP_SPINCOUNT`.
const SPINS: &CStr = c"1000";

/// As the C library's `getenv`, with the default above. Every library in the process calls this function.
///
/// # Safety
/// As for the C library's: `name` is NUL-terminated, and no thread changes the environment at the same time.
#[unsafe(no_mangle)]
unsafe extern "C" fn getenv(name: *const c_char) -> *mut c_char {
    // SAFETY: the caller's promise. `secure_getenv` is `getenv`, except that it returns null in programs with raised privileges.
    let value = unsafe { secure_getenv(name) };
    if !value.is_null() {
        return value;
    }
    // SAFETY: the caller's promise: `name` is NUL-terminated.
    let is_spins = unsafe { CStr::from_ptr(name) } == c"GOMP_SPINCOUNT";
    // SAFETY: as above. An explicit wait policy takes precedence.
    if is_spins && unsafe { secure_getenv(c"OMP_WAIT_POLICY".as_ptr()) }.is_null() {
        return SPINS.as_ptr().cast_mut();
    }
    value
}
