//! How long libtorch's OpenMP threads wait actively.
//!
//! GNU's OpenMP library, which libtorch brings along, lets a thread that has nothing to do spin for 300,000 rounds before it
//! sleeps, several milliseconds. While another process wants the same cores, these threads take the time that the work
//! needs: on a busy machine two threads were ten times slower than one. Spinning for a twentieth of a millisecond bridges the
//! gaps between products nearly as well, and costs little when somebody else waits for the core.
//!
//! The library reads its settings when it is loaded, which is before anything of this program runs, so the environment
//! cannot be changed in time (not by `.preinit_array` either: the C library takes its environment from the kernel after
//! that). It does read them through `getenv`, and a program's own function of that name comes before the C library's.

use std::ffi::{CStr, c_char};

unsafe extern "C" {
    fn secure_getenv(name: *const c_char) -> *mut c_char;
}

/// What `GOMP_SPINCOUNT` is where the user says nothing.
const SPINS: &CStr = c"1000";

/// The C library's `getenv`, apart from the default above. Every library in the process calls this one.
///
/// # Safety
/// As the C library's: `name` ends with a zero, and nobody changes the environment at the same time.
#[unsafe(no_mangle)]
unsafe extern "C" fn getenv(name: *const c_char) -> *mut c_char {
    // SAFETY: the caller's promise. The function is `getenv`, save in programs with raised privileges, which see nothing.
    let value = unsafe { secure_getenv(name) };
    if !value.is_null() {
        return value;
    }
    // SAFETY: the caller's promise: a text that ends with a zero.
    let is_spins = unsafe { CStr::from_ptr(name) } == c"GOMP_SPINCOUNT";
    // SAFETY: as above. Whoever chose a way of waiting gets it.
    if is_spins && unsafe { secure_getenv(c"OMP_WAIT_POLICY".as_ptr()) }.is_null() {
        return SPINS.as_ptr().cast_mut();
    }
    value
}
