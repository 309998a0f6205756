//! How the samples of a step are shared among the processes of a run.
//!
//! The stream of samples is that of the whole run: step s takes the `global_batch` samples that follow those of step s - 1, for
//! any number of processes. They are cut into blocks, the last of which may be smaller, and assigned in turn: block i goes to
//! process i mod W. A block is computed as one micro-batch.

use std::fmt;
use std::ops::Range;

/// Least number of blocks per step where their size must not depend on the number of processes.
const FIXED_BLOCKS: usize = 8;

/// A part of a step's samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MicroBatch {
    /// Its number in the step.
    pub index: usize,
    /// Indices of its samples within the step.
    pub samples: Range<usize>,
}

/// How a step's samples are cut into micro-batches and dealt out to the processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sharing {
    global_batch: usize,
    block: usize,
    world_size: usize,
}

impl Sharing {
    /// Shares that are as equal as possible, in as few blocks of at most `batch_size` samples as possible.
    pub fn even(global_batch: usize, batch_size: usize, world_size: usize) -> Sharing {
        let rounds = global_batch.div_ceil(world_size * batch_size);
        Sharing { global_batch, block: global_batch.div_ceil(world_size * rounds), world_size }
    }

    /// Blocks that are the same for any number of processes.
    pub fn fixed(global_batch: usize, batch_size: usize, world_size: usize) -> Sharing {
        let block = (global_batch / FIXED_BLOCKS).clamp(1, batch_size);
        Sharing { global_batch, block, world_size }
    }

    /// Samples per step, of all processes together.
    pub fn global_batch(&self) -> usize {
        self.global_batch
    }

    /// Rounds in which the blocks are dealt out.
    pub(crate) fn num_rounds(&self) -> usize {
        self.num_blocks().div_ceil(self.world_size)
    }

    /// Processes that have a block in a round: ranks from 0.
    pub(crate) fn num_dealt(&self, round: usize) -> usize {
        (self.num_blocks() - round * self.world_size).min(self.world_size)
    }

    /// The blocks of a process, round by round.
    pub(crate) fn of_rank(&self, rank: usize) -> Vec<MicroBatch> {
        (rank..self.num_blocks()).step_by(self.world_size).map(|index| self.at(index)).collect()
    }

    fn num_blocks(&self) -> usize {
        self.global_batch.div_ceil(self.block)
    }

    fn at(&self, index: usize) -> MicroBatch {
        let first = index * self.block;
        MicroBatch { index, samples: first..(first + self.block).min(self.global_batch) }
    }
}

/// For messages: the samples per step, and how they are shared.
impl fmt::Display for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Sharing { global_batch, block, world_size } = *self;
        let (blocks, rounds) = (self.num_blocks(), self.num_rounds());
        if blocks == rounds * world_size && blocks * block == global_batch {
            return write!(
                f,
                "{global_batch} samples per step: {world_size} x {rounds} x {block} (processes, micro-batches, samples)"
            );
        }
        write!(
            f,
            "{global_batch} samples per step: {blocks} micro-batches of at most {block}, shared by {world_size} processes"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_assigned_once_for_any_numbers() {
        for global_batch in [1, 2, 7, 8, 24, 96, 100] {
            for batch_size in [1, 3, 8, 24] {
                for world_size in [1, 2, 3, 5, 8, 40] {
                    for sharing in [Sharing::even, Sharing::fixed].map(|of| of(global_batch, batch_size, world_size)) {
                        let shares: Vec<Vec<MicroBatch>> = (0..world_size).map(|rank| sharing.of_rank(rank)).collect();
                        let mut blocks: Vec<&MicroBatch> = shares.iter().flatten().collect();
                        blocks.sort_by_key(|block| block.index);
                        let samples: Vec<usize> = blocks.iter().flat_map(|block| block.samples.clone()).collect();
                        assert_eq!(samples, (0..global_batch).collect::<Vec<_>>(), "{sharing:?}");
                        assert!(
                            blocks.iter().all(|block| !block.samples.is_empty() && block.samples.len() <= batch_size)
                        );
                        for round in 0..sharing.num_rounds() {
                            let dealt = shares.iter().filter(|share| share.len() > round).count();
                            assert_eq!(dealt, sharing.num_dealt(round), "{sharing:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn shares_that_divide_are_batches() {
        let sharing = Sharing::even(192, 24, 4);
        let second: Vec<Range<usize>> = sharing.of_rank(1).into_iter().map(|block| block.samples).collect();
        assert_eq!(second, [24..48, 120..144]);
        let largest = |world_size: usize| {
            let share = |rank| Sharing::even(192, 24, world_size).of_rank(rank).iter().map(|b| b.samples.len()).sum();
            (0..world_size).map(share).max().unwrap_or(0usize)
        };
        assert_eq!([1, 2, 3, 5, 8].map(largest), [192, 96, 66, 40, 24]);
    }

    #[test]
    fn the_division_of_a_step_is_described() {
        let told = |world_size: usize| Sharing::even(768, 24, world_size).to_string();
        assert_eq!(told(8), "768 samples per step: 8 x 4 x 24 (processes, micro-batches, samples)");
        assert_eq!(told(1), "768 samples per step: 1 x 32 x 24 (processes, micro-batches, samples)");
        assert_eq!(told(5), "768 samples per step: 35 micro-batches of at most 22, shared by 5 processes");
    }

    #[test]
    fn fixed_blocks_are_the_same_for_any_number_of_processes_and_usual_batch_sizes() {
        for (batch_size, world_size) in [(32, 1), (8, 1), (16, 2), (8, 4), (4, 8)] {
            assert_eq!(Sharing::fixed(32, batch_size, world_size).at(3).samples, 12..16);
        }
    }
}
