//! A learner among several processes: gradients and losses are averaged, and all of them start from the first one's state.
//!
//! As with the reference's DDP, only gradients are shared. Batch statistics of the discriminator's norms, LeCAM's averages and
//! the entropy over the codebook are those of each process's batch; a checkpoint holds those of the first process.

use super::adversarial::LeCam;
use super::learner::{Learner, Losses};
use crate::TrainError;
use crate::loss_scale::LossScale;
use crate::optim::Gradients;
use crate::process_group::{Pending, ProcessGroup};
use tch::Tensor;

/// Values of a part of the gradients that is exchanged at once: 25 MiB.
const PART: i64 = 25 * (1 << 20) / 4;

/// Replaces gradients by their mean over all processes.
///
/// # Errors
/// Another process is gone.
pub(super) fn average(gradients: &mut Gradients, processes: &dyn ProcessGroup) -> Result<(), TrainError> {
    if processes.world_size() == 1 {
        return Ok(());
    }
    let parts: Vec<Tensor> = gradients.flats().iter().flat_map(|flat| flat.split(PART, 0)).collect();
    let pending = parts.iter().map(|part| processes.start_sum(part));
    let pending: Vec<Pending> = pending.collect::<Result<_, TrainError>>()?;
    pending.into_iter().try_for_each(Pending::wait)?;
    gradients.scale(1.0 / processes.world_size() as f64);
    Ok(())
}

impl Losses {
    /// Names and values, averaged over all processes: a loss that is not finite in one is so in all.
    ///
    /// # Errors
    /// Another process is gone.
    pub(crate) fn shared_values(&self, processes: &dyn ProcessGroup) -> Result<Vec<(&'static str, f64)>, TrainError> {
        let own = self.values();
        if processes.world_size() == 1 {
            return Ok(own);
        }
        let sums = Tensor::from_slice(&own.iter().map(|(_, value)| *value).collect::<Vec<f64>>());
        processes.sum(&sums)?;
        let mean = |i: usize| sums.double_value(&[i as i64]) / processes.world_size() as f64;
        Ok(own.iter().enumerate().map(|(i, (name, _))| (*name, mean(i))).collect())
    }
}

impl Learner {
    /// Replaces everything that a checkpoint holds by the first process's.
    ///
    /// # Errors
    /// Another process is gone.
    pub(crate) fn follow_first(&mut self, processes: &dyn ProcessGroup) -> Result<(), TrainError> {
        if processes.world_size() == 1 {
            return Ok(());
        }
        let nets = std::iter::once(&self.generator).chain(self.adversary.iter().map(|adversary| &adversary.trained));
        for trained in nets {
            trained
                .optimizer
                .buffers()
                .chain(trained.ema.buffers())
                .try_for_each(|buffer| processes.broadcast(buffer))?;
        }
        if let Some(adversary) = &self.adversary {
            let LeCam { real, fake } = &adversary.lecam;
            let running = adversary.running.iter().map(|(_, tensor)| tensor);
            running.chain([real, fake]).try_for_each(|tensor| processes.broadcast(tensor))?;
        }
        self.follow_numbers(processes)
    }

    fn follow_numbers(&mut self, processes: &dyn ProcessGroup) -> Result<(), TrainError> {
        let adversary = self.adversary.as_ref();
        let counts = Tensor::from_slice(&[
            self.batches as i64,
            self.steps_per_batch as i64,
            self.generator.optimizer.num_steps(),
            adversary.map_or(0, |adversary| adversary.trained.optimizer.num_steps()),
            adversary.map_or(0, |adversary| adversary.forwards),
        ]);
        processes.broadcast(&counts)?;
        let [batches, steps_per_batch, generator, discriminator, forwards] =
            [0, 1, 2, 3, 4].map(|i| counts.int64_value(&[i]));
        (self.batches, self.steps_per_batch) = (batches as u64, steps_per_batch as u64);
        self.generator.optimizer.set_num_steps(generator);
        if let Some(adversary) = &mut self.adversary {
            adversary.trained.optimizer.set_num_steps(discriminator);
            adversary.forwards = forwards;
        }
        let scale = serde_json::to_vec(&self.scale).expect("numbers are JSON");
        let scale: LossScale = serde_json::from_slice(&processes.broadcast_bytes(&scale)?).expect("as just written");
        self.scale = scale;
        Ok(())
    }
}
