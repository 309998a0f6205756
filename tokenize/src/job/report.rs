//! What a job says while it works and when it is done.

use super::assemble::PendingImage;
use serde::Serialize;
use std::ops::Range;
use std::time::Duration;
use tokengrid_cache::Finished;
use tokengrid_ingest::StageTimes;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Images of this rank that are done, those of earlier calls included.
    pub images: usize,
    /// Images of this rank.
    pub images_total: usize,
    /// Images done by this call.
    pub images_now: usize,
    /// Images set aside by this call.
    pub bad: usize,
}

/// What a job came to.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Images encoded: of the whole cache when it is published, else of this rank.
    pub images: usize,
    /// Rows, likewise.
    pub rows: usize,
    /// Images set aside, likewise.
    pub quarantined: usize,
    /// Whether the cache is complete; if not, other ranks are still at work.
    pub published: bool,
    /// The cache's content hash when it is published.
    pub content_hash: Option<String>,
    /// Images that this call worked on (0: there was nothing left to do).
    pub images_now: usize,
    /// Seconds of this call.
    pub seconds: f64,
    /// Images a second of this call.
    pub images_per_second: f64,
    /// Bits whose |h| lay within the margin, where another implementation's rounding may differ, and bits in all.
    pub bits_in_margin: u64,
    /// Bits looked at.
    pub bits: u64,
    /// Seconds spent in the encoder.
    pub encode_seconds: f64,
    /// Seconds that the encoder waited for decoded images.
    pub starved_seconds: f64,
}

/// Running totals of one call.
#[derive(Debug)]
pub struct Counters {
    images: Range<usize>,
    first: usize,
    done: usize,
    pub bad: usize,
    pub bits_in_margin: u64,
    pub bits: u64,
    pub encode: Duration,
}

impl Counters {
    pub fn new(images: Range<usize>, first: usize) -> Counters {
        Counters { images, first, done: first, bad: 0, bits_in_margin: 0, bits: 0, encode: Duration::ZERO }
    }

    pub fn add(&mut self, image: &PendingImage) {
        self.done = image.index + 1;
    }

    /// Images of this call so far, the one in hand included.
    pub fn seen(&self) -> usize {
        (self.done - self.first).max(self.bad)
    }

    pub fn progress(&self) -> Progress {
        Progress {
            images: self.done - self.images.start,
            images_total: self.images.len(),
            images_now: self.done - self.first,
            bad: self.bad,
        }
    }

    pub fn outcome(&self, finished: Finished, elapsed: Duration, times: Option<StageTimes>) -> Outcome {
        let (images_now, seconds) = (self.done - self.first, elapsed.as_secs_f64());
        Outcome {
            images: finished.images,
            rows: finished.rows,
            quarantined: finished.quarantined,
            published: finished.published,
            content_hash: finished.content_hash,
            images_now,
            seconds,
            images_per_second: images_now as f64 / seconds.max(1e-9),
            bits_in_margin: self.bits_in_margin,
            bits: self.bits,
            encode_seconds: self.encode.as_secs_f64(),
            starved_seconds: times.map_or(0.0, |times| times.starved.as_secs_f64()),
        }
    }
}
