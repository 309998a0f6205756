//! `tokengrid tokenize`: the main job.

use super::{ingest, model};
use crate::args::{Global, TokenizeArgs};
use crate::exit::{CheckFailed, Usage};
use crate::terminal::{Meter, bytes, print_json, seconds};
use crate::{files, signals};
use serde_json::json;
use tokengrid_ingest::BadPolicy;
use tokengrid_tokenize::{Job, Outcome};

/// Runs the command.
pub fn run(args: &TokenizeArgs, global: &Global) -> anyhow::Result<()> {
    let (rank, world_size) = ranks(args)?;
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
        let text =
            format!("{} has no rows: none of the {} inputs could be decoded", args.out.display(), job.source.len());
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
    let inputs = job.source.len();
    let Outcome { images, quarantined, rows, .. } = outcome;
    if outcome.published {
        println!(
            "{inputs} inputs = {images} encoded + {quarantined} quarantined; {} excluded before",
            job.source.excluded()
        );
        println!("{rows} rows in {out}, content hash {}", outcome.content_hash.as_deref().unwrap_or_default());
    } else {
        println!(
            "rank {} of {} is done: {images} images, {rows} rows; other ranks are still at work",
            job.rank, job.world_size
        );
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
    let from_env = |names: [&str; 2]| names.iter().find_map(|name| std::env::var(name).ok()?.parse::<u32>().ok());
    let rank = args.rank.or_else(|| from_env(["RANK", "SLURM_PROCID"])).unwrap_or(0);
    let world_size = args.world_size.or_else(|| from_env(["WORLD_SIZE", "SLURM_NTASKS"])).unwrap_or(1);
    if rank >= world_size {
        return Err(
            Usage(format!("rank {rank} does not exist among {world_size} processes: ranks count from 0")).into()
        );
    }
    Ok((rank, world_size))
}

/// What would be written, without writing it.
fn dry_run(job: &Job, args: &TokenizeArgs, global: &Global) -> anyhow::Result<()> {
    let grid = job.grid()?;
    let rows = job.source.len() as u64 * u64::from(job.recipe.num_views());
    // Measured with ImageNet-like keys: some 15 bytes a row for key, label, crop and checksums.
    let estimated_bytes = rows * (grid.row_bytes() as u64 + 15);
    let free = files::free_bytes(&args.out);
    if global.json {
        return print_json(&json!({
            "images": job.source.len(), "excluded": job.source.excluded(), "rows": rows, "grid": [grid.height, grid.width],
            "bits": grid.bits, "estimated_bytes": estimated_bytes, "free_bytes": free, "classes": job.source.classes().len(),
        }));
    }
    println!(
        "{} images ({} classes, {} excluded), {rows} rows",
        job.source.len(),
        job.source.classes().len(),
        job.source.excluded()
    );
    println!("grid {grid} of {} bits: about {}", grid.bits, bytes(estimated_bytes));
    match free {
        Some(free) if free < estimated_bytes => println!("free disk {}: NOT ENOUGH", bytes(free)),
        Some(free) => println!("free disk {}", bytes(free)),
        None => {}
    }
    Ok(())
}
