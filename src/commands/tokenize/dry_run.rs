//! `tokenize --dry-run`: what a job will come to, before anything is written.

use crate::args::{Global, TokenizeArgs};
use crate::files;
use crate::terminal::{bytes, print_json, seconds};
use serde_json::json;
use std::time::{Duration, Instant};
use tokengrid_cache::JobPlan;
use tokengrid_ingest::{Recipe, Views, memory_budget};
use tokengrid_tokenize::{Job, TokenizeError};

/// Images that a dry run encodes to learn the rate, at most, and how long it goes on with that.
const TRIAL_IMAGES: usize = 64;
const TRIAL: Duration = Duration::from_secs(5);

/// Keys that a dry run looks at to learn how long they are.
const TRIAL_KEYS: usize = 10_000;

/// What would be written, without writing it.
pub fn run(job: &Job, args: &TokenizeArgs, global: &Global) -> anyhow::Result<()> {
    let (grid, source) = (job.grid()?, &job.source);
    let keys = (0..source.len().min(TRIAL_KEYS)).map(|index| source.key(index));
    let plan = JobPlan::new(&job.spec()?, keys)?;
    let views_per_second = trial_rate(job)?;
    let rate = views_per_second.map(|rate| rate / f64::from(job.num_views()));
    let hours = rate.map(|rate| source.len() as f64 / rate / 3600.0 / f64::from(job.world_size));
    let view_bytes = u64::from(job.recipe.size).pow(2) * 3;
    // Decoders wait for one another within their budget.
    let decoding = memory_budget();
    let memory =
        decoding + plan.memory_bytes + 3 * view_bytes * (job.batch_size as u64 + u64::from(job.recipe.num_views()));
    let free = files::free_bytes(&args.out);
    if global.json {
        return print_json(&json!({
            "images": source.len(), "excluded": source.excluded(), "classes": source.classes().len(),
            "rows": plan.rows, "files": plan.files, "shards": plan.shards, "grid": [grid.height, grid.width],
            "bits": grid.bits, "estimated_bytes": plan.bytes, "peak_bytes": plan.peak_bytes, "memory_bytes": memory,
            "decoding_bytes": decoding,
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
    println!(
        "memory at most {} a process, besides the model: up to {} of it for images that are being decoded (--memory)",
        bytes(memory),
        bytes(decoding)
    );
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
