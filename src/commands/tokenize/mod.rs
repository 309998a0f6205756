//! `tokengrid tokenize`: the main job.

use super::{ingest, model};
use crate::args::{Global, TokenizeArgs};
use crate::exit::{CheckFailed, Usage};
use crate::terminal::{Meter, bytes, print_json, seconds};
use crate::{files, signals};
use serde_json::json;
use std::time::{Duration, Instant};
use tokengrid_cache::{JobPlan, VIEWS_MAX};
use tokengrid_ingest::{BadPolicy, Recipe, Views};
use tokengrid_tokenize::{Job, Outcome, TokenizeError};

/// Runs the command.
pub fn run(args: &TokenizeArgs, global: &Global) -> anyhow::Result<()> {
    let (rank, world_size) = ranks(args)?;
    if let Some(path) = &args.report {
        files::check_target(path, b"{")?;
    }
    let runtime = model::runtime(&args.device, global)?;
    let (source, recipe) = ingest::open(&args.source)?;
    if args.first_view >= recipe.num_views() {
        let views = recipe.num_views();
        return Err(
            Usage(format!("--first-view {}: the recipe has {views} views, counted from 0", args.first_view)).into()
        );
    }
    let (tokenizer, info) = model::tokenizer(&args.tokenizer, &runtime)?;
    let job = Job {
        source,
        recipe,
        first_view: args.first_view,
        tokenizer: &tokenizer,
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
    if job.num_views() >= VIEWS_MAX {
        let (views, most) = (job.num_views(), VIEWS_MAX - 1);
        return Err(Usage(format!(
            "--views {}: {views} views an image, a cache has at most {most}",
            args.source.views
        ))
        .into());
    }
    if args.dry_run {
        return dry_run(&job, args, global);
    }
    let mut meter = Meter::new(global, "images");
    let outcome = job.run(&args.out, signals::flag(), &mut |progress| {
        meter.update(progress.images as u64, progress.images_total as u64, &format!("{} bad", progress.bad));
    })?;
    drop(meter);
    if let Some(path) = &args.report {
        files::write_json(path, &outcome)?;
    }
    if global.json {
        print_json(&outcome)?
    } else {
        print(&outcome, &job, args)?
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

fn print(outcome: &Outcome, job: &Job, args: &TokenizeArgs) -> anyhow::Result<()> {
    let out = args.out.display();
    if outcome.images_now == 0 && outcome.published {
        println!("{out} is complete already: {} rows; --overwrite would make it anew", outcome.rows);
        return Ok(());
    }
    let inputs = job.source.len() + job.source.excluded();
    let Outcome { images, quarantined, rows, .. } = outcome;
    if outcome.published {
        println!("{inputs} inputs = {images} encoded + {quarantined} quarantined + {} excluded", job.source.excluded());
        println!("{rows} rows in {out}, content hash {}", outcome.content_hash.as_deref().unwrap_or_default());
    } else {
        println!(
            "rank {} of {} is done: {images} images, {rows} rows; other ranks are still at work",
            job.rank, job.world_size
        );
    }
    if let (Some(stage), Some(share)) = (&outcome.slowest_stage, outcome.slowest_stage_share) {
        println!("slowest stage: {stage}, {:.0} % of the work", 100.0 * share);
    }
    if outcome.warned > 0 {
        println!("{} images were encoded although their decoder complained about damage", outcome.warned);
    }
    let share = |part: f64| 100.0 * part / outcome.seconds.max(1e-9);
    println!(
        "{:.1} images/s ({}); encoder busy {:.0} %, waiting for images {:.0} %",
        outcome.images_per_second,
        seconds(outcome.seconds),
        share(outcome.encode_seconds),
        share(outcome.starved_seconds)
    );
    let (near, all) = (outcome.bits_in_margin, outcome.bits);
    println!("{near} of {all} bits lay within 1e-3 of 0, where another device may round them the other way");
    Ok(())
}

/// Rank and world size: typed, else from the launcher.
fn ranks(args: &TokenizeArgs) -> anyhow::Result<(u32, u32)> {
    let from_env = |names: [&str; 2]| -> anyhow::Result<Option<u32>> {
        let Some((name, text)) = names.iter().find_map(|name| Some((name, std::env::var(name).ok()?))) else {
            return Ok(None);
        };
        let number =
            text.trim().parse().map_err(|_| Usage(format!("{name}={text} in the environment is no number")))?;
        Ok(Some(number))
    };
    let or_env = |typed: Option<u32>, names| typed.map_or_else(|| from_env(names), |number| Ok(Some(number)));
    let rank = or_env(args.rank, ["RANK", "SLURM_PROCID"])?.unwrap_or(0);
    let world_size = or_env(args.world_size, ["WORLD_SIZE", "SLURM_NTASKS"])?.unwrap_or(1);
    if rank >= world_size {
        return Err(
            Usage(format!("rank {rank} does not exist among {world_size} processes: ranks count from 0")).into()
        );
    }
    Ok((rank, world_size))
}

/// Images that a dry run encodes to learn the rate, at most, and how long it goes on with that.
const TRIAL_IMAGES: usize = 64;
const TRIAL: Duration = Duration::from_secs(5);

/// Keys that a dry run looks at to learn how long they are.
const TRIAL_KEYS: usize = 10_000;

/// What would be written, without writing it.
fn dry_run(job: &Job, args: &TokenizeArgs, global: &Global) -> anyhow::Result<()> {
    let (grid, source) = (job.grid()?, &job.source);
    let keys = (0..source.len().min(TRIAL_KEYS)).map(|index| source.key(index));
    let plan = JobPlan::new(&job.spec()?, keys)?;
    let views_per_second = trial_rate(job)?;
    let rate = views_per_second.map(|rate| rate / f64::from(job.num_views()));
    let hours = rate.map(|rate| source.len() as f64 / rate / 3600.0 / f64::from(job.world_size));
    let view_bytes = u64::from(job.recipe.size).pow(2) * 3;
    let memory = plan.memory_bytes + 3 * view_bytes * (job.batch_size as u64 + u64::from(job.recipe.num_views()));
    let free = files::free_bytes(&args.out);
    if global.json {
        return print_json(&json!({
            "images": source.len(), "excluded": source.excluded(), "classes": source.classes().len(),
            "rows": plan.rows, "files": plan.files, "shards": plan.shards, "grid": [grid.height, grid.width],
            "bits": grid.bits, "estimated_bytes": plan.bytes, "peak_bytes": plan.peak_bytes, "memory_bytes": memory,
            "free_bytes": free, "images_per_second": rate, "hours": hours,
        }));
    }
    let (classes, excluded) = (source.classes().len(), source.excluded());
    println!("{} images ({classes} classes, {excluded} excluded), {} rows", source.len(), plan.rows);
    println!("grid {grid} of {} bits: {} in {} files", grid.bits, bytes(plan.bytes), plan.files);
    match free {
        Some(free) if free < plan.peak_bytes => {
            println!("free disk {}: NOT ENOUGH, {} are needed while it runs", bytes(free), bytes(plan.peak_bytes));
        }
        Some(free) => println!("free disk {} ({} are needed while it runs)", bytes(free), bytes(plan.peak_bytes)),
        None => {}
    }
    println!("memory {} a process, besides the model", bytes(memory));
    if let (Some(rate), Some(hours)) = (rate, hours) {
        let processes = job.world_size;
        println!(
            "{} at {rate:.1} images/s a process, {processes} processes (measured just now)",
            seconds(hours * 3600.0)
        );
    }
    Ok(())
}

/// Views a second, tried on one view of some images from all over the source. `None` when there are fewer than two.
fn trial_rate(job: &Job) -> anyhow::Result<Option<f64>> {
    let recipe = Recipe { views: Views::Center, ..job.recipe };
    let job = &Job { recipe, first_view: 0, ..job.clone() };
    let count = job.source.len().min(TRIAL_IMAGES);
    let images: Vec<usize> = (0..count).map(|i| i * job.source.len() / count).collect();
    let (mut first, mut done, mut last) = (None, 0usize, Instant::now());
    let ended = job.encode_images(&images, &mut |_| {
        // The first one pays for what is done once.
        last = Instant::now();
        let since = *first.get_or_insert(last);
        done += 1;
        if last.duration_since(since) > TRIAL { Err(TokenizeError::Cancelled) } else { Ok(()) }
    });
    match ended {
        Ok(()) | Err(TokenizeError::Cancelled) => {}
        Err(error) => return Err(error.into()),
    }
    let elapsed = first.map_or(0.0, |first| last.duration_since(first).as_secs_f64());
    Ok((done > 1 && elapsed > 0.0).then(|| (done - 1) as f64 / elapsed))
}
