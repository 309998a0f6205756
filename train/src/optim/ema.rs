//! The moving average of parameters.

use super::{AdamW, all_finite};
use crate::TrainError;
use tch::Tensor;
use tokengrid_model::{ModelError, Params};

/// Exponential moving average of an optimizer's parameters.
#[derive(Debug)]
pub struct Ema {
    decay: f64,
    flats: Vec<Tensor>,
}

impl Ema {
    /// Starts at the current parameters.
    pub fn new(optimizer: &AdamW, decay: f64) -> Ema {
        let _no_grad = tch::no_grad_guard();
        Ema { decay, flats: optimizer.groups.iter().map(|group| group.flat.copy()).collect() }
    }

    /// `ema += (1 - decay) * (parameter - ema)`.
    pub fn update(&mut self, optimizer: &AdamW) {
        let _no_grad = tch::no_grad_guard();
        for (ema, group) in self.flats.iter_mut().zip(&optimizer.groups) {
            let _ = ema.lerp_(&group.flat, 1.0 - self.decay);
        }
    }

    /// The averages, flat, a tensor for each group.
    pub fn buffers(&self) -> impl Iterator<Item = &Tensor> {
        self.flats.iter()
    }

    /// Whether all averages are finite. Waits for the device.
    pub fn is_finite(&self) -> bool {
        self.flats.iter().all(all_finite)
    }

    /// The averaged parameters under their names; they share memory with the average.
    pub fn params(&self, optimizer: &AdamW) -> Params {
        let parts = optimizer.groups.iter().zip(&self.flats).flat_map(|(group, flat)| group.split(flat));
        parts.map(|(name, part)| (name.to_string(), part)).collect()
    }

    /// Continues from saved averages, which `saved` finds by the parameters' names.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(
        &mut self,
        optimizer: &AdamW,
        saved: impl Fn(&str) -> Result<Tensor, ModelError>,
    ) -> Result<(), TrainError> {
        let _no_grad = tch::no_grad_guard();
        for (group, flat) in optimizer.groups.iter().zip(&self.flats) {
            for (name, mut part) in group.split(flat) {
                part.f_copy_(&saved(name)?)?;
            }
        }
        Ok(())
    }
}
