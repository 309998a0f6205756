//! NCCL: exchanges between GPUs, beside Gloo, which exchanges tensors in host memory.
//!
//! It is not linked. libtorch's CUDA library, which contains it, is loaded where a GPU is requested; `csrc/c10d.cpp` finds the
//! two functions that it needs there by their names. All exchanges have deadlines of ours: see `work`.

use super::ffi::{Failure, RawGroup, RawStore};
use super::work::Work;
use crate::TrainError;
use std::time::Duration;
use tch::{Device, Kind, Tensor};

/// The variable that chooses how tensors on GPUs are exchanged: `nccl`, or `gloo` to exchange them through host memory. The
/// command line refuses other values.
const BACKEND: &str = "TOKENGRID_BACKEND";

/// How a process exchanges the tensors of its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// They are in host memory.
    Host,
    /// From GPU to GPU.
    Nccl,
    /// From a GPU through host memory.
    Through,
}

impl Choice {
    const ALL: [Choice; 3] = [Choice::Host, Choice::Nccl, Choice::Through];

    /// For a device, as the environment chooses.
    pub(super) fn of(device: Device) -> Choice {
        Self::with(device, std::env::var(BACKEND).ok().as_deref())
    }

    fn with(device: Device, backend: Option<&str>) -> Choice {
        match (device, backend) {
            (Device::Cuda(_), Some("gloo")) => Choice::Through,
            (Device::Cuda(_), _) => Choice::Nccl,
            _ => Choice::Host,
        }
    }

    /// The choice as a number, for the exchange with the other processes.
    pub(super) fn code(self) -> i64 {
        self as i64
    }

    /// Checks that all processes, whose codes these are by rank, have chosen alike.
    ///
    /// # Errors
    /// The first rank that has not chosen as rank 0.
    pub(super) fn check(codes: &[i64]) -> Result<(), TrainError> {
        let unlike = codes.iter().enumerate().find(|(_, code)| **code != codes[0]);
        let Some((rank, code)) = unlike else { return Ok(()) };
        let name = |code: i64| Self::ALL.into_iter().find(|choice| choice.code() == code).map_or("?", Choice::name);
        let (there, here) = (name(*code), name(codes[0]));
        let what = format!(
            "rank {rank} was started differently: it computes {there}, and rank 0 {here}; give all processes the same --device and \
             {BACKEND}"
        );
        Err(TrainError::ProcessGroup { what })
    }

    fn name(self) -> &'static str {
        match self {
            Choice::Host => "on a CPU",
            Choice::Nccl => "on a GPU with NCCL",
            Choice::Through => "on a GPU with Gloo",
        }
    }
}

/// Connects the GPUs of all processes by an exchange of one number. It blocks until they are there: call it from a separate
/// thread.
///
/// # Errors
/// libtorch's message, and what to do.
pub(crate) fn first_exchange(
    store: &RawStore,
    prefix: &str,
    (rank, world_size): (usize, usize),
    device: Device,
    timeout: Duration,
) -> Result<RawGroup, String> {
    let exchange = || {
        let group = RawGroup::nccl(store, prefix, (rank, world_size), timeout)?;
        let one = Tensor::ones([1], (Kind::Float, device));
        if !group.sum(&one)?.wait(timeout)? {
            return Err(Failure(format!("no answer for {} s", timeout.as_secs_f64())));
        }
        match one.double_value(&[0]) {
            sum if sum == world_size as f64 => Ok(group),
            sum => Err(Failure(format!("{world_size} ones are {sum}"))),
        }
    };
    exchange().map_err(|Failure(text)| {
        format!(
            "rank {rank} cannot exchange from {device:?} with NCCL: {text}; each process needs a GPU of its own; {BACKEND}=gloo in \
             all processes goes through the memory of the host instead"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_exchange_with_nccl_unless_configured_otherwise() {
        let gpu = Device::Cuda(3);
        assert_eq!(Choice::with(gpu, None), Choice::Nccl);
        assert_eq!(Choice::with(gpu, Some("nccl")), Choice::Nccl);
        assert_eq!(Choice::with(gpu, Some("gloo")), Choice::Through);
        assert_eq!(Choice::with(Device::Cpu, Some("nccl")), Choice::Host);
    }

    #[test]
    fn a_process_that_chose_differently_is_named() {
        let codes = [Choice::Nccl, Choice::Nccl, Choice::Host].map(Choice::code);
        let message = Choice::check(&codes).unwrap_err().to_string();
        let wanted = "rank 2 was started differently: it computes on a CPU, and rank 0 on a GPU with NCCL";
        assert!(message.starts_with(wanted), "{message}");
        Choice::check(&[Choice::Host.code(); 2]).unwrap();
    }
}

#[cfg(test)]
#[path = "nccl_tests.rs"]
mod library;
