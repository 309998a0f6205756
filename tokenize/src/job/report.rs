//! Progress and outcome of a job.

use super::drift::Drift;
use crate::TokenizeError;
use serde::Serialize;
use std::ops::Range;
use std::time::Duration;
use tokengrid_cache::{Finished, Margins};
use tokengrid_ingest::{BadCounter, BatchImage, Source, StageSeconds, StageTimes};
use tokengrid_model::lfq;

/// Progress of a job.
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

/// The outcome of a job.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Images encoded: of the whole cache when it is published, else of this rank.
    pub images: usize,
    /// Rows, likewise.
    pub rows: usize,
    /// Images set aside, likewise.
    pub quarantined: usize,
    /// Images left out before, by name. All inputs are images + quarantined + excluded.
    pub excluded: usize,
    /// Images of this call that were encoded although their decoder complained about damage.
    pub warned: usize,
    /// Whether the cache is complete; if not, other ranks are still at work.
    pub published: bool,
    /// The cache's content hash when it is published.
    pub content_hash: Option<String>,
    /// Images that this call worked on (0: there was nothing left to do).
    pub images_now: usize,
    /// Seconds of this call.
    pub seconds: f64,
    /// Images per second of this call.
    pub images_per_second: f64,
    /// Bits whose |h| lies within the margin, where another implementation's rounding may flip them.
    pub bits_in_margin: u64,
    /// All bits of the encoded views.
    pub bits: u64,
    /// Histogram of |h| over these bits, in the bins of [`tokengrid_cache::MARGIN_EDGES`].
    pub margins: Margins,
    /// Bits that differ from the exact mode, where the job ran in another one.
    pub drift: Option<Drift>,
    /// Seconds of work in each stage of this call, summed over threads.
    pub stage_seconds: StageSeconds,
    /// The stage that took most of them.
    pub slowest_stage: Option<String>,
    /// Its share, 0 to 1.
    pub slowest_stage_share: Option<f64>,
    /// Seconds spent in the encoder.
    pub encode_seconds: f64,
    /// Seconds that the encoder waited for decoded images.
    pub starved_seconds: f64,
}

/// Running totals of one call.
#[derive(Debug)]
pub(super) struct Counters {
    images: Range<usize>,
    first: usize,
    done: usize,
    bad: BadCounter,
    /// The last image that was counted: one whose views straddle batches comes twice.
    last_counted: Option<usize>,
    warned: usize,
    pub excluded: usize,
    pub margins: Margins,
    pub drift: Drift,
}

impl Counters {
    pub(super) fn new(images: Range<usize>, first: usize, bad: BadCounter) -> Counters {
        let (last_counted, warned, excluded) = (None, 0, 0);
        let (margins, drift) = (Margins::default(), Drift::default());
        Counters { images, first, done: first, bad, last_counted, warned, excluded, margins, drift }
    }

    /// Records that an image was handed to the writer.
    pub(super) fn done(&mut self, index: usize) {
        self.done = index + 1;
    }

    /// Counts a batch's images.
    ///
    /// # Errors
    /// There are more bad images than the policy tolerates.
    pub(super) fn check(&mut self, images: &[BatchImage], source: &Source) -> Result<(), TokenizeError> {
        for image in images {
            if self.last_counted.replace(image.index) == Some(image.index) {
                continue;
            }
            match &image.outcome {
                Ok(()) => {
                    self.bad.good();
                    self.warned += usize::from(image.warnings > 0);
                }
                Err(bad) => {
                    let key = source.key(image.index);
                    tracing::warn!(key, stage = %bad.stage, reason = bad.reason, "set aside");
                    self.bad.bad(key, bad)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            images: self.done - self.images.start,
            images_total: self.images.len(),
            images_now: self.done - self.first,
            bad: self.bad.bad_count(),
        }
    }

    pub(super) fn outcome(&self, finished: Finished, elapsed: Duration, times: Option<StageTimes>) -> Outcome {
        let (images_now, seconds) = (self.done - self.first, elapsed.as_secs_f64());
        let times = times.unwrap_or_default();
        let slowest = times.slowest();
        Outcome {
            images: finished.images,
            rows: finished.rows,
            quarantined: finished.quarantined,
            excluded: self.excluded,
            warned: self.warned,
            published: finished.published,
            content_hash: finished.content_hash,
            images_now,
            seconds,
            images_per_second: images_now as f64 / seconds.max(1e-9),
            bits_in_margin: self.margins.within(lfq::MARGIN as f32),
            bits: self.margins.bits(),
            margins: self.margins,
            drift: (self.drift.views > 0).then_some(self.drift),
            stage_seconds: times.seconds(),
            slowest_stage: slowest.map(|(stage, _)| stage.to_string()),
            slowest_stage_share: slowest.map(|(_, share)| share),
            encode_seconds: times.encode.as_secs_f64(),
            starved_seconds: times.starved.as_secs_f64(),
        }
    }
}
