//! The end of a step: clipping, the optimizer's update, that of the averages.
//!
//! In a single process on a GPU all of it is one [`Region`], in which nobody waits for the device. In fp16 the norm of the
//! gradients is read in between, and several processes exchange in between: there the parts follow one another.

use super::Engine;
use crate::TrainError;
use crate::optim::{DeviceAverages, DeviceUpdate, Gradients, clip_factor};
use crate::process_group::ProcessGroup;
use tch::{Kind, Tensor};
use tokengrid_model::graph::{Captured, Region};

/// The end of a step over the engine's buffers.
#[derive(Debug)]
pub(super) struct UpdateRegion {
    gradients: Gradients,
    /// `train.grad_clip`.
    limit: f64,
    update: DeviceUpdate,
    averages: Option<DeviceAverages>,
    /// The gradients' norm before clipping, f64 `[]`.
    norm: Tensor,
}

impl Region for UpdateRegion {
    type Error = TrainError;
    const NAME: &'static str = "the optimizer's update";

    fn run(&self) -> Result<(), TrainError> {
        let _no_grad = tch::no_grad_guard();
        let norm = self.gradients.shallow_clone().clip_async(self.limit);
        self.norm.shallow_clone().copy_(&norm);
        self.update.apply();
        if let Some(averages) = &self.averages {
            averages.apply();
        }
        Ok(())
    }
}

impl Engine {
    /// Clips the gradients and steps, unless one of them overflowed in fp16, and moves the averages; the gradients' norm before
    /// clipping, `[]`.
    pub(super) fn update(&mut self, lr: f64, processes: &dyn ProcessGroup) -> Result<Tensor, TrainError> {
        let is_one_region = self.runtime.route.runs_ahead && processes.world_size() == 1 && !self.scale.dynamic;
        if is_one_region {
            return self.update_at_once(lr);
        }
        let norm = self.update_in_parts(lr, processes)?;
        if let Some(ema) = &mut self.ema {
            ema.update(&self.optimizer);
        }
        Ok(norm)
    }

    fn update_at_once(&mut self, lr: f64) -> Result<Tensor, TrainError> {
        self.optimizer.begin_step(lr);
        let region = || UpdateRegion {
            gradients: self.gradients.shallow_clone(),
            limit: self.config.train.grad_clip,
            update: DeviceUpdate::new(&self.optimizer, &self.gradients),
            averages: self.ema.as_ref().map(|ema| DeviceAverages::new(ema, &self.optimizer)),
            norm: Tensor::zeros([], (Kind::Double, self.runtime.device)),
        };
        let update = self.update.get_or_insert_with(|| Captured::new(region(), &self.runtime));
        update.run()?;
        Ok(update.region().norm.shallow_clone())
    }

    fn update_in_parts(&mut self, lr: f64, processes: &dyn ProcessGroup) -> Result<Tensor, TrainError> {
        if self.scale.dynamic {
            self.gradients.scale(1.0 / self.scale.factor);
        }
        let limit = self.config.train.grad_clip;
        let has_own_only = !self.config.train.deterministic_reduce && self.buckets.sums_for_owners(processes);
        let (norm, clip) = if has_own_only {
            (self.gradients.clip_shared(limit, self.optimizer.shard(), processes)?, 1.0)
        } else if self.runtime.route.runs_ahead {
            (self.gradients.clip_async(limit), 1.0)
        } else {
            // The update scales them as it reads them.
            let norm = self.gradients.norm();
            (Tensor::from(norm), clip_factor(norm, limit))
        };
        if self.scale.dynamic {
            let finite = norm.double_value(&[]).is_finite();
            self.scale.update(finite);
            if !finite {
                return Ok(norm);
            }
        }
        self.optimizer.step_scaled(&self.gradients, lr, clip);
        Ok(norm)
    }
}
