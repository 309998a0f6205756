//! `tokengrid bench loader`: grids per second from a cache, in shuffled order, on one thread.

use super::machine::{Machine, machine};
use crate::args::{BenchLoaderArgs, Global};
use crate::terminal::print_json;
use anyhow::Context;
use serde::Serialize;
use std::sync::Arc;
use tokengrid_cache::{LoaderBench, LoaderFigures, TokenCache, write_synthetic_cache};

#[derive(Debug, Serialize)]
struct Figures {
    machine: Machine,
    cache: String,
    unit: &'static str,
    #[serde(flatten)]
    loader: LoaderFigures,
}

/// Runs the command.
pub(super) fn run(args: &BenchLoaderArgs, global: &Global) -> anyhow::Result<()> {
    let machine = machine();
    // The folder is removed when this is dropped.
    let made = args.dir.is_none().then(|| tempfile::tempdir().context("cannot make a temporary folder")).transpose()?;
    let dir = match (&args.dir, &made) {
        (Some(dir), _) => dir.clone(),
        (None, Some(made)) => made.path().join("cache"),
        (None, None) => unreachable!("one of them is there"),
    };
    if made.is_some() {
        write_synthetic_cache(&dir, args.rows, 1)?;
    }
    let cache = Arc::new(TokenCache::open_with(&dir, args.access.access())?);
    let settings = LoaderBench { repeats: args.rounds as usize, samples: args.samples, ..LoaderBench::default() };
    let loader = settings.run(&cache)?;
    let cache = if made.is_some() { format!("{} random grids", args.rows) } else { dir.display().to_string() };
    let figures = Figures { machine, cache, unit: "grids", loader };
    if global.json {
        return print_json(&figures);
    }
    let Figures { machine, cache, loader, .. } = &figures;
    println!("{} ({} cores), load {:.1}; {}", machine.processor, machine.cores, machine.load, machine.version);
    println!("{cache}: {} rows of {} tokens of {} bits", loader.rows, loader.num_tokens, loader.bits);
    let million = |rate: f64| rate / 1e6;
    println!(
        "as training reads, batches of {}:   {:6.2} M grids/s on a core",
        loader.settings.batch_size,
        million(loader.grids_per_second)
    );
    println!("choosing rows alone:               {:6.2} M grids/s", million(loader.rows_chosen_per_second));
    println!(
        "unpacking alone ({}):            {:6.2} M grids/s",
        loader.kernel,
        million(loader.unpack_grids_per_second)
    );
    Ok(())
}
