//! Refuses processes that arrive after a run has begun.

use super::rendezvous::{ARRIVALS, Hello, Outcome, Welcome, arrival_key, encode, hello_key, other_size, welcome_key};
use super::store::{Store, StoreError};

/// Rank 0's answer to late arrivals: no process joins a run that has begun.
#[derive(Debug)]
pub(crate) struct Doorkeeper {
    world_size: usize,
    epoch: String,
    /// Entries of the list that were read.
    listed: i64,
}

impl Doorkeeper {
    /// Of the run `epoch`; the first `listed` entries were answered when it began.
    pub(super) fn new(world_size: usize, epoch: &str, listed: i64) -> Doorkeeper {
        Doorkeeper { world_size, epoch: epoch.to_owned(), listed }
    }

    /// Refuses the processes that have arrived since the last call, with the reason.
    pub(super) fn turn_away(&mut self, store: &Store) -> Result<(), StoreError> {
        let count = store.add(ARRIVALS, 0)?;
        while self.listed < count {
            let entry = store.get(&arrival_key(self.listed + 1))?;
            // The entry follows its number: it may not be there yet.
            let Some(rank) = entry.and_then(|text| text.parse::<usize>().ok()) else { return Ok(()) };
            self.listed += 1;
            let hello = store.get(&hello_key(rank))?.and_then(|text| serde_json::from_str::<Hello>(&text).ok());
            let Some(hello) = hello else { continue };
            let what = match hello.world_size == self.world_size {
                true => format!("this run has begun, and has a rank {rank} already"),
                false => other_size(rank, hello.world_size, self.world_size),
            };
            let epoch = format!("{}/late/{}", self.epoch, self.listed);
            store.set(&format!("{epoch}/outcome"), &encode(&Outcome::Refused(what)))?;
            store.set(&welcome_key(rank), &encode(&Welcome { nonce: hello.nonce, epoch }))?;
        }
        Ok(())
    }
}
