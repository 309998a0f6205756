//! Where a stream's time goes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::error::Stage;

/// Counters that workers add to while a stream runs; read them at any time with [`StageCounters::times`].
#[derive(Debug, Default)]
pub struct StageCounters {
    read_ns: AtomicU64,
    decode_ns: AtomicU64,
    resize_ns: AtomicU64,
    blocked_ns: AtomicU64,
    starved_ns: AtomicU64,
    images: AtomicU64,
    bad: AtomicU64,
    bytes: AtomicU64,
}

/// What [`StageCounters`] held at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// Time in reading, summed over workers.
    pub read: Duration,
    /// Time in decoding, summed over workers.
    pub decode: Duration,
    /// Time in resizing and cropping, summed over workers.
    pub resize: Duration,
    /// Time in which workers waited because `in_flight` images were held: what follows the stream is the slower part.
    pub blocked: Duration,
    /// Time in which the consumer waited for an image: the stream is the slower part.
    pub starved: Duration,
    /// Images worked on, bad ones included.
    pub images: u64,
    /// Of these, images without views.
    pub bad: u64,
    /// Bytes read.
    pub bytes: u64,
}

impl StageTimes {
    /// The stage that took most of the workers' time, and its share, 0 to 1. `None` before anything was done.
    pub fn slowest(&self) -> Option<(Stage, f64)> {
        let total = (self.read + self.decode + self.resize).as_secs_f64();
        let stages = [(Stage::Read, self.read), (Stage::Decode, self.decode), (Stage::Resize, self.resize)];
        let (stage, time) = stages.into_iter().max_by_key(|(_, time)| *time)?;
        (total > 0.0).then(|| (stage, time.as_secs_f64() / total))
    }
}

impl StageCounters {
    /// The counts so far.
    pub fn times(&self) -> StageTimes {
        let time = |counter: &AtomicU64| Duration::from_nanos(counter.load(Ordering::Relaxed));
        StageTimes {
            read: time(&self.read_ns),
            decode: time(&self.decode_ns),
            resize: time(&self.resize_ns),
            blocked: time(&self.blocked_ns),
            starved: time(&self.starved_ns),
            images: self.images.load(Ordering::Relaxed),
            bad: self.bad.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    /// Runs `work` on the account of `stage`.
    pub(crate) fn timed<T>(&self, stage: Stage, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        let counter = match stage {
            Stage::Read => &self.read_ns,
            Stage::Decode => &self.decode_ns,
            Stage::Resize => &self.resize_ns,
        };
        add_time(counter, start);
        result
    }

    pub(crate) fn add_blocked(&self, since: Instant) {
        add_time(&self.blocked_ns, since);
    }

    pub(crate) fn add_starved(&self, since: Instant) {
        add_time(&self.starved_ns, since);
    }

    pub(crate) fn add_bytes(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_image(&self, good: bool) {
        self.images.fetch_add(1, Ordering::Relaxed);
        if !good {
            self.bad.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn add_time(counter: &AtomicU64, since: Instant) {
    counter.fetch_add(u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
}
