//! The processes that share an evaluation.
//!
//! Pictures are dealt to them in blocks; each measures its own. After each round of blocks all processes have the results of all,
//! and rank 0 adds them up picture by picture in the order of the set, as one process would: its sums do not depend on
//! how many processes there are.

use crate::EvalError;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One process among those of an evaluation. All of them make the same calls in the same order.
pub trait Peers {
    /// This process, counted from 0.
    fn rank(&self) -> usize;

    /// Number of processes.
    fn world_size(&self) -> usize;

    /// The bytes of all processes, in the order of the ranks.
    ///
    /// # Errors
    /// [`EvalError::Peers`]: another process is gone.
    fn all_gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, EvalError>;

    /// Whether this process adds up and reports.
    fn is_first(&self) -> bool {
        self.rank() == 0
    }
}

/// An evaluation in one process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Peers for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn world_size(&self) -> usize {
        1
    }

    fn all_gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, EvalError> {
        Ok(vec![own.to_vec()])
    }
}

/// The values of all processes, in the order of the ranks.
pub(crate) fn gather<T: Serialize + DeserializeOwned>(peers: &dyn Peers, own: &T) -> Result<Vec<T>, EvalError> {
    // Exact to the bit, infinities too. Only processes of the same program exchange, so the formats agree.
    let failed = |error: postcard::Error| EvalError::Peers(format!("figures cannot be exchanged: {error}").into());
    let gathered = peers.all_gather(&postcard::to_stdvec(own).map_err(failed)?)?;
    gathered.iter().map(|bytes| postcard::from_bytes(bytes).map_err(failed)).collect()
}

/// Largest number of pictures of a block: a round is short compared with an evaluation, and all hold its results.
const BLOCK_MAX: usize = 32;

/// How pictures are dealt to the processes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deal {
    rank: usize,
    world_size: usize,
    total: usize,
    block: usize,
}

impl Deal {
    /// The distribution of `total` pictures, which a network processes in batches of `batch_size`: batches end where blocks do.
    pub(crate) fn new(peers: &dyn Peers, total: usize, batch_size: usize) -> Deal {
        let (rank, world_size) = (peers.rank(), peers.world_size());
        let whole_batches = BLOCK_MAX.next_multiple_of(batch_size.max(1));
        // Small sets are shared as well.
        let block = whole_batches.min(total.div_ceil(world_size)).max(1);
        let block = if world_size == 1 { total.max(1) } else { block };
        Deal { rank, world_size, total, block }
    }

    /// Rounds of blocks: the same number in all processes, whether or not they have a block in the last one.
    pub(crate) fn rounds(&self) -> usize {
        self.total.div_ceil(self.world_size * self.block)
    }

    /// This process's pictures in a round.
    pub(crate) fn of_round(&self, round: usize) -> std::ops::Range<usize> {
        let first = (round * self.world_size + self.rank) * self.block;
        first.min(self.total)..(first + self.block).min(self.total)
    }

    /// All of this process's pictures, in order.
    pub(crate) fn own(self) -> impl Iterator<Item = usize> + Send + 'static {
        (0..self.rounds()).flat_map(move |round| self.of_round(round))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Rank(usize, usize);

    impl Peers for Rank {
        fn rank(&self) -> usize {
            self.0
        }

        fn world_size(&self) -> usize {
            self.1
        }

        fn all_gather(&self, _: &[u8]) -> Result<Vec<Vec<u8>>, EvalError> {
            panic!("nothing is exchanged here")
        }
    }

    #[test]
    fn every_picture_is_assigned_once_and_rounds_keep_the_order() {
        for (total, world_size, batch_size) in [(0, 2, 8), (1, 3, 8), (7, 3, 1), (64, 2, 8), (1000, 3, 24), (100, 1, 8)]
        {
            let deals: Vec<Deal> =
                (0..world_size).map(|rank| Deal::new(&Rank(rank, world_size), total, batch_size)).collect();
            let rounds = deals[0].rounds();
            let in_order = (0..rounds).flat_map(|round| deals.iter().flat_map(move |deal| deal.of_round(round)));
            assert!(in_order.eq(0..total), "{total} {world_size} {batch_size}");
            assert!(deals.iter().all(|deal| deal.rounds() == rounds));
            let dealt: usize = deals.iter().map(|deal| deal.own().count()).sum();
            assert_eq!(dealt, total);
        }
        let blocks: Vec<usize> = (0..3).map(|rank| Deal::new(&Rank(rank, 3), 7, 8).own().count()).collect();
        assert_eq!(blocks, [3, 3, 1], "a small set is shared too");
    }
}
