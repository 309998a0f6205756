//! `tokengrid bench ingest`: from files to views.
//!
//! Each round measures decoding alone on one thread, everything on one thread and everything on all threads. Files are read
//! once before, so that the page cache has them.

use super::clock::{Rate, Took, time};
use super::machine::{Machine, machine};
use crate::args::{BenchIngestArgs, Global};
use crate::commands::ingest as command;
use crate::signals::{self, Stopped};
use crate::terminal::{counted, print_json};
use anyhow::Context;
use serde::Serialize;
use std::sync::Arc;
use tokengrid_ingest::{BatchStream, Limits, Recipe, Source, StageTimes, StreamConfig, decode_rgb};

/// Views per batch: a typical size of an encoder call.
const BATCH_VIEWS: usize = 64;

#[derive(Debug, Serialize)]
struct Figures {
    machine: Machine,
    source: String,
    recipe: serde_json::Value,
    images: usize,
    bad: usize,
    megabytes: f64,
    threads: usize,
    unit: &'static str,
    /// Decoding of files to RGB alone, on one thread.
    decode_only: Rate,
    /// Files to views on one thread.
    one_thread: Rate,
    /// Files to views on `threads` threads.
    all_threads: Rate,
    /// `one_thread` over `decode_only`, by processor time.
    of_pure_decoding: f64,
    /// `all_threads` over `one_thread`, by wall time.
    scaling: f64,
    /// Share of each stage in the time of one thread.
    shares: Shares,
}

#[derive(Debug, Serialize)]
struct Shares {
    read: f64,
    decode: f64,
    resize: f64,
}

/// Runs the command.
pub(super) fn run(args: &BenchIngestArgs, global: &Global) -> anyhow::Result<()> {
    let machine = machine();
    let (source, recipe) = command::open(&args.source, false)?;
    let limits = command::limits(&args.source);
    let bench = Bench { source, recipe, limits };
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads = global.threads.map_or(cores, usize::from);
    let (bytes, good) = bench.warm_up()?;
    let mut took: [Vec<Took>; 3] = Default::default();
    let mut times = StageTimes::default();
    for _ in 0..args.rounds {
        took[0].push(time(|| bench.decode_all(&good))?.1);
        let (stages, one) = time(|| bench.stream(1))?;
        (times, _) = (stages, took[1].push(one));
        took[2].push(time(|| bench.stream(threads))?.1);
        if signals::cancelled() {
            return Err(Stopped.into());
        }
    }
    let images = bench.source.len();
    let rate = |count: usize, took: &[Took]| Rate::of(count as u64, took);
    let (decode_only, one_thread) = (rate(good.len(), &took[0]), rate(images, &took[1]));
    let all_threads = rate(images, &took[2]);
    let work = (times.read + times.decode + times.resize).as_secs_f64().max(1e-9);
    let share = |part: std::time::Duration| part.as_secs_f64() / work;
    let figures = Figures {
        machine,
        source: args.source.source.display().to_string(),
        recipe: serde_json::from_str(&recipe.to_json())?,
        images,
        bad: images - good.len(),
        megabytes: bytes as f64 / 1e6,
        threads,
        unit: "images",
        of_pure_decoding: one_thread.per_cpu_second / decode_only.per_cpu_second,
        scaling: all_threads.per_second / one_thread.per_second,
        shares: Shares { read: share(times.read), decode: share(times.decode), resize: share(times.resize) },
        decode_only,
        one_thread,
        all_threads,
    };
    if global.json { print_json(&figures) } else { print(&figures) }
}

struct Bench {
    source: Arc<Source>,
    recipe: Recipe,
    limits: Limits,
}

impl Bench {
    /// Reads and decodes everything once: bytes, and which images are good.
    fn warm_up(&self) -> anyhow::Result<(usize, Vec<usize>)> {
        let (mut file, mut bytes, mut good) = (Vec::new(), 0, vec![]);
        for index in 0..self.source.len() {
            if self.source.read(index, &mut file).is_ok() && decode_rgb(&file, &self.limits).is_ok() {
                good.push(index);
            }
            bytes += file.len();
            if signals::cancelled() {
                return Err(Stopped.into());
            }
        }
        anyhow::ensure!(!good.is_empty(), "no image of the source can be decoded: there is nothing to measure");
        Ok((bytes, good))
    }

    fn decode_all(&self, good: &[usize]) -> anyhow::Result<()> {
        let mut file = Vec::new();
        for &index in good {
            let key = self.source.key(index);
            self.source.read(index, &mut file).with_context(|| format!("cannot read {key}"))?;
            std::hint::black_box(decode_rgb(&file, &self.limits)?);
        }
        Ok(())
    }

    fn stream(&self, threads: usize) -> anyhow::Result<StageTimes> {
        let config = StreamConfig { threads, limits: self.limits, ..StreamConfig::default() };
        let order = 0..self.source.len();
        let mut stream = BatchStream::spawn(self.source.clone(), order, self.recipe, BATCH_VIEWS, config);
        stream.by_ref().for_each(|batch| drop(std::hint::black_box(batch)));
        Ok(stream.times())
    }
}

fn print(figures: &Figures) -> anyhow::Result<()> {
    let Figures { machine, images, bad, megabytes, threads, decode_only, one_thread, all_threads, .. } = figures;
    println!("{} ({} cores), load {:.1}; {}", machine.processor, machine.cores, machine.load, machine.version);
    let images = counted(*images, "image");
    println!("{images} ({bad} bad), {megabytes:.0} MB, recipe {}", figures.recipe);
    let line = |what: &str, rate: &Rate| {
        println!("{what:<24} {:8.0} images/s {:8.0} images/CPU s", rate.per_second, rate.per_cpu_second);
    };
    line("decoding only, 1 thread", decode_only);
    line("everything, 1 thread", one_thread);
    line(&format!("everything, {threads} threads"), all_threads);
    println!("{:.2} of decoding alone; {:.2} x on {threads} threads", figures.of_pure_decoding, figures.scaling);
    let Shares { read, decode, resize } = figures.shares;
    println!("read {:.0} %, decode {:.0} %, resize {:.0} % of the work", 100.0 * read, 100.0 * decode, 100.0 * resize);
    Ok(())
}
