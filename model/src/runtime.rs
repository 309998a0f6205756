//! Where and how to compute: device, precision, threads.

use crate::{ModelError, cuda};
use std::str::FromStr;
use tch::{Device, Kind};

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
    /// The loss of the autoregressive model never has the logits of all positions, see [`crate::ar::CHUNK_LOGITS`]. Else they are a
    /// tensor.
    pub chunked_loss: bool,
    /// The device is given work ahead and nobody waits for it in between: tokens are drawn where the logits are, results are
    /// fetched a batch late, the gradients' norm stays there.
    pub runs_ahead: bool,
    /// A training step and a sampled token are captured as graphs, see [`crate::graph`].
    pub graphs: bool,
}

impl Route {
    /// The CPU's.
    pub const HOST: Route =
        Route { whole_batches: false, own_kernels: true, chunked_loss: false, runs_ahead: false, graphs: false };

    /// A GPU's. Graphs are for who asks for them: no GPU has run one yet.
    pub const DEVICE: Route =
        Route { whole_batches: true, own_kernels: false, chunked_loss: true, runs_ahead: true, graphs: false };

    /// The route of a device.
    pub const fn of(device: Device) -> Route {
        match device {
            Device::Cpu => Route::HOST,
            _ => Route::DEVICE,
        }
    }

    /// The route of a device, or the one that the environment variable `TOKENGRID_ROUTE` names, `host` or `device`: for tests of
    /// whole programs. The command line refuses other values.
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

    /// The same with graphs, where they are wanted and the route knows of them; where it does not, a warning says so.
    pub fn with_graphs(mut self, wanted: bool) -> Runtime {
        if wanted && !self.route.runs_ahead {
            tracing::warn!("graphs are captured on a GPU; on this device there is nothing to capture");
        }
        self.route.graphs = wanted && self.route.runs_ahead;
        self
    }

    /// Chooses a device: `cpu`, `cuda`, `cuda:N`, or by itself (a CUDA device when there is one) for `None`.
    /// `threads` bounds libtorch's own CPU threads; `None` leaves its default, one a core. To be called before anything is
    /// computed: see `cuda.rs`.
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
                match cuda::loaded() {
                    Ok(_) => Device::Cuda(0),
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
            let allowed = precision == Precision::Tf32;
            cuda::loaded().and_then(|loaded| loaded.allow_tf32(allowed)).map_err(refuse)?;
        }
        Ok(Runtime { device, precision, route: Route::chosen(device) })
    }
}

/// CUDA devices that this process sees; 0 where CUDA cannot be used. Loads libtorch's CUDA library.
pub fn num_gpus() -> usize {
    cuda::loaded().map_or(0, |loaded| loaded.num_devices())
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
    let count = cuda::loaded().map_err(refuse)?.num_devices();
    if index >= count {
        return Err(refuse(format!("this machine has {count} CUDA devices, numbered from 0")));
    }
    Ok(Device::Cuda(index))
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
}
