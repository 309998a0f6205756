//! Copies between host and device that nobody waits for until their values are needed.
//!
//! A copy from ordinary memory makes the host wait for all that the device was given before. From pinned memory it takes its
//! turn among the device's work instead; libtorch keeps the memory until then. Results come back the same way, with an event
//! behind them: who needs them waits for the event, and not for the work that the device was given after it.

use crate::{cuda, host_reads};
use tch::{Device, Tensor};

/// A copy of a host's tensor on `device`, of any shape and kind.
pub fn upload(tensor: &Tensor, device: Device) -> Tensor {
    match device {
        Device::Cpu => tensor.shallow_clone(),
        _ => tensor.pin_memory(device).to_device_(device, tensor.kind(), true, false),
    }
}

/// Tensors on their way to the host.
#[derive(Debug)]
pub struct Fetch {
    tensors: Vec<Tensor>,
    event: Option<cuda::Event>,
}

impl Fetch {
    /// Asks for `tensors`, all of one device.
    pub fn begin(tensors: &[&Tensor]) -> Fetch {
        host_reads::note(c"a fetch");
        let device = tensors.first().map_or(Device::Cpu, |tensor| tensor.device());
        let event = match device {
            Device::Cuda(index) => cuda::loaded().ok().and_then(|loaded| loaded.event(index)),
            _ => None,
        };
        // Without an event each copy is waited for at once.
        let is_late = event.is_some();
        let copy = |tensor: &&Tensor| tensor.contiguous().to_device_(Device::Cpu, tensor.kind(), is_late, false);
        let tensors = tensors.iter().map(copy).collect();
        event.iter().for_each(cuda::Event::record);
        Fetch { tensors, event }
    }

    /// Waits until all are there: row-major tensors of the host, in the order in which they were asked for.
    pub fn wait(self) -> Vec<Tensor> {
        self.event.iter().for_each(cuda::Event::wait);
        self.tensors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn what_is_sent_comes_back_in_its_order_and_layout() {
        let ascending = Tensor::arange(6, (Kind::Int, Device::Cpu)).view([2, 3]);
        let here = upload(&ascending, Device::Cpu);
        let back = Fetch::begin(&[&here.transpose(0, 1), &here]).wait();
        assert!(back[0].is_contiguous() && back[0].equal(&ascending.transpose(0, 1)));
        assert!(back[1].equal(&ascending));
        assert!(Fetch::begin(&[]).wait().is_empty());
    }
}
