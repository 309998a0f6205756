//! The report of `ingest`.

use crate::terminal::{bytes, counted, seconds};
use serde::Serialize;
use std::path::Path;
use std::time::Duration;
use tokengrid_ingest::{ImageViews, Recipe, Source, StageSeconds, StageTimes};

/// The object that `--json` prints and `--report` writes.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Images to process: ok + bad.
    pub images: usize,
    /// Images whose views were made, by this call or (with --out) an earlier one.
    ok: usize,
    /// Images that could not be decoded.
    bad: Vec<BadImage>,
    /// Images left out by `--exclude` or a preset; not among `images`.
    excluded: usize,
    /// Files that are not images by their names; not among `images`.
    ignored: usize,
    /// Images without a class.
    unlabelled: usize,
    /// Warnings about the source.
    notes: Vec<String>,
    /// Images that were decoded with decoder warnings.
    warned: Vec<WarnedImage>,
    views: usize,
    /// Images that an earlier call had finished.
    skipped: usize,
    source: SourceReport,
    recipe: serde_json::Value,
    seconds: f64,
    images_per_second: f64,
    bytes_read: u64,
    /// Requests to object stores, retries included, and the received bytes.
    requests: u64,
    bytes_fetched: u64,
    /// Seconds of work in each stage, summed over threads.
    stage_seconds: StageSeconds,
    /// The stage with the most seconds, and its share.
    slowest_stage: Option<String>,
    slowest_stage_share: Option<f64>,
    #[serde(skip)]
    size: u32,
    #[serde(skip)]
    views_per_image: usize,
}

#[derive(Debug, Serialize)]
struct BadImage {
    key: String,
    stage: String,
    reason: String,
}

#[derive(Debug, Serialize)]
struct WarnedImage {
    key: String,
    warnings: u32,
}

#[derive(Debug, Serialize)]
struct SourceReport {
    kind: String,
    location: String,
    classes: usize,
}

impl Report {
    pub(super) fn new(source: &Source, recipe: &Recipe, skipped: usize) -> Report {
        let views_per_image = recipe.num_views() as usize;
        Report {
            images: skipped,
            ok: skipped,
            bad: vec![],
            excluded: source.excluded(),
            ignored: source.ignored(),
            unlabelled: source.unlabelled(),
            notes: source.notes().to_vec(),
            warned: vec![],
            views: skipped * views_per_image,
            skipped,
            source: SourceReport {
                kind: source.kind().to_string(),
                location: source.root().display().to_string(),
                classes: source.classes().len(),
            },
            recipe: serde_json::from_str(&recipe.to_json()).unwrap_or_default(),
            seconds: 0.0,
            images_per_second: 0.0,
            bytes_read: 0,
            requests: 0,
            bytes_fetched: 0,
            stage_seconds: StageSeconds::default(),
            slowest_stage: None,
            slowest_stage_share: None,
            size: recipe.size,
            views_per_image,
        }
    }

    pub(super) fn add(&mut self, image: &ImageViews) {
        self.images += 1;
        match &image.outcome {
            Ok(_) => {
                self.ok += 1;
                self.views += self.views_per_image;
                if image.warnings > 0 {
                    self.warned.push(WarnedImage { key: image.key.to_string(), warnings: image.warnings });
                }
            }
            Err(bad) => {
                let (stage, reason) = (bad.stage.to_string(), bad.reason.clone());
                self.bad.push(BadImage { key: image.key.to_string(), stage, reason });
            }
        }
    }

    pub(super) fn finish(&mut self, times: &StageTimes, elapsed: Duration) {
        self.stage_seconds = times.seconds();
        if let Some((stage, share)) = times.slowest() {
            (self.slowest_stage, self.slowest_stage_share) = (Some(stage.to_string()), Some(share));
        }
        self.seconds = elapsed.as_secs_f64();
        self.images_per_second = (self.images - self.skipped) as f64 / self.seconds.max(1e-9);
        self.bytes_read = times.bytes;
        let traffic = tokengrid_store::traffic();
        (self.requests, self.bytes_fetched) = (traffic.requests, traffic.fetched_bytes);
    }

    pub(super) fn print(&self, out: Option<&Path>) -> anyhow::Result<()> {
        for BadImage { key, stage, reason } in &self.bad {
            println!("bad  {key}  ({stage}): {reason}");
        }
        for WarnedImage { key, warnings } in &self.warned {
            println!("damaged, but decoded  {key}  ({warnings} decoder warnings)");
        }
        let inputs = self.images + self.excluded;
        let (ok, bad, excluded, kind) = (self.ok, self.bad.len(), self.excluded, &self.source.kind);
        println!("{inputs} inputs ({kind}) = {ok} ok + {bad} bad + {excluded} excluded");
        if self.skipped > 0 {
            println!("{} of them were there already", self.skipped);
        }
        println!("{} of {} px", counted(self.views, "view"), self.size);
        if self.images > self.skipped {
            println!("{:.0} images/s ({})", self.images_per_second, seconds(self.seconds));
        }
        if let (Some(stage), Some(share)) = (&self.slowest_stage, self.slowest_stage_share) {
            println!("slowest stage: {stage}, {:.0} % of the work", share * 100.0);
        }
        if self.requests > 0 {
            println!("{} in {} to object stores", bytes(self.bytes_fetched), counted(self.requests as usize, "request"));
        }
        if let Some(out) = out {
            println!("PNGs in {}", out.display());
        }
        Ok(())
    }
}
