//! `tokengrid tokenize`: encodes images into a token cache.

mod add;
mod dry_run;
mod exchange;

use super::model;
use crate::args::{Global, TokenizeArgs};
use crate::commands::ingest;
use crate::exit::{CheckFailed, Usage};
use crate::ranks::ranks;
use crate::terminal::{Meter, bytes, counted, print_json, seconds};
use crate::{files, signals};
use std::path::Path;
use tokengrid_cache::VIEWS_MAX;
use tokengrid_ingest::{BadPolicy, Recipe};
use tokengrid_store::{Traffic, is_remote, traffic};
use tokengrid_tokenize::{Drift, Job, Outcome};

/// Runs the command.
pub(super) fn run(args: &TokenizeArgs, global: &Global) -> anyhow::Result<()> {
    let (rank, world_size) = ranks(args.rank, args.world_size)?;
    check_outputs(args)?;
    if args.single_writer {
        tokengrid_cache::allow_single_writer();
    }
    let runtime = model::runtime(&args.device, global)?;
    let (source, recipe) = ingest::open(&args.source, world_size > 1 || args.dry_run)?;
    ingest::check_apart_from_linked(&args.out, &source)?;
    check_views(args, &recipe)?;
    let (tokenizer, info) = model::tokenizer(&args.tokenizer, &runtime)?;
    let exact = model::exact_tokenizer(&args.tokenizer, &runtime)?;
    let job = Job {
        source,
        recipe,
        first_view: args.first_view,
        split: args.split.clone(),
        tokenizer: &tokenizer,
        exact: exact.as_ref(),
        info,
        runtime,
        batch_size: args.batch_size as usize,
        threads: global.threads.unwrap_or(0).into(),
        rank,
        world_size,
        limits: ingest::limits(&args.source),
        bad_policy: ingest::bad_policy(&args.bad, BadPolicy::default()),
        rows_per_group: args.rows_per_group as usize,
        overwrite: args.overwrite,
    };
    job.grid()?;
    if args.dry_run {
        return dry_run::run(job, args, global);
    }
    if args.add {
        return add::run(job, args, global);
    }
    let outcome = encode(&job, &args.out, global)?;
    let report = Report::new(&outcome);
    if let Some(path) = &args.report {
        files::write_json(path, &report)?;
    }
    if global.json {
        print_json(&report)?;
    } else {
        print(&outcome, &job, args);
    }
    if outcome.published && outcome.images == 0 {
        let text = format!(
            "{} has no rows: none of the {} inputs could be decoded; once they can, run again with --overwrite",
            args.out.display(),
            job.source.len()
        );
        return Err(CheckFailed(text).into());
    }
    Ok(())
}

/// Checks the paths that the command writes to, before it computes anything.
fn check_outputs(args: &TokenizeArgs) -> anyhow::Result<()> {
    if let Some(path) = &args.report {
        files::check_target(path, files::is_own_json)?;
    }
    if args.add && is_remote(&args.out) {
        let text =
            "--add needs a local folder, where the new cache takes the old one's place; copy the cache, or merge";
        return Err(Usage(text.into()).into());
    }
    ingest::check_apart(&args.out, &args.source.source)
}

/// Checks that the views from `--first-view` on exist and that a cache can hold them.
fn check_views(args: &TokenizeArgs, recipe: &Recipe) -> Result<(), Usage> {
    let (first, views) = (args.first_view, recipe.num_views());
    if first >= views {
        return Err(Usage(format!("--first-view {first}: the recipe has {views} views, counted from 0")));
    }
    let (views, most) = (views - first, VIEWS_MAX - 1);
    if views > most {
        let typed = &args.source.views;
        return Err(Usage(format!("--views {typed}: {views} views per image, a cache has at most {most}")));
    }
    Ok(())
}

/// The job's outcome, and the requests to object stores.
#[derive(serde::Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    outcome: &'a Outcome,
    requests: u64,
    bytes_fetched: u64,
    bytes_sent: u64,
}

impl Report<'_> {
    fn new(outcome: &Outcome) -> Report<'_> {
        let Traffic { requests, fetched_bytes, sent_bytes } = traffic();
        Report { outcome, requests, bytes_fetched: fetched_bytes, bytes_sent: sent_bytes }
    }
}

/// Runs the job with output folder `out`, and shows progress.
fn encode(job: &Job, out: &Path, global: &Global) -> anyhow::Result<Outcome> {
    let mut meter = Meter::new(global, "images");
    let progress = &mut |progress: &tokengrid_tokenize::Progress| {
        if progress.images_now == 0 {
            meter.start(progress.images as u64, progress.images_total as u64);
            return;
        }
        meter.update(progress.images as u64, progress.images_total as u64, &format!("{} bad", progress.bad));
    };
    Ok(job.run(out, signals::flag(), progress)?)
}

fn print(outcome: &Outcome, job: &Job, args: &TokenizeArgs) {
    let out = args.out.display();
    if outcome.images_now == 0 && outcome.published {
        println!("{out} is complete already: {}; --overwrite would make it again", counted(outcome.rows, "row"));
        return;
    }
    let inputs = job.source.len() + job.source.excluded();
    let Outcome { images, quarantined, rows, .. } = outcome;
    if outcome.published {
        println!("{inputs} inputs = {images} encoded + {quarantined} quarantined + {} excluded", job.source.excluded());
        println!(
            "{} in {out}, content hash {}",
            counted(*rows, "row"),
            outcome.content_hash.as_deref().unwrap_or_default()
        );
    } else {
        println!(
            "rank {} of {} is done: {}, {}; other ranks are still at work",
            job.rank,
            job.world_size,
            counted(*images, "image"),
            counted(*rows, "row")
        );
    }
    print_performance(outcome);
    print_near_bits(outcome);
}

/// Prints rates, shares of time, decoder warnings, and the requests to object stores.
fn print_performance(outcome: &Outcome) {
    if let (Some(stage), Some(share)) = (&outcome.slowest_stage, outcome.slowest_stage_share) {
        println!("slowest stage: {stage}, {:.0} % of the work", 100.0 * share);
    }
    if outcome.warned > 0 {
        println!("{} encoded although the decoder complained about damage", counted(outcome.warned, "image"));
    }
    let share = |part: f64| 100.0 * part / outcome.seconds.max(1e-9);
    println!(
        "{:.1} images/s ({}); encoder busy {:.0} %, waiting for images {:.0} %",
        outcome.images_per_second,
        seconds(outcome.seconds),
        share(outcome.encode_seconds),
        share(outcome.starved_seconds)
    );
    let Traffic { requests, fetched_bytes, sent_bytes } = traffic();
    if requests > 0 {
        let (requests, fetched, sent) =
            (counted(requests as usize, "request"), bytes(fetched_bytes), bytes(sent_bytes));
        println!("{requests} to object stores, {fetched} fetched, {sent} sent");
    }
}

/// Prints how many bits are close to the threshold, and the difference from exact fp32 if it was measured.
fn print_near_bits(outcome: &Outcome) {
    let (near, all) = (outcome.bits_in_margin, outcome.bits);
    println!("{near} of {all} bits lay within 1e-3 of 0, where another device may round them the other way");
    if let Some(Drift { views, bits, differing, outside_margin }) = outcome.drift {
        println!(
            "against exact fp32, measured on {views} views: {differing} of {bits} bits differ ({:.4} %), {outside_margin} of \
             them not near 0",
            100.0 * differing as f64 / bits.max(1) as f64
        );
    }
}
