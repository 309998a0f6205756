//! Where and how to compute: device, precision, threads.

use crate::ModelError;
use std::str::FromStr;
use tch::{Cuda, Device, Kind};

/// Number format of activations and weights while encoding, training or sampling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// 32-bit floats everywhere: the exact mode.
    #[default]
    Fp32,
    /// 32-bit floats, matrix products in TensorFloat-32 where the GPU has it.
    Tf32,
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    Fp16,
}

impl Precision {
    /// The name on the command line and in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Fp32 => "fp32",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
            Precision::Fp16 => "fp16",
        }
    }

    /// Element type of activations.
    pub fn kind(self) -> Kind {
        match self {
            Precision::Fp32 | Precision::Tf32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
            Precision::Fp16 => Kind::Half,
        }
    }
}

impl FromStr for Precision {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        let all = [Precision::Fp32, Precision::Tf32, Precision::Bf16, Precision::Fp16];
        let expected = "`fp32`, `tf32`, `bf16` or `fp16`";
        let unknown = || ModelError::Setting { what: "precision", value: text.into(), expected };
        all.into_iter().find(|p| p.name() == text).ok_or_else(unknown)
    }
}

/// What differs between a GPU and the CPU. Chosen once, instead of asking for the device everywhere, so that tests can take the
/// GPU's route with tensors on the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// A call of a network takes a whole batch. Else every image is a separate call, so that its result depends on nothing
    /// else: libraries choose their algorithms by the size of a batch, and their roundings differ.
    pub whole_batches: bool,
    /// Our own kernels compute what is in fp32; training is in fp32. Else libtorch does, in the precision asked for.
    pub own_kernels: bool,
    /// Work is queued on the device without waiting for it in between: tokens are drawn on the device, results are fetched a
    /// batch late, the gradients' norm stays on the device.
    pub runs_ahead: bool,
}

impl Route {
    /// The route of the CPU.
    pub const HOST: Route = Route { whole_batches: false, own_kernels: true, runs_ahead: false };

    /// The route of a GPU.
    pub const DEVICE: Route = Route { whole_batches: true, own_kernels: false, runs_ahead: true };

    /// The route of a device.
    pub const fn of(device: Device) -> Route {
        match device {
            Device::Cpu => Route::HOST,
            _ => Route::DEVICE,
        }
    }

    /// The route of a device, or the one that the environment variable `TOKENGRID_ROUTE` names, `host` or `device`: for tests of
    /// whole programs.
    fn chosen(device: Device) -> Route {
        match std::env::var("TOKENGRID_ROUTE").as_deref() {
            Ok("host") => Route::HOST,
            Ok("device") => Route::DEVICE,
            _ => Route::of(device),
        }
    }
}

/// Device, precision and route, chosen once at the start of a command.
#[derive(Debug, Clone, Copy)]
pub struct Runtime {
    /// Where tensors live.
    pub device: Device,
    /// Number format of activations and weights.
    pub precision: Precision,
    /// What differs between devices.
    pub route: Route,
}

impl Runtime {
    /// fp32 on the CPU: the exact mode.
    pub const EXACT: Runtime = Runtime::new(Device::Cpu, Precision::Fp32);

    /// A runtime on a device that is known to exist, with the device's own route.
    pub const fn new(device: Device, precision: Precision) -> Runtime {
        Runtime { device, precision, route: Route::of(device) }
    }

    /// Chooses a device: `cpu`, `cuda`, `cuda:N`, or by itself (a CUDA device when there is one) for `None`.
    /// `threads` bounds libtorch's own CPU threads; `None` leaves its default, one per core.
    ///
    /// # Errors
    /// An unknown device name, or a CUDA device that is not there.
    pub fn choose(device: Option<&str>, precision: Precision, threads: Option<usize>) -> Result<Self, ModelError> {
        if let Some(threads) = threads {
            tch::set_num_threads(threads.max(1) as i32);
        }
        let device = match device {
            Some("cpu") => Device::Cpu,
            None => {
                match cuda::ready() {
                    Ok(()) => Device::Cuda(0),
                    Err(reason) => {
                        // Without a driver no GPU is expected: no warning.
                        if cuda::has_driver() {
                            tracing::warn!("computing on the CPU: {reason}");
                        }
                        Device::Cpu
                    }
                }
            }
            Some(name) => cuda_device(name)?,
        };
        if let Device::Cuda(_) = device {
            let refuse = |reason: String| ModelError::Device { device: "cuda".into(), reason };
            cuda::allow_tf32(precision == Precision::Tf32).map_err(refuse)?;
        }
        Ok(Runtime { device, precision, route: Route::chosen(device) })
    }
}

/// CUDA devices that this process sees; 0 where CUDA cannot be used. Loads libtorch's CUDA library.
pub fn num_gpus() -> usize {
    // libtorch itself knows of no device before that library is there.
    cuda::ready().map_or(0, |()| Cuda::device_count() as usize)
}

/// The number of the CUDA device that a name stands for, `cuda` or `cuda:N`, whether or not it is there.
///
/// # Errors
/// Another name.
pub fn cuda_index(name: &str) -> Result<usize, ModelError> {
    let index = match name.strip_prefix("cuda") {
        Some("") => Some(0),
        Some(rest) => rest.strip_prefix(':').and_then(|n| n.parse::<usize>().ok()),
        None => None,
    };
    let expected = "`cpu`, `cuda` or `cuda:N`";
    index.ok_or_else(|| ModelError::Setting { what: "device", value: name.into(), expected })
}

fn cuda_device(name: &str) -> Result<Device, ModelError> {
    let refuse = |reason: String| ModelError::Device { device: name.into(), reason };
    let index = cuda_index(name)?;
    cuda::ready().map_err(refuse)?;
    let count = Cuda::device_count() as usize;
    if index >= count {
        return Err(refuse(format!("this machine has {count} CUDA devices, numbered from 0")));
    }
    Ok(Device::Cuda(index))
}

/// The CUDA half of libtorch is not linked in: it is loaded when a CUDA device is asked for, so that the same program
/// runs on machines that have none of it.
pub(crate) mod cuda {
    use std::ffi::{CStr, c_void};
    use std::sync::OnceLock;

    /// Whether CUDA can be used, or why not. Loads libtorch's CUDA library at the first call.
    pub(super) fn ready() -> Result<(), String> {
        static STATE: OnceLock<Result<(), String>> = OnceLock::new();
        STATE.get_or_init(load).clone()
    }

    /// libtorch's settings, `at::Context&`.
    type Context = *mut c_void;

    /// Chooses TensorFloat-32 or real 32-bit products, by libtorch's own switches. Without this, cuDNN's convolutions would
    /// use TensorFloat-32 in what is called the exact mode.
    ///
    /// libtorch has no C interface to them: they are looked up by the names that its C++ functions have.
    pub(crate) fn allow_tf32(allowed: bool) -> Result<(), String> {
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

    /// A function of the libraries that are loaded.
    ///
    /// # Safety
    /// `F` is a pointer to functions, of the signature that the one with this name has.
    pub(super) unsafe fn function<F: Copy>(name: &CStr) -> Result<F, String> {
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

    /// Whether there is an NVIDIA driver: its library, which is where WSL2 has it too, which has no `/dev/nvidiactl`.
    pub(crate) fn has_driver() -> bool {
        static FOUND: OnceLock<bool> = OnceLock::new();
        // SAFETY: `dlopen` with a constant name; the driver's library only prepares itself, and is never unloaded.
        *FOUND.get_or_init(|| !unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW) }.is_null())
    }

    /// A CUDA event: a point in a device's work that the host can wait for.
    #[derive(Debug)]
    pub(crate) struct Event(*mut c_void);

    // SAFETY: CUDA's events may be used by any thread.
    unsafe impl Send for Event {}

    /// CUDA's calls, which answer 0 when all is well.
    type Call = unsafe extern "C" fn(*mut c_void) -> i32;

    impl Event {
        /// One of the device with this number; `None` where CUDA's runtime has none to give.
        pub(crate) fn new(device: usize) -> Option<Event> {
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

        /// Records the event behind all work that is queued so far.
        pub(crate) fn record(&self) {
            type Record = unsafe extern "C" fn(*mut c_void, *mut c_void) -> i32;
            // SAFETY: as in `new`; the event is alive. The default stream is the one that libtorch works in.
            let status = unsafe {
                function::<Record>(c"cudaEventRecord").map(|record| record(self.0, std::ptr::null_mut())).unwrap_or(-1)
            };
            assert_eq!(status, 0, "cudaEventRecord");
        }

        /// Waits until the device has reached the event.
        pub(crate) fn wait(&self) {
            // SAFETY: as in `new`; the event is alive.
            let status = unsafe { function::<Call>(c"cudaEventSynchronize").map(|wait| wait(self.0)).unwrap_or(-1) };
            assert_eq!(status, 0, "cudaEventSynchronize");
        }
    }

    impl Drop for Event {
        fn drop(&mut self) {
            // SAFETY: as in `new`; nothing else refers to the event.
            let _ = unsafe { function::<Call>(c"cudaEventDestroy").map(|destroy| destroy(self.0)) };
        }
    }

    fn load() -> Result<(), String> {
        if !has_driver() {
            return Err("no NVIDIA driver was found on this machine; use `--device cpu`".into());
        }
        // SAFETY: `dlopen` with a constant, NUL-terminated name. The library's initialisers register CUDA kernels with
        // the libtorch that is already loaded; it is never unloaded.
        let handle = unsafe { libc::dlopen(c"libtorch_cuda.so".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        if handle.is_null() {
            return Err(format!("libtorch was set up without CUDA ({}); run `make setup` again", last_error()));
        }
        if tch::Cuda::is_available() { Ok(()) } else { Err("the NVIDIA driver reports no usable device".into()) }
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_are_refused_with_the_accepted_ones() {
        let error = Runtime::choose(Some("gpu"), Precision::Fp32, None).unwrap_err().to_string();
        assert_eq!(error, "`gpu` is not a device; expected `cpu`, `cuda` or `cuda:N`");
        assert!("fp8".parse::<Precision>().unwrap_err().to_string().contains("bf16"));
    }

    #[test]
    fn a_cuda_device_that_is_not_there_is_an_error_with_the_reason() {
        if cuda::has_driver() {
            eprintln!("skipped: this machine has an NVIDIA driver");
            return;
        }
        let error = Runtime::choose(Some("cuda:3"), Precision::Fp32, None).unwrap_err().to_string();
        assert!(error.contains("cuda:3") && error.contains("--device cpu"), "{error}");
    }

    #[test]
    fn tensor_float_32_is_switched_in_libtorch_itself() {
        type IsAllowed = unsafe extern "C" fn(*mut std::ffi::c_void) -> bool;
        // SAFETY: `at::globalContext()` and `at::Context::allowTF32CuBLAS() const`.
        let (context, is_allowed): (unsafe extern "C" fn() -> *mut std::ffi::c_void, IsAllowed) = unsafe {
            (
                cuda::function(c"_ZN2at13globalContextEv").unwrap(),
                cuda::function(c"_ZNK2at7Context15allowTF32CuBLASEv").unwrap(),
            )
        };
        for wanted in [true, false] {
            cuda::allow_tf32(wanted).unwrap();
            // SAFETY: the one context of this process.
            assert_eq!(unsafe { is_allowed(context()) }, wanted);
        }
    }
}
