//! The optimizer's moments, shared among the processes of a run (ZeRO stage 1, Rajbhandari et al., arXiv 1910.02054): each keeps
//! those of its part of every buffer, updates that part of the parameters, and takes the other parts from the others. The moving
//! average of the parameters is shared in the same way.

use super::AdamW;
use crate::TrainError;
use crate::process_group::ProcessGroup;
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
    /// The whole buffer.
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

    /// Fills the other parts of a whole buffer from the processes that have them.
    ///
    /// # Errors
    /// Another process is gone.
    fn exchange(&self, whole: &Tensor, processes: &dyn ProcessGroup) -> Result<(), TrainError> {
        for rank in 0..self.world_size {
            let (first, len) = self.of_rank(rank, whole.numel() as i64);
            if len > 0 {
                processes.broadcast_from(&whole.narrow(0, first, len), rank)?;
            }
        }
        Ok(())
    }

    /// A whole buffer of `len` numbers on `device`, given this process's part of it; what is whole is not copied.
    ///
    /// # Errors
    /// Another process is gone.
    pub(super) fn gather(
        &self,
        own: &Tensor,
        len: usize,
        device: Device,
        processes: &dyn ProcessGroup,
    ) -> Result<Tensor, TrainError> {
        if self.world_size == 1 {
            return Ok(own.shallow_clone());
        }
        let _no_grad = tch::no_grad_guard();
        let whole = Tensor::zeros([len as i64], (Kind::Float, device));
        self.own(&whole).copy_(own);
        self.exchange(&whole, processes)?;
        Ok(whole)
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
    /// Fetches the parameters that other processes have updated.
    ///
    /// # Errors
    /// Another process is gone.
    pub(crate) fn gather_parameters(&self, processes: &dyn ProcessGroup) -> Result<(), TrainError> {
        if self.shard.world_size == 1 {
            return Ok(());
        }
        self.groups.iter().try_for_each(|group| self.shard.exchange(&group.flat, processes))
    }

    /// The whole moments; where each process has a part, gathered from all of them on the host.
    ///
    /// # Errors
    /// Another process is gone.
    pub fn moments(&self, processes: &dyn ProcessGroup) -> Result<Moments, TrainError> {
        let gather = |group: &super::Group| {
            let whole = |own: &Tensor| self.shard.gather(own, group.flat.numel(), Device::Cpu, processes);
            Ok([whole(&group.exp_avg)?, whole(&group.exp_avg_sq)?])
        };
        let groups = self.groups.iter().map(gather).collect::<Result<_, TrainError>>()?;
        Ok(Moments { groups, step: self.step })
    }

    /// Continues with these moments.
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
        let pairs = self.blank_flats().into_iter().zip(self.blank_flats());
        Moments { groups: pairs.map(|(exp_avg, exp_avg_sq)| [exp_avg, exp_avg_sq]).collect(), step: 0 }
    }
}

impl Moments {
    /// Replaces the moments by those of the first process.
    ///
    /// # Errors
    /// Another process is gone.
    pub(crate) fn follow_first(&mut self, processes: &dyn ProcessGroup) -> Result<(), TrainError> {
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
    use crate::optim::{AdamWConfig, Ema};
    use crate::process_group::ThreadProcessGroup;
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

    /// Three updates, then the parameters and their averages; the first process writes a checkpoint of its moments to `file`.
    fn train(mut optimizer: AdamW, leaves: &Params, processes: &dyn ProcessGroup, file: &Path) -> Vec<f64> {
        let mut ema = Ema::new(&optimizer, 0.9);
        for _ in 0..3 {
            let loss = leaves.iter().fold(Tensor::from(0f32), |sum, (_, leaf)| sum + leaf.square().sum(Kind::Float));
            let gradients = optimizer.backward(&loss).unwrap();
            optimizer.step(&gradients, 0.01);
            ema.update(&optimizer);
            optimizer.gather_parameters(processes).unwrap();
        }
        let moments = optimizer.moments(processes).unwrap();
        if processes.is_first() {
            optimizer.save_moments(file, &moments).unwrap();
        }
        processes.barrier().unwrap();
        let averages = ema.gather(&optimizer, Device::Cpu, processes).unwrap();
        let both = leaves.iter().chain(averages.iter());
        let flat: Vec<Tensor> = both.map(|(_, tensor)| tensor.detach().reshape([-1])).collect();
        Vec::try_from(&Tensor::cat(&flat, 0).to_kind(Kind::Double)).unwrap()
    }

    #[test]
    fn shared_moments_give_the_same_bits_and_the_same_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let [whole, shared] = ["whole", "shared"].map(|name| folder.path().join(name));
        let (alone, leaves) = optimizer(Shard::WHOLE);
        let wanted = train(alone, &leaves, &crate::process_group::OneProcess, &whole);
        // Four processes, and a group of three numbers: one process owns none of it.
        std::thread::scope(|scope| {
            for processes in ThreadProcessGroup::group(4) {
                let (shared, wanted) = (&shared, &wanted);
                scope.spawn(move || {
                    let (own, leaves) = optimizer(Shard { rank: processes.rank(), world_size: 4 });
                    assert_eq!(&train(own, &leaves, &processes, shared), wanted);
                });
            }
        });
        assert_eq!(std::fs::read(&whole).unwrap(), std::fs::read(&shared).unwrap());
        // And back: a part of the saved moments.
        let (mut part, _) = optimizer(Shard { rank: 1, world_size: 2 });
        part.load(&shared).unwrap();
        assert_eq!(part.num_steps(), 3);
    }
}
