//! Asynchronous copies between host and device.
//!
//! A copy from pageable memory makes the host wait for all work queued on the device. From pinned memory it is queued instead;
//! libtorch keeps the memory until it is done. Results come back the same way, followed by an event: the reader waits for the
//! event, and not for work that was queued after it.

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
    /// Starts to copy `tensors`, all of one device, to the host.
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

    /// Waits for all copies: row-major tensors on the host, in the order of [`Fetch::begin`].
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
