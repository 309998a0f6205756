//! `tokengrid ingest`: decode and resize everything.

use crate::args::{Global, IngestArgs, SourceArgs};
use crate::exit::Usage;
use crate::signals::{self, Stopped};
use crate::terminal::{Meter, print_json, seconds};
use anyhow::Context;
use serde::Serialize;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tokengrid_ingest::{Recipe, Source, SourceOptions, StreamConfig, View, ViewStream};

/// What `--json` prints.
#[derive(Debug, Default, Serialize)]
struct Report {
    images: usize,
    ok: usize,
    bad: Vec<BadImage>,
    excluded: usize,
    /// Decoded, although the decoder complained about damage.
    with_warnings: usize,
    views: usize,
    seconds: f64,
    images_per_second: f64,
    /// The stage that took most of the workers' time, and its share.
    slowest_stage: Option<String>,
    slowest_stage_share: Option<f64>,
}

#[derive(Debug, Serialize)]
struct BadImage {
    key: String,
    stage: String,
    reason: String,
}

/// Source and recipe as typed, checked.
pub fn open(args: &SourceArgs) -> anyhow::Result<(Arc<Source>, Recipe)> {
    let views = args.views.parse().map_err(|e| Usage(format!("--views {}: {e}", args.views)))?;
    let recipe = Recipe { size: args.size, views, seed: args.seed, ..Recipe::default() };
    recipe.validate().map_err(|e| Usage(e.to_string()))?;
    let options = SourceOptions { exclude: args.exclude.clone(), limit: args.limit, ..SourceOptions::default() };
    Ok((Arc::new(Source::open(&args.source, &options)?), recipe))
}

/// Runs the command.
pub fn run(args: &IngestArgs, global: &Global) -> anyhow::Result<()> {
    let (source, recipe) = open(&args.source)?;
    if let Some(out) = &args.out {
        std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    }
    let started = Instant::now();
    let config = StreamConfig { threads: global.threads.unwrap_or(0).into(), ..StreamConfig::default() };
    let mut stream = ViewStream::spawn(source.clone(), 0..source.len(), recipe, config);
    let mut meter = Meter::new(global, "images");
    let mut report = Report { excluded: source.excluded(), ..Report::default() };
    for image in stream.by_ref() {
        report.images += 1;
        report.with_warnings += usize::from(image.warnings > 0 && image.outcome.is_ok());
        match image.outcome {
            Ok(views) => {
                report.ok += 1;
                report.views += views.len();
                if let Some(out) = &args.out {
                    views.iter().try_for_each(|view| save(out, &image.key, view, recipe.size))?;
                }
            }
            Err(bad) => {
                let (stage, reason) = (bad.stage.to_string(), bad.reason.clone());
                report.bad.push(BadImage { key: image.key, stage, reason });
            }
        }
        meter.update(report.images as u64, source.len() as u64, &format!("{} bad", report.bad.len()));
        if signals::cancelled() {
            return Err(Stopped.into());
        }
    }
    drop(meter);
    finish(&mut report, &stream, started);
    if let Some(path) = &args.report {
        let json = serde_json::to_vec_pretty(&report)?;
        std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if global.json { print_json(&report) } else { print(&report, args) }
}

fn finish(report: &mut Report, stream: &ViewStream, started: Instant) {
    report.seconds = started.elapsed().as_secs_f64();
    report.images_per_second = report.images as f64 / report.seconds.max(1e-9);
    if let Some((stage, share)) = stream.times().slowest() {
        report.slowest_stage = Some(stage.to_string());
        report.slowest_stage_share = Some(share);
    }
}

fn print(report: &Report, args: &IngestArgs) -> anyhow::Result<()> {
    for bad in &report.bad {
        println!("bad  {}  ({}): {}", bad.key, bad.stage, bad.reason);
    }
    let Report { images, ok, views, excluded, .. } = report;
    println!(
        "{images} images: {ok} ok, {} bad, {excluded} excluded; {views} views of {} px",
        report.bad.len(),
        args.source.size
    );
    println!("{:.0} images/s ({})", report.images_per_second, seconds(report.seconds));
    if let (Some(stage), Some(share)) = (&report.slowest_stage, report.slowest_stage_share) {
        println!("slowest stage: {stage}, {:.0} % of the workers' time", share * 100.0);
    }
    if report.with_warnings > 0 {
        println!("{} images decoded although their data is damaged", report.with_warnings);
    }
    if let Some(out) = &args.out {
        println!("PNGs in {}", out.display());
    }
    Ok(())
}

/// `<key>.<view>.png` below `out`; folders in the key become folders.
fn save(out: &Path, key: &str, view: &View, size: u32) -> anyhow::Result<()> {
    let path = out.join(relative(key, view.view));
    let folder = path.parent().unwrap_or(out);
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let temporary = path.with_extension("png.tmp");
    let write = || -> anyhow::Result<()> {
        let mut encoder = png::Encoder::new(BufWriter::new(File::create(&temporary)?), size, size);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.write_header()?.write_image_data(&view.pixels)?;
        Ok(std::fs::rename(&temporary, &path)?)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// The key's plain components only: whatever a source calls its images, files stay below the output folder.
fn relative(key: &str, view: u32) -> PathBuf {
    let parts: Vec<&str> = key.split('/').filter(|part| !matches!(*part, "" | "." | "..")).collect();
    PathBuf::from(format!("{}.{view}.png", parts.join("/")))
}
