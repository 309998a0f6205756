//! The CUDA half of libtorch. It is not linked in: it is loaded when a CUDA device is asked for, so that the same program runs on
//! machines that have none of it.
//!
//! The order matters. Whoever first asks libtorch about CUDA, if only by seeding its generators, has it settle for good which
//! library answers; before this one is loaded, that is one which knows of no device. So everything that asks, here and in
//! [`graph`](crate::graph), is a method of [`Loaded`], which [`loaded`] alone makes, once for the process. `make edges` sees to it
//! that nothing else names `tch::Cuda`.

use std::ffi::{CStr, c_void};
use std::sync::OnceLock;

/// What only a process has in which libtorch's CUDA library is loaded and has a device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Loaded(());

/// Loads libtorch's CUDA library at the first call; why it cannot be used, where it cannot.
pub(crate) fn loaded() -> Result<Loaded, String> {
    static STATE: OnceLock<Result<Loaded, String>> = OnceLock::new();
    STATE.get_or_init(load).clone()
}

fn load() -> Result<Loaded, String> {
    if !has_driver() {
        return Err("no NVIDIA driver was found on this machine; use `--device cpu`".into());
    }
    // SAFETY: `dlopen` with a constant, NUL-terminated name. The library's initialisers register CUDA kernels with
    // the libtorch that is already loaded; it is never unloaded.
    let handle = unsafe { libc::dlopen(c"libtorch_cuda.so".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if handle.is_null() {
        return Err(format!("libtorch was set up without CUDA ({}); run `make setup` again", last_error()));
    }
    usable()
}

/// Whether the library that was loaded has a device, and libtorch knows of the library.
fn usable() -> Result<Loaded, String> {
    type Count = unsafe extern "C" fn() -> i8;
    // SAFETY: `c10::cuda::device_count()`, of a library that comes with libtorch's.
    let count: Count = unsafe { function(c"_ZN3c104cuda12device_countEv")? };
    // SAFETY: it takes nothing, and answers 0 where the driver fails.
    if unsafe { count() } <= 0 {
        return Err("the NVIDIA driver reports no usable device".into());
    }
    if !tch::Cuda::is_available() {
        return Err("libtorch was asked about CUDA before its CUDA library was loaded, and takes it for absent in this process; \
                    choose the device before anything is computed"
            .into());
    }
    Ok(Loaded(()))
}

fn last_error() -> String {
    // SAFETY: `dlerror` returns null or a NUL-terminated string that stays valid until the next dl* call here.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "unknown reason".into();
    }
    // SAFETY: not null, see above.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Whether there is an NVIDIA driver: its library, which is where WSL2 has it too, which has no `/dev/nvidiactl`.
pub(crate) fn has_driver() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    // SAFETY: `dlopen` with a constant name; the driver's library only prepares itself, and is never unloaded.
    *FOUND.get_or_init(|| !unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW) }.is_null())
}

/// A function of the libraries that are loaded.
///
/// # Safety
/// `F` is a pointer to functions, of the signature that the one with this name has.
unsafe fn function<F: Copy>(name: &CStr) -> Result<F, String> {
    // SAFETY: a look-up by name, which ends with a zero.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    if symbol.is_null() {
        return Err(format!(
            "this libtorch has no {}; it is of another version than the program",
            name.to_string_lossy()
        ));
    }
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    // SAFETY: the caller's promise; a pointer of the same size.
    Ok(unsafe { std::mem::transmute_copy(&symbol) })
}

impl Loaded {
    /// Devices that this process sees.
    pub(crate) fn num_devices(self) -> usize {
        tch::Cuda::device_count() as usize
    }

    /// Chooses TensorFloat-32 or real 32-bit products, by libtorch's own switches. Without this, cuDNN's convolutions would
    /// use TensorFloat-32 in what is called the exact mode.
    pub(crate) fn allow_tf32(self, allowed: bool) -> Result<(), String> {
        allow_tf32(allowed)
    }

    /// An event of the device with this number; `None` where CUDA's runtime has none to give.
    pub(crate) fn event(self, device: usize) -> Option<Event> {
        type SetDevice = unsafe extern "C" fn(i32) -> i32;
        type Create = unsafe extern "C" fn(*mut *mut c_void, u32) -> i32;
        const DISABLE_TIMING: u32 = 2;
        // SAFETY: functions of the CUDA runtime, which libtorch's CUDA library has loaded, with their signatures.
        unsafe {
            let set_device: SetDevice = function(c"cudaSetDevice").ok()?;
            let create: Create = function(c"cudaEventCreateWithFlags").ok()?;
            let mut event = std::ptr::null_mut();
            let is_made = set_device(device as i32) == 0 && create(&raw mut event, DISABLE_TIMING) == 0;
            is_made.then_some(Event(event))
        }
    }
}

/// libtorch's settings, `at::Context&`.
type Context = *mut c_void;

/// libtorch has no C interface to its switches: they are looked up by the names that its C++ functions have.
fn allow_tf32(allowed: bool) -> Result<(), String> {
    type Global = unsafe extern "C" fn() -> Context;
    type Set = unsafe extern "C" fn(Context, bool);
    // SAFETY: `at::globalContext()` of C++, which is called like this function of C.
    let context: Global = unsafe { function(c"_ZN2at13globalContextEv")? };
    for name in [c"_ZN2at7Context17setAllowTF32CuDNNEb", c"_ZN2at7Context18setAllowTF32CuBLASEb"] {
        // SAFETY: `at::Context::setAllowTF32...(bool)`, whose object is passed first.
        let set: Set = unsafe { function(name)? };
        // SAFETY: the one context of this process, which lives as long.
        unsafe { set(context(), allowed) };
    }
    Ok(())
}

/// A place in a device's work that one can wait for.
#[derive(Debug)]
pub(crate) struct Event(*mut c_void);

// SAFETY: CUDA's events may be used by any thread.
unsafe impl Send for Event {}

/// CUDA's calls, which answer 0 when all is well.
type Call = unsafe extern "C" fn(*mut c_void) -> i32;

impl Event {
    /// Stands behind all that the device was given until now.
    pub(crate) fn record(&self) {
        type Record = unsafe extern "C" fn(*mut c_void, *mut c_void) -> i32;
        // SAFETY: as in `Loaded::event`; the event is alive. The default stream is the one that libtorch works in.
        let status = unsafe {
            function::<Record>(c"cudaEventRecord").map(|record| record(self.0, std::ptr::null_mut())).unwrap_or(-1)
        };
        assert_eq!(status, 0, "cudaEventRecord");
    }

    /// Waits until the device is there.
    pub(crate) fn wait(&self) {
        // SAFETY: as in `Loaded::event`; the event is alive.
        let status = unsafe { function::<Call>(c"cudaEventSynchronize").map(|wait| wait(self.0)).unwrap_or(-1) };
        assert_eq!(status, 0, "cudaEventSynchronize");
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: as in `Loaded::event`; nobody else has the event.
        let _ = unsafe { function::<Call>(c"cudaEventDestroy").map(|destroy| destroy(self.0)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};
    use tokengrid_test_support::{alone, cuda_library};

    #[test]
    fn tensor_float_32_is_switched_in_libtorch_itself() {
        type IsAllowed = unsafe extern "C" fn(*mut c_void) -> bool;
        // SAFETY: `at::globalContext()` and `at::Context::allowTF32CuBLAS() const`.
        let (context, is_allowed): (unsafe extern "C" fn() -> *mut c_void, IsAllowed) = unsafe {
            (function(c"_ZN2at13globalContextEv").unwrap(), function(c"_ZNK2at7Context15allowTF32CuBLASEv").unwrap())
        };
        for wanted in [true, false] {
            allow_tf32(wanted).unwrap();
            // SAFETY: the one context of this process.
            assert_eq!(unsafe { is_allowed(context()) }, wanted);
        }
    }

    /// Computes as commands do before they choose a device, loads the CUDA library as for a machine with one GPU, and asks for it.
    #[track_caller]
    fn asked_after(before: impl FnOnce()) -> Option<Result<Loaded, String>> {
        before();
        cuda_library::load_with_a_device().then(usable)
    }

    #[test]
    fn libtorch_knows_of_the_library_that_is_loaded_first() {
        alone!();
        let read = || {
            drop(
                Tensor::zeros([2, 3], (Kind::Float, Device::Cpu))
                    .matmul(&Tensor::ones([3], (Kind::Float, Device::Cpu))),
            )
        };
        let Some(outcome) = asked_after(read) else { return };
        outcome.unwrap();
    }

    #[test]
    fn a_question_that_came_too_early_is_named() {
        alone!();
        // It seeds the generators of all devices, so it asks for them.
        let Some(outcome) = asked_after(|| tch::manual_seed(1)) else { return };
        let reason = outcome.unwrap_err();
        assert!(reason.contains("before its CUDA library was loaded"), "{reason}");
    }
}
