//! The optimizer's moments, shared among the processes of a run (ZeRO, stage 1): each keeps those of its part of every buffer,
//! updates that part of the parameters, and takes the other parts from the others.

use super::AdamW;
use crate::TrainError;
use crate::processes::Processes;
use tch::{Device, Kind, Tensor};

/// Which part of each buffer is a process's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// The process, counted from 0.
    pub rank: usize,
    /// How many share the buffers.
    pub world_size: usize,
}

impl Shard {
    /// All of it.
    pub const WHOLE: Shard = Shard { rank: 0, world_size: 1 };

    /// Where the part of `rank` begins in a buffer of `len` numbers, and how long it is.
    pub(crate) fn of_rank(&self, rank: usize, len: i64) -> (i64, i64) {
        let bound = |rank: usize| (i128::from(len) * rank as i128 / self.world_size as i128) as i64;
        (bound(rank), bound(rank + 1) - bound(rank))
    }

    /// This process's part of a buffer.
    pub(super) fn own(&self, buffer: &Tensor) -> Tensor {
        let (first, len) = self.of_rank(self.rank, buffer.numel() as i64);
        buffer.narrow(0, first, len)
    }
}

/// Both moments of all parameters, whole, and the number of updates: what a checkpoint holds.
#[derive(Debug)]
pub struct Moments {
    /// `exp_avg` and `exp_avg_sq` of each group.
    pub(super) groups: Vec<[Tensor; 2]>,
    pub(super) step: i64,
}

impl AdamW {
    /// Takes the parameters that other processes have updated.
    ///
    /// # Errors
    /// Another process is gone.
    pub(crate) fn gather_parameters(&self, processes: &dyn Processes) -> Result<(), TrainError> {
        if self.shard.world_size == 1 {
            return Ok(());
        }
        for group in &self.groups {
            for rank in 0..self.shard.world_size {
                let (first, len) = self.shard.of_rank(rank, group.flat.numel() as i64);
                if len > 0 {
                    processes.broadcast_from(&group.flat.narrow(0, first, len), rank)?;
                }
            }
        }
        Ok(())
    }

    /// The moments, whole: where each process has a part, on the host, gathered from all of them.
    ///
    /// # Errors
    /// Another process is gone.
    pub fn moments(&self, processes: &dyn Processes) -> Result<Moments, TrainError> {
        let _no_grad = tch::no_grad_guard();
        if self.shard.world_size == 1 {
            let own = self.groups.iter().map(|group| [group.exp_avg.shallow_clone(), group.exp_avg_sq.shallow_clone()]);
            return Ok(Moments { groups: own.collect(), step: self.step });
        }
        let whole = self.blank_moments();
        for (group, whole) in self.groups.iter().zip(&whole.groups) {
            for (own, whole) in [&group.exp_avg, &group.exp_avg_sq].into_iter().zip(whole) {
                self.shard.own(whole).copy_(own);
                for rank in 0..self.shard.world_size {
                    let (first, len) = self.shard.of_rank(rank, whole.numel() as i64);
                    if len > 0 {
                        processes.broadcast_from(&whole.narrow(0, first, len), rank)?;
                    }
                }
            }
        }
        Ok(Moments { step: self.step, ..whole })
    }

    /// Goes on with these moments.
    pub(crate) fn set_moments(&mut self, moments: &Moments) {
        let _no_grad = tch::no_grad_guard();
        self.step = moments.step;
        let shard = self.shard;
        for (group, [exp_avg, exp_avg_sq]) in self.groups.iter_mut().zip(&moments.groups) {
            group.exp_avg.copy_(&shard.own(exp_avg));
            group.exp_avg_sq.copy_(&shard.own(exp_avg_sq));
        }
    }

    /// Moments of zero, whole, on the host.
    pub(crate) fn blank_moments(&self) -> Moments {
        let blank = |group: &super::Group| {
            let len = group.flat.numel() as i64;
            [(); 2].map(|()| Tensor::zeros([len], (Kind::Float, Device::Cpu)))
        };
        Moments { groups: self.groups.iter().map(blank).collect(), step: 0 }
    }
}

impl Moments {
    /// Takes those of the first process.
    ///
    /// # Errors
    /// Another process is gone.
    pub(crate) fn follow_first(&mut self, processes: &dyn Processes) -> Result<(), TrainError> {
        self.groups.iter().flatten().try_for_each(|moment| processes.broadcast(moment))?;
        let step = Tensor::from_slice(&[self.step]);
        processes.broadcast(&step)?;
        self.step = step.int64_value(&[0]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::AdamWConfig;
    use crate::processes::ThreadProcesses;
    use std::path::Path;
    use tokengrid_model::Params;

    fn params() -> Params {
        let numbers = |len: i64| (Tensor::arange(len, (Kind::Float, Device::Cpu)) - 5.0) / 7.0;
        [("a.weight".to_string(), numbers(35).view([5, 7])), ("b.weight".to_string(), numbers(3))].into_iter().collect()
    }

    fn optimizer(shard: Shard) -> (AdamW, Params) {
        let config = AdamWConfig { betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1, weight_decay_on_norms: false };
        AdamW::sharded(&params(), config, Device::Cpu, shard)
    }

    /// Three updates, then the parameters; the first process leaves a checkpoint of its moments in `file`.
    fn train(mut optimizer: AdamW, leaves: &Params, processes: &dyn Processes, file: &Path) -> Vec<f64> {
        for _ in 0..3 {
            let loss = leaves.iter().fold(Tensor::from(0f32), |sum, (_, leaf)| sum + leaf.square().sum(Kind::Float));
            let gradients = optimizer.backward(&loss).unwrap();
            optimizer.step(&gradients, 0.01);
            optimizer.gather_parameters(processes).unwrap();
        }
        let moments = optimizer.moments(processes).unwrap();
        if processes.is_first() {
            optimizer.save_moments(file, &moments).unwrap();
        }
        processes.barrier().unwrap();
        let flat: Vec<Tensor> = leaves.iter().map(|(_, leaf)| leaf.detach().reshape([-1])).collect();
        Vec::try_from(&Tensor::cat(&flat, 0).to_kind(Kind::Double)).unwrap()
    }

    #[test]
    fn shared_moments_give_the_same_bits_and_the_same_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let [whole, shared] = ["whole", "shared"].map(|name| folder.path().join(name));
        let (alone, leaves) = optimizer(Shard::WHOLE);
        let wanted = train(alone, &leaves, &crate::processes::OneProcess, &whole);
        // Four processes, and a group of three numbers: one has none of it.
        std::thread::scope(|scope| {
            for processes in ThreadProcesses::group(4) {
                let (shared, wanted) = (&shared, &wanted);
                scope.spawn(move || {
                    let (own, leaves) = optimizer(Shard { rank: processes.rank(), world_size: 4 });
                    assert_eq!(&train(own, &leaves, &processes, shared), wanted);
                });
            }
        });
        assert_eq!(std::fs::read(&whole).unwrap(), std::fs::read(&shared).unwrap());
        // And back: a part of what was saved.
        let (mut part, _) = optimizer(Shard { rank: 1, world_size: 2 });
        part.load(&shared).unwrap();
        assert_eq!(part.num_steps(), 3);
    }
}
