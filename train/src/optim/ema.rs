//! The moving average of parameters.
//!
//! Where the optimizer keeps a part of its moments, see [`Shard`](super::Shard), the average is that of the same part of the
//! parameters.

use super::{AdamW, DeviceAverages, all_finite, update};
use crate::TrainError;
use crate::process_group::ProcessGroup;
use tch::{Device, Tensor};
use tokengrid_model::{ModelError, Params};

/// Exponential moving average of an optimizer's parameters, in fp32.
#[derive(Debug)]
pub struct Ema {
    pub(super) decay: f64,
    /// This process's part of each group.
    pub(super) flats: Vec<Tensor>,
}

impl Ema {
    /// An average that starts at the current parameters; `decay` per update, 0 to 1.
    pub fn new(optimizer: &AdamW, decay: f64) -> Ema {
        let _no_grad = tch::no_grad_guard();
        let own = |flat: &Tensor| optimizer.shard.own(flat).copy();
        Ema { decay, flats: optimizer.parameters().map(own).collect() }
    }

    /// `ema += (1 - decay) * (parameter - ema)`.
    pub fn update(&mut self, optimizer: &AdamW) {
        if !optimizer.has_own_kernels {
            return DeviceAverages::new(self, optimizer).apply();
        }
        let _no_grad = tch::no_grad_guard();
        let rest = 1.0 - self.decay;
        for (average, flat) in self.flats.iter_mut().zip(optimizer.parameters()) {
            let own = optimizer.shard.own(flat);
            // SAFETY: the average is a tensor of its own, and nobody computes with the parameters while they are borrowed
            // from their optimizer.
            unsafe { update::average(rest as f32, &own, average) };
        }
    }

    /// This process's averages, a flat tensor `[elements]` for each group.
    pub fn buffers(&self) -> impl Iterator<Item = &Tensor> {
        self.flats.iter()
    }

    /// Whether this process's averages are finite. Waits for the device.
    pub fn is_finite(&self) -> bool {
        self.flats.iter().all(all_finite)
    }

    /// The averaged parameters under their names; they share memory with the average.
    ///
    /// # Panics
    /// When the averages are shared among processes: use `Ema::gather`.
    pub fn params(&self, optimizer: &AdamW) -> Params {
        assert_eq!(optimizer.shard.world_size, 1, "the averages are whole");
        named(optimizer, &self.flats)
    }

    /// The averaged parameters under their names, gathered on `device` from all processes that have a part; where they are whole,
    /// [`Ema::params`].
    ///
    /// # Errors
    /// Another process is gone.
    pub(crate) fn gather(
        &self,
        optimizer: &AdamW,
        device: Device,
        processes: &dyn ProcessGroup,
    ) -> Result<Params, TrainError> {
        let groups = self.flats.iter().zip(optimizer.parameters());
        let whole = groups.map(|(own, flat)| optimizer.shard.gather(own, flat.numel(), device, processes));
        Ok(named(optimizer, &whole.collect::<Result<Vec<Tensor>, TrainError>>()?))
    }

    /// Continues from averages of whole groups.
    pub(crate) fn set<'a>(&mut self, optimizer: &AdamW, whole: impl IntoIterator<Item = &'a Tensor>) {
        let _no_grad = tch::no_grad_guard();
        for (average, whole) in self.flats.iter_mut().zip(whole) {
            average.copy_(&optimizer.shard.own(whole));
        }
    }

    /// Continues from saved averages, which `saved` finds by the parameters' names.
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn load(
        &mut self,
        optimizer: &AdamW,
        saved: impl Fn(&str) -> Result<Tensor, ModelError>,
    ) -> Result<(), TrainError> {
        let whole = optimizer.read_flats(saved)?;
        self.set(optimizer, &whole);
        Ok(())
    }
}

/// Whole flat buffers as tensors under the parameters' names.
fn named(optimizer: &AdamW, flats: &[Tensor]) -> Params {
    let parts = optimizer.groups.iter().zip(flats).flat_map(|(group, flat)| group.split(flat));
    parts.map(|(name, part)| (name.to_string(), part)).collect()
}
