//! Moments and averages of the weights: reading them from a checkpoint, and sharing them with all processes.

use super::config::OPTIMIZER;
use super::engine::Engine;
use crate::TrainError;
use crate::optim::{Ema, Moments};
use crate::process_group::ProcessGroup;
use std::path::Path;
use tch::Tensor;
use tokengrid_model::Weights;
use tokengrid_model::ar::ArModel;
use tokengrid_model::checkpoints::EMA;

/// What a checkpoint holds beside the weights.
#[derive(Debug)]
pub(crate) struct Saved {
    pub moments: Moments,
    /// The averages, a tensor for each group, where there are any.
    pub averages: Option<Vec<Tensor>>,
}

impl Engine {
    /// Takes the parameters of the first process, and what it has read beside them, if it continues from a checkpoint.
    ///
    /// # Errors
    /// Another process is gone.
    pub(crate) fn follow_first(&mut self, read: Option<Saved>, processes: &dyn ProcessGroup) -> Result<(), TrainError> {
        let resumes = processes.any(read.is_some())?;
        if processes.world_size() > 1 {
            self.optimizer.parameters().try_for_each(|flat| processes.broadcast(flat))?;
        }
        if !resumes {
            if let Some(ema) = &mut self.ema {
                ema.set(&self.optimizer, self.optimizer.parameters());
            }
            return Ok(());
        }
        let (moments, averages) = read.map(|Saved { moments, averages }| (moments, averages)).unzip();
        let mut moments = moments.unwrap_or_else(|| self.optimizer.blank_moments());
        moments.follow_first(processes)?;
        self.optimizer.set_moments(&moments);
        if let Some(ema) = &mut self.ema {
            let averages = averages.flatten().unwrap_or_else(|| self.optimizer.blank_flats());
            averages.iter().try_for_each(|flat| processes.broadcast(flat))?;
            ema.set(&self.optimizer, &averages);
        }
        Ok(())
    }

    /// Reads what a checkpoint in `folder` holds beside the weights.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub(crate) fn read(&self, folder: &Path) -> Result<Saved, TrainError> {
        let moments = self.optimizer.read_moments(&folder.join(OPTIMIZER))?;
        let read_averages = |_: &Ema| {
            let saved = Weights::open(&folder.join(EMA))?;
            self.optimizer.read_flats(|name| saved.parameter(name))
        };
        Ok(Saved { moments, averages: self.ema.as_ref().map(read_averages).transpose()? })
    }

    /// The model with the averaged weights, where there are any.
    ///
    /// # Errors
    /// Another process is gone.
    pub(crate) fn averaged_model(&self, processes: &dyn ProcessGroup) -> Result<Option<ArModel>, TrainError> {
        let Some(ema) = &self.ema else { return Ok(None) };
        let params = ema.gather(&self.optimizer, self.runtime.device, processes)?;
        let mut model = ArModel::new(&self.config.model, &params, self.runtime.device, self.kind);
        model.compute_by(self.runtime.route);
        Ok(Some(model))
    }

    /// Whether weights, moments and averages of this process are finite. Waits for the device.
    pub(crate) fn is_finite(&self) -> bool {
        self.optimizer.is_finite() && self.ema.as_ref().is_none_or(Ema::is_finite)
    }
}
