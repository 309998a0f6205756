//! The other processes of a run, as far as a trainer needs to know them.
//!
//! A run of W processes takes each global batch apart: process r reads the samples of rank r, and gradients and losses are
//! averaged before each update, so all processes hold the same weights at all times. One process writes what the run
//! leaves. Whatever moves the numbers (NCCL under torchrun or SLURM, threads in a test) is behind this one trait; a
//! trainer does not know which it is.

use crate::TrainError;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use tch::Tensor;

/// One process among those of a run.
pub trait Processes: Send {
    /// This process, counted from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn world_size(&self) -> usize;

    /// Replaces each tensor by its mean over all processes. Every process calls it with tensors of the same shapes, in the
    /// same order; the result is the same to the bit in all of them.
    ///
    /// # Errors
    /// Another process is gone.
    fn mean(&self, tensors: &mut [&mut Tensor]) -> Result<(), TrainError>;

    /// Returns once every process has called it.
    ///
    /// # Errors
    /// Another process is gone.
    fn barrier(&self) -> Result<(), TrainError>;

    /// Whether this process writes checkpoints and metrics.
    fn is_first(&self) -> bool {
        self.rank() == 0
    }
}

/// A run of one process.
#[derive(Debug, Clone, Copy, Default)]
pub struct OneProcess;

impl Processes for OneProcess {
    fn rank(&self) -> usize {
        0
    }

    fn world_size(&self) -> usize {
        1
    }

    fn mean(&self, _tensors: &mut [&mut Tensor]) -> Result<(), TrainError> {
        Ok(())
    }

    fn barrier(&self) -> Result<(), TrainError> {
        Ok(())
    }
}

/// Threads that stand for processes and exchange through memory: what a run of several is tested with. A thread that is
/// dropped is gone, and the others are told as soon as they need it.
#[derive(Debug)]
pub struct ThreadProcesses {
    rank: usize,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    world_size: usize,
    meeting: Mutex<Meeting>,
    changed: Condvar,
    /// What each rank brought to the exchange at hand.
    brought: Mutex<Vec<Vec<Tensor>>>,
}

/// The barrier at which the threads meet.
#[derive(Debug, Default)]
struct Meeting {
    /// Threads that wait.
    arrived: usize,
    /// Meetings that took place.
    held: u64,
    /// The first thread that will never come again.
    gone: Option<usize>,
}

impl ThreadProcesses {
    /// One for each of `world_size` threads.
    pub fn group(world_size: usize) -> Vec<ThreadProcesses> {
        let brought = Mutex::new((0..world_size).map(|_| vec![]).collect());
        let (meeting, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { world_size, meeting, changed, brought });
        (0..world_size).map(|rank| ThreadProcesses { rank, shared: shared.clone() }).collect()
    }
}

impl Drop for ThreadProcesses {
    fn drop(&mut self) {
        let mut meeting = self.shared.meeting.lock().unwrap_or_else(PoisonError::into_inner);
        meeting.gone.get_or_insert(self.rank);
        self.shared.changed.notify_all();
    }
}

impl Processes for ThreadProcesses {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.shared.world_size
    }

    fn mean(&self, tensors: &mut [&mut Tensor]) -> Result<(), TrainError> {
        let _no_grad = tch::no_grad_guard();
        let brought = || self.shared.brought.lock().unwrap_or_else(PoisonError::into_inner);
        brought()[self.rank] = tensors.iter().map(|tensor| tensor.copy()).collect();
        self.barrier()?;
        {
            // Summed in the order of the ranks by every thread: the same rounding everywhere.
            let brought = brought();
            for (i, tensor) in tensors.iter_mut().enumerate() {
                tensor.copy_(&brought[0][i]);
                brought[1..].iter().for_each(|other| drop(tensor.g_add_(&other[i])));
                let _ = tensor.g_div_scalar_(self.shared.world_size as f64);
            }
        }
        // Nobody brings the next tensors before everybody has read these.
        self.barrier()
    }

    fn barrier(&self) -> Result<(), TrainError> {
        let Shared { world_size, meeting, changed, .. } = &*self.shared;
        let mut meeting = meeting.lock().unwrap_or_else(PoisonError::into_inner);
        let number = meeting.held;
        meeting.arrived += 1;
        if meeting.arrived == *world_size {
            (meeting.arrived, meeting.held) = (0, number + 1);
            changed.notify_all();
        }
        while meeting.held == number {
            if let Some(rank) = meeting.gone {
                return Err(TrainError::ProcessGone { rank });
            }
            meeting = changed.wait(meeting).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_agree_on_the_mean_again_and_again() {
        let results: Vec<Vec<f64>> = std::thread::scope(|scope| {
            let threads = ThreadProcesses::group(3).into_iter().map(|processes| {
                scope.spawn(move || {
                    let exchange = |round: i64| {
                        let mut value = Tensor::from(processes.rank() as f64 + round as f64);
                        processes.mean(&mut [&mut value]).unwrap();
                        value.double_value(&[])
                    };
                    (0..20).map(exchange).collect()
                })
            });
            let threads: Vec<_> = threads.collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let wanted: Vec<f64> = (0..20).map(|round| f64::from(round) + 1.0).collect();
        assert!(results.iter().all(|result| *result == wanted), "{results:?}");
    }

    #[test]
    fn who_waits_for_a_process_that_is_gone_is_told() {
        let [first, second] = ThreadProcesses::group(2).try_into().unwrap();
        let waiting = std::thread::spawn(move || first.barrier());
        drop(second);
        assert!(matches!(waiting.join().unwrap(), Err(TrainError::ProcessGone { rank: 1 })));
    }
}
