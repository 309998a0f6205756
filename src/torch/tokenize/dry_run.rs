//! `tokenize --dry-run`: time, memory and disk space of a job, before anything is written.

use super::add;
use crate::args::{Global, TokenizeArgs};
use crate::exit::CheckFailed;
use crate::launcher;
use crate::signals;
use crate::terminal::{bytes, counted, print_json, seconds};
use crate::torch::free_space::free_bytes;
use crate::torch::training_memory::peak_bytes;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tch::Device;
use tokengrid_cache::{JobPlan, images_done};
use tokengrid_ingest::{Recipe, Views, memory_budget};
use tokengrid_store::{is_remote, stage_folder};
use tokengrid_tokenize::{Job, TokenizeError};

/// Limits of measuring the rate: number of encoded images, and time.
const TRIAL_IMAGES: usize = 64;
const TRIAL: Duration = Duration::from_secs(5);

/// Number of keys that are read to estimate their length.
const TRIAL_KEYS: usize = 10_000;

/// Prints what would be written.
///
/// # Errors
/// The disk has too little free space.
pub(super) fn run(job: Job, args: &TokenizeArgs, global: &Global) -> anyhow::Result<()> {
    if !args.add {
        return print(&job, &args.out, 0, args, global);
    }
    match add::plan(job, &args.out)? {
        Some(add::Plan { job, adding, merged_bytes }) => print(&job, &adding, merged_bytes, args, global),
        None => add::report(&args.out, 0, global),
    }
}

/// `work`: output folder of the job; `more_bytes`: additional bytes that it needs on disk.
fn print(job: &Job, work: &Path, more_bytes: u64, args: &TokenizeArgs, global: &Global) -> anyhow::Result<()> {
    let (grid, source) = (job.grid()?, &job.source);
    let keys = (0..source.len().min(TRIAL_KEYS)).map(|index| source.key(index));
    let spec = job.spec()?;
    let plan = JobPlan::new(&spec, keys)?;
    let done = if args.overwrite { 0 } else { images_done(work, &spec) };
    let time = Time::measure(job, source.len() - done)?;
    let memory = memory_bytes(job, &plan);
    let (needed, free) = (needed_bytes(&plan, done) + more_bytes, free_bytes(&working_folder(&args.out)));
    let short = free.filter(|free| *free < needed);
    if global.json {
        print_json(&json!({
            "images": source.len(), "excluded": source.excluded(), "classes": source.classes().len(),
            "images_done": done, "rows": plan.rows, "files": plan.files, "shards": plan.shards,
            "grid": [grid.height, grid.width], "bits": grid.bits, "estimated_bytes": plan.bytes,
            "peak_bytes": plan.peak_bytes + more_bytes, "needed_bytes": needed, "memory_bytes": memory,
            "decoding_bytes": memory_budget(), "free_bytes": free,
            "images_per_second": time.rate, "hours": time.hours, "processes": job.world_size,
            "processes_per_machine": time.per_machine,
        }))?;
    } else {
        let (classes, excluded) = (source.classes().len(), source.excluded());
        let (images, rows) = (counted(source.len(), "image"), counted(plan.rows, "row"));
        println!(
            "{images} ({}, {excluded} excluded), {rows}",
            if classes == 1 { "1 class".to_owned() } else { format!("{classes} classes") }
        );
        if done > 0 {
            println!("{} done already", counted(done, "image"));
        }
        println!("grid {grid} of {} bits: {} in {}", grid.bits, bytes(plan.bytes), counted(plan.files, "file"));
        if let Some(free) = free {
            println!("disk: {} are needed while it runs, {} are free", bytes(needed), bytes(free));
        }
        println!(
            "memory: at most {} per process, up to {} of it for images that are being decoded (--memory)",
            bytes(memory),
            bytes(memory_budget())
        );
        time.print(job);
    }
    match short {
        None => Ok(()),
        Some(free) => {
            let text = format!(
                "not enough disk for {}: {} are needed, {} are free",
                args.out.display(),
                bytes(needed),
                bytes(free)
            );
            Err(CheckFailed(text).into())
        }
    }
}

/// Folder of the files while the job runs.
fn working_folder(out: &Path) -> PathBuf {
    if is_remote(out) { stage_folder() } else { out.to_owned() }
}

/// Bytes still to be written, and those of temporary parts while a shard is assembled.
fn needed_bytes(plan: &JobPlan, done: usize) -> u64 {
    let left = 1.0 - done as f64 / plan.images.max(1) as f64;
    (plan.bytes as f64 * left) as u64 + plan.peak_bytes.saturating_sub(plan.bytes)
}

/// Upper bound in bytes of one process's memory on the CPU: the peak of this process (model and trial batches), the cache's
/// writer, the batches between decoder and encoder, and the decoders' budget.
fn memory_bytes(job: &Job, plan: &JobPlan) -> u64 {
    let view_bytes = u64::from(job.recipe.size).pow(2) * 3;
    let in_flight = 3 * view_bytes * (job.batch_size as u64 + u64::from(job.recipe.num_views()));
    plan.memory_bytes + in_flight + memory_budget() + peak_bytes().unwrap_or_default()
}

/// The duration of a job.
struct Time {
    /// Images per second of a process that is alone on this machine.
    rate: Option<f64>,
    hours: Option<f64>,
    /// Processes that share this machine.
    per_machine: u32,
}

impl Time {
    /// Time of the remaining `left` images.
    fn measure(job: &Job, left: usize) -> anyhow::Result<Time> {
        let rate = trial_rate(job)?.map(|rate| rate / f64::from(job.num_views()));
        // If the launcher does not report it, all processes: the pessimistic assumption.
        let told = launcher::local_world_size().map_or(job.world_size, |processes| processes as u32);
        let per_machine = told.clamp(1, job.world_size);
        // Each process has its own GPU; processor cores, and so their throughput, are shared.
        let sharing = if job.runtime.device == Device::Cpu { per_machine } else { 1 };
        let at_once = f64::from(job.world_size) / f64::from(sharing);
        let hours = rate.map(|rate| left as f64 / (rate * at_once) / 3600.0);
        Ok(Time { rate, hours, per_machine })
    }

    fn print(&self, job: &Job) {
        let (Some(rate), Some(hours)) = (self.rate, self.hours) else { return };
        let (processes, per_machine) = (job.world_size, self.per_machine);
        let time = seconds(hours * 3600.0);
        match (processes, job.runtime.device == Device::Cpu) {
            (1, _) => println!("time: {time} at {rate:.1} images/s (measured just now)"),
            (_, true) => println!(
                "time: {time} at {rate:.1} images/s per machine, {processes} processes, {per_machine} of them on each machine \
                 (measured just now, with this one alone)"
            ),
            (_, false) => println!(
                "time: {time} at {rate:.1} images/s per process, {processes} processes with a GPU each (measured just now)"
            ),
        }
    }
}

/// Views per second, measured on one view each of images spread over the source. `None` without images.
fn trial_rate(job: &Job) -> anyhow::Result<Option<f64>> {
    let recipe = Recipe { views: Views::Center, ..job.recipe };
    let job = &Job { recipe, first_view: 0, ..job.clone() };
    let count = job.source.len().min(TRIAL_IMAGES);
    let images: Vec<usize> = (0..count).map(|i| i * job.source.len() / count).collect();
    // The first batch includes one-time costs, so it counts only if there is no second one.
    let warm_up = if count > job.batch_size { job.batch_size } else { 0 };
    let (mut since, mut done) = (Instant::now(), 0usize);
    let mut elapsed = Duration::ZERO;
    let ended = job.encode_images(&images, &mut |_| {
        done += 1;
        if done == warm_up {
            since = Instant::now();
        }
        elapsed = since.elapsed();
        let is_enough = done > warm_up && elapsed > TRIAL;
        if is_enough || signals::cancelled() { Err(TokenizeError::Cancelled) } else { Ok(()) }
    });
    if signals::cancelled() {
        return Err(signals::Stopped.into());
    }
    match ended {
        Ok(()) | Err(TokenizeError::Cancelled) => {}
        Err(error) => return Err(error.into()),
    }
    let measured = done.saturating_sub(warm_up);
    Ok((measured > 0 && !elapsed.is_zero()).then(|| measured as f64 / elapsed.as_secs_f64()))
}
