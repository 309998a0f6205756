//! Time of a stream, by stage.

use crate::error::Stage;
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Counters that workers add to while a stream runs; read them at any time with [`StageCounters::times`].
#[derive(Debug, Default)]
pub struct StageCounters {
    read_ns: AtomicU64,
    decode_ns: AtomicU64,
    resize_ns: AtomicU64,
    encode_ns: AtomicU64,
    write_ns: AtomicU64,
    /// Delay that is added to every step of a stage, by [`Stage`]: for tests.
    #[cfg(test)]
    delay_ns: [AtomicU64; Stage::ALL.len()],
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
    /// Time in encoding: the consumer's, as far as it reports it ([`StageCounters::timed`]).
    pub encode: Duration,
    /// Time in writing results: the consumer's, as far as it reports it.
    pub write: Duration,
    /// Time in which workers waited because `in_flight` images were held: what follows the stream is the slower part.
    pub blocked: Duration,
    /// Time in which the consumer waited for an image: the stream is the slower part.
    pub starved: Duration,
    /// Images worked on, bad ones included.
    pub images: u64,
    /// Of these, images without views.
    pub bad: u64,
    /// Bytes read from the source.
    pub bytes: u64,
}

/// [`StageTimes`] of the five stages in seconds, for reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct StageSeconds {
    /// Reading bytes from the source.
    pub read: f64,
    /// Decoding bytes to RGB.
    pub decode: f64,
    /// Resizing and cropping RGB to views.
    pub resize: f64,
    /// Encoding: the consumer's work on the views.
    pub encode: f64,
    /// Writing the results.
    pub write: f64,
}

impl StageTimes {
    /// The time of every stage, in seconds.
    pub fn seconds(&self) -> StageSeconds {
        let of = |stage| self.of(stage).as_secs_f64();
        StageSeconds {
            read: of(Stage::Read),
            decode: of(Stage::Decode),
            resize: of(Stage::Resize),
            encode: of(Stage::Encode),
            write: of(Stage::Write),
        }
    }

    /// The time of a stage, summed over threads.
    pub fn of(&self, stage: Stage) -> Duration {
        match stage {
            Stage::Read => self.read,
            Stage::Decode => self.decode,
            Stage::Resize => self.resize,
            Stage::Encode => self.encode,
            Stage::Write => self.write,
        }
    }

    /// The stage that took most time, and its share of the time of all, 0 to 1. `None` before anything was done.
    pub fn slowest(&self) -> Option<(Stage, f64)> {
        let total: f64 = Stage::ALL.iter().map(|stage| self.of(*stage).as_secs_f64()).sum();
        let stage = Stage::ALL.into_iter().max_by_key(|stage| self.of(*stage))?;
        (total > 0.0).then(|| (stage, self.of(stage).as_secs_f64() / total))
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
            encode: time(&self.encode_ns),
            write: time(&self.write_ns),
            blocked: time(&self.blocked_ns),
            starved: time(&self.starved_ns),
            images: self.images.load(Ordering::Relaxed),
            bad: self.bad.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    /// Runs `work` and adds its time to `stage`. The stream itself counts reading, decoding and resizing; its consumer counts
    /// what comes after it ([`Stage::Encode`], [`Stage::Write`]).
    pub fn timed<T>(&self, stage: Stage, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        #[cfg(test)]
        std::thread::sleep(Duration::from_nanos(self.delay_ns[stage as usize].load(Ordering::Relaxed)));
        add_time(self.counter(stage), start);
        result
    }

    /// Draws every later step of `stage` out by `delay`.
    #[cfg(test)]
    pub(crate) fn slow_down(&self, stage: Stage, delay: Duration) {
        let delay_ns = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        self.delay_ns[stage as usize].store(delay_ns, Ordering::Relaxed);
    }

    fn counter(&self, stage: Stage) -> &AtomicU64 {
        match stage {
            Stage::Read => &self.read_ns,
            Stage::Decode => &self.decode_ns,
            Stage::Resize => &self.resize_ns,
            Stage::Encode => &self.encode_ns,
            Stage::Write => &self.write_ns,
        }
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

#[cfg(test)]
#[path = "stages_tests.rs"]
mod tests;
