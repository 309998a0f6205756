//! The interface between a trainer and the other processes of its run.
//!
//! A run of W processes divides each global batch: each process computes its share, gradients and losses are summed
//! before each update, so all processes hold the same weights at all times. One process writes the run's files. The
//! backend (Gloo, NCCL, threads in a test) is behind this one trait; a trainer does not know which it is.

use crate::TrainError;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use tch::{Device, Kind, Tensor};

/// One process among those of a run.
///
/// Every process makes the same calls in the same order, with tensors of the same shapes. Each can fail because another process
/// is gone.
pub trait ProcessGroup: Send {
    /// This process, counted from 0.
    fn rank(&self) -> usize;

    /// Number of processes.
    fn world_size(&self) -> usize;

    /// Names the device that this process computes on, before tensors of that device are exchanged. All processes do so at the
    /// same point.
    ///
    /// # Errors
    /// Others compute on another kind of device; the devices cannot be connected; another process is gone.
    fn use_device(&mut self, _device: Device) -> Result<(), TrainError> {
        Ok(())
    }

    /// Starts to replace a contiguous tensor by its sum over all processes. It must not be read or written before
    /// [`Pending::wait`] returns. The result is bit-identical in all processes.
    ///
    /// # Errors
    /// Another process is gone.
    fn start_sum(&self, tensor: &Tensor) -> Result<Pending<'_>, TrainError>;

    /// Whether [`ProcessGroup::start_sum_for`] costs less than [`ProcessGroup::start_sum`] for tensors of `device`.
    fn sums_for_one(&self, _device: Device) -> bool {
        false
    }

    /// As [`ProcessGroup::start_sum`], for the process `rank`; in the others, the tensor may hold anything afterwards.
    ///
    /// # Errors
    /// Another process is gone.
    fn start_sum_for(&self, tensor: &Tensor, _rank: usize) -> Result<Pending<'_>, TrainError> {
        self.start_sum(tensor)
    }

    /// The tensors of all processes, `[W, ..]`, in the order of the ranks.
    ///
    /// # Errors
    /// Another process is gone.
    fn all_gather(&self, tensor: &Tensor) -> Result<Tensor, TrainError>;

    /// Replaces a contiguous tensor by that of one rank.
    ///
    /// # Errors
    /// Another process is gone.
    fn broadcast_from(&self, tensor: &Tensor, rank: usize) -> Result<(), TrainError>;

    /// Replaces a contiguous tensor by that of rank 0.
    ///
    /// # Errors
    /// Another process is gone.
    fn broadcast(&self, tensor: &Tensor) -> Result<(), TrainError> {
        self.broadcast_from(tensor, 0)
    }

    /// Replaces a contiguous tensor by its sum over all processes.
    ///
    /// # Errors
    /// Another process is gone.
    fn sum(&self, tensor: &Tensor) -> Result<(), TrainError> {
        self.start_sum(tensor)?.wait()
    }

    /// Whether `says_so` is true in any process.
    ///
    /// # Errors
    /// Another process is gone.
    fn any(&self, says_so: bool) -> Result<bool, TrainError> {
        if self.world_size() == 1 {
            return Ok(says_so);
        }
        let count = Tensor::from_slice(&[f32::from(says_so)]);
        self.sum(&count)?;
        Ok(count.double_value(&[0]) > 0.0)
    }

    /// Returns once every process has called it.
    ///
    /// # Errors
    /// Another process is gone.
    fn barrier(&self) -> Result<(), TrainError> {
        self.any(false).map(drop)
    }

    /// The bytes that rank 0 passes.
    ///
    /// # Errors
    /// Another process is gone.
    fn broadcast_bytes(&self, bytes: &[u8]) -> Result<Vec<u8>, TrainError> {
        if self.world_size() == 1 {
            return Ok(bytes.to_vec());
        }
        let length = Tensor::from_slice(&[bytes.len() as i64]);
        self.broadcast(&length)?;
        let length = length.int64_value(&[0]);
        let buffer = match self.is_first() {
            true => Tensor::from_slice(bytes),
            false => Tensor::zeros([length], (Kind::Uint8, Device::Cpu)),
        };
        if length > 0 {
            self.broadcast(&buffer)?;
        }
        Ok(Vec::try_from(&buffer)?)
    }

    /// Records the steps that this process has done: the others report them, should it fail.
    fn note_steps(&self, _steps: u64) {}

    /// Ends a run, complete or stopped by all processes together: returns when all processes have called it. A process that
    /// ends without this call has failed, as the others see it.
    ///
    /// # Errors
    /// Another process is gone.
    fn finish(&self) -> Result<(), TrainError> {
        self.barrier()
    }

    /// Whether this process writes checkpoints and metrics.
    fn is_first(&self) -> bool {
        self.rank() == 0
    }
}

/// An exchange that was started.
#[must_use = "the tensor must not be read or written before `wait`"]
pub struct Pending<'a>(Box<dyn FnOnce() -> Result<(), TrainError> + 'a>);

impl<'a> Pending<'a> {
    /// An exchange that `wait` completes.
    pub fn new(wait: impl FnOnce() -> Result<(), TrainError> + 'a) -> Pending<'a> {
        Pending(Box::new(wait))
    }

    /// Waits until the exchange is complete.
    ///
    /// # Errors
    /// Another process is gone.
    pub fn wait(self) -> Result<(), TrainError> {
        (self.0)()
    }
}

/// A run of one process.
#[derive(Debug, Clone, Copy, Default)]
pub struct OneProcess;

impl ProcessGroup for OneProcess {
    fn rank(&self) -> usize {
        0
    }

    fn world_size(&self) -> usize {
        1
    }

    fn start_sum(&self, _tensor: &Tensor) -> Result<Pending<'_>, TrainError> {
        Ok(Pending::new(|| Ok(())))
    }

    fn all_gather(&self, tensor: &Tensor) -> Result<Tensor, TrainError> {
        Ok(tensor.unsqueeze(0))
    }

    fn broadcast_from(&self, _tensor: &Tensor, _rank: usize) -> Result<(), TrainError> {
        Ok(())
    }
}

/// Threads that act as processes and exchange through memory, for tests of runs of several processes. A member that is dropped
/// is gone: the others get [`TrainError::ProcessGone`] from their next exchange.
#[derive(Debug)]
pub struct ThreadProcessGroup {
    rank: usize,
    shared: Arc<Shared>,
    sums_for_one: bool,
}

#[derive(Debug)]
struct Shared {
    world_size: usize,
    meeting: Mutex<Meeting>,
    changed: Condvar,
    /// What each rank contributes to the current exchange.
    brought: Mutex<Vec<Tensor>>,
}

/// State of the barrier of all threads.
#[derive(Debug, Default)]
struct Meeting {
    /// Number of waiting threads.
    arrived: usize,
    /// Number of completed barriers.
    held: u64,
    /// The first thread that is gone.
    gone: Option<usize>,
}

impl ThreadProcessGroup {
    /// A group of `world_size` members, one for each thread.
    pub fn group(world_size: usize) -> Vec<ThreadProcessGroup> {
        let brought = Mutex::new((0..world_size).map(|_| Tensor::new()).collect());
        let (meeting, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { world_size, meeting, changed, brought });
        let member = |rank| ThreadProcessGroup { rank, shared: shared.clone(), sums_for_one: false };
        (0..world_size).map(member).collect()
    }

    /// As [`ThreadProcessGroup::group`], where a sum for one process leaves NaN in all others.
    pub fn group_with_sums_for_one(world_size: usize) -> Vec<ThreadProcessGroup> {
        let mut group = Self::group(world_size);
        group.iter_mut().for_each(|processes| processes.sums_for_one = true);
        group
    }

    fn meet(&self) -> Result<(), TrainError> {
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

    /// The result of `look` on the tensors that all threads contribute.
    fn exchange<T>(&self, tensor: &Tensor, look: impl FnOnce(&[Tensor]) -> T) -> Result<T, TrainError> {
        let _no_grad = tch::no_grad_guard();
        let brought = || self.shared.brought.lock().unwrap_or_else(PoisonError::into_inner);
        brought()[self.rank] = tensor.copy();
        self.meet()?;
        let found = look(&brought());
        // No thread may replace its tensor before all have read it.
        self.meet()?;
        Ok(found)
    }
}

impl Drop for ThreadProcessGroup {
    fn drop(&mut self) {
        let mut meeting = self.shared.meeting.lock().unwrap_or_else(PoisonError::into_inner);
        meeting.gone.get_or_insert(self.rank);
        self.shared.changed.notify_all();
    }
}

impl ProcessGroup for ThreadProcessGroup {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.shared.world_size
    }

    fn start_sum(&self, tensor: &Tensor) -> Result<Pending<'_>, TrainError> {
        // Summed in the order of the ranks by every thread: the same rounding everywhere.
        self.exchange(tensor, |brought| {
            let mut tensor = tensor.shallow_clone();
            tensor.copy_(&brought[0]);
            brought[1..].iter().for_each(|other| drop(tensor.g_add_(other)));
        })?;
        Ok(Pending::new(|| Ok(())))
    }

    fn all_gather(&self, tensor: &Tensor) -> Result<Tensor, TrainError> {
        self.exchange(tensor, |brought| Tensor::stack(brought, 0))
    }

    fn sums_for_one(&self, _device: Device) -> bool {
        self.sums_for_one
    }

    fn start_sum_for(&self, tensor: &Tensor, rank: usize) -> Result<Pending<'_>, TrainError> {
        let pending = self.start_sum(tensor)?;
        if self.sums_for_one && self.rank != rank {
            let _ = tch::no_grad(|| tensor.shallow_clone().fill_(f64::NAN));
        }
        Ok(pending)
    }

    fn broadcast_from(&self, tensor: &Tensor, rank: usize) -> Result<(), TrainError> {
        self.exchange(tensor, |brought| tensor.shallow_clone().copy_(&brought[rank]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_agree_on_the_sum_again_and_again() {
        let results: Vec<Vec<f64>> = std::thread::scope(|scope| {
            let threads = ThreadProcessGroup::group(3).into_iter().map(|processes| {
                scope.spawn(move || {
                    let exchange = |round: i64| {
                        let value = Tensor::from(processes.rank() as f64 + round as f64);
                        processes.sum(&value).unwrap();
                        value.double_value(&[])
                    };
                    (0..20).map(exchange).collect()
                })
            });
            let threads: Vec<_> = threads.collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let wanted: Vec<f64> = (0..20).map(|round| 3.0 * f64::from(round) + 3.0).collect();
        assert!(results.iter().all(|result| *result == wanted), "{results:?}");
    }

    #[test]
    fn a_wait_for_a_process_that_is_gone_fails() {
        let [first, second] = ThreadProcessGroup::group(2).try_into().unwrap();
        let waiting = std::thread::spawn(move || first.barrier());
        drop(second);
        assert!(matches!(waiting.join().unwrap(), Err(TrainError::ProcessGone { rank: 1 })));
    }
}
