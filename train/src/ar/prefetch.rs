//! Batches that are unpacked ahead of time, and their rows read ahead of that.

use super::data::{HostBatch, Unpacker};
use super::rows::BegunRows;
use super::share::MicroBatch;
use crate::TrainError;
use crossbeam::channel::{Receiver, bounded};
use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokengrid_cache::SampleOrder;
use tokengrid_store::in_flight_max;

/// Batches that are unpacked by a thread of their own, two ahead.
#[derive(Debug)]
pub(super) struct Prefetch {
    batches: Option<Receiver<Result<HostBatch, TrainError>>>,
    worker: Option<JoinHandle<()>>,
    waited: Duration,
}

/// Rows that are requested ahead of those that are unpacked, where they come from a bucket, for each read that may be in flight: small
/// batches keep them busy too.
const ROWS_AHEAD_PER_READ: usize = 2;

impl Prefetch {
    /// Starts at a position of the stream; in each step, `blocks` of the `global_batch` samples are this process's.
    pub(super) fn start(
        mut order: SampleOrder,
        mut position: u64,
        unpacker: Unpacker,
        blocks: Vec<MicroBatch>,
        global_batch: usize,
    ) -> Prefetch {
        let (sender, batches) = bounded(2);
        let worker = std::thread::spawn(move || {
            if blocks.is_empty() {
                return; // more processes than samples: this one has none
            }
            let mut turns = std::iter::repeat_with(|| {
                let first = position;
                position += global_batch as u64;
                first
            })
            .flat_map(|first| {
                blocks.iter().map(move |block| (first + block.samples.start as u64, block.samples.len()))
            });
            let mut begin = || -> Result<BegunRows, TrainError> {
                let (first, count) = turns.next().expect("the stream is endless");
                let mut rows = Vec::with_capacity(count);
                order.rows_at(first, count, &mut rows);
                unpacker.begin(rows)
            };
            let mut ahead = VecDeque::new();
            loop {
                let batch = next_begun(&mut ahead, &mut begin).and_then(|rows| unpacker.unpack_begun(rows));
                let is_last = batch.is_err();
                if sender.send(batch).is_err() || is_last {
                    return;
                }
            }
        });
        Prefetch { batches: Some(batches), worker: Some(worker), waited: Duration::ZERO }
    }

    /// The next batch.
    ///
    /// # Errors
    /// Its rows cannot be read.
    ///
    /// # Panics
    /// Passes on a panic of the unpacking thread.
    pub(super) fn next_batch(&mut self) -> Result<HostBatch, TrainError> {
        let started = Instant::now();
        let batches = self.batches.as_ref().expect("the receiver lives as long as the prefetcher");
        let batch = batches.recv();
        self.waited += started.elapsed();
        batch.unwrap_or_else(|_| {
            // The thread runs until its receiver is gone or it has sent an error, after which no batch is requested: so it panicked.
            let ended = self.worker.take().map(JoinHandle::join);
            resume_unwind(ended.and_then(Result::err).expect("the unpacking thread ends by a panic only"))
        })
    }

    /// Time spent waiting for data since the last call.
    pub(crate) fn take_waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        drop(self.batches.take());
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

/// The next rows, with as many of those behind them begun as may be ahead.
fn next_begun(
    ahead: &mut VecDeque<BegunRows>,
    begin: &mut impl FnMut() -> Result<BegunRows, TrainError>,
) -> Result<BegunRows, TrainError> {
    let rows_max = ROWS_AHEAD_PER_READ * in_flight_max();
    // Two batches at least: the second is on its way while the first is unpacked.
    while ahead.len() < 2 || ahead.iter().map(|begun| begun.rows().len()).sum::<usize>() < rows_max {
        ahead.push_back(begin()?);
    }
    Ok(ahead.pop_front().expect("two or more"))
}
