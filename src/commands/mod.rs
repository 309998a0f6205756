//! One module a command.

mod bench;
mod cache;
#[cfg(feature = "torch")]
mod decoder;
#[cfg(feature = "torch")]
mod eval;
mod ingest;
#[cfg(feature = "torch")]
mod model;
#[cfg(feature = "torch")]
mod plot;
#[cfg(feature = "torch")]
mod reconstruct;
#[cfg(feature = "torch")]
mod sample;
#[cfg(feature = "torch")]
mod tokenize;
#[cfg(feature = "torch")]
mod train;
#[cfg(feature = "torch")]
mod training_memory;
#[cfg(feature = "torch")]
mod training_samples;
mod view;
#[cfg(feature = "torch")]
mod weights;

use crate::args::{Cli, Command};

/// Runs what was typed.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    let global = &cli.global;
    if let Some(bytes) = global.memory {
        tokengrid_ingest::set_memory_budget(bytes);
    }
    match cli.command {
        Command::Ingest(args) => ingest::run(&args, global),
        Command::Cache(args) => cache::run(&args.command, global),
        Command::View(args) => view::run(&args, global),
        Command::Bench(args) => bench::run(&args.command, global),
        #[cfg(feature = "torch")]
        Command::Tokenize(args) => tokenize::run(&args, global),
        #[cfg(feature = "torch")]
        Command::Reconstruct(args) => reconstruct::run(&args, global),
        #[cfg(feature = "torch")]
        Command::Weights(args) => weights::run(&args.command, global),
        #[cfg(feature = "torch")]
        Command::Train(args) => train::run(&args.command, global),
        #[cfg(feature = "torch")]
        Command::Sample(args) => sample::run(&args, global),
        #[cfg(feature = "torch")]
        Command::Eval(args) => eval::run(&args.command, global),
    }
}

/// Whether a command may take hours: its log begins with a heading.
pub fn is_job(command: &Command) -> bool {
    #[cfg(feature = "torch")]
    if matches!(command, Command::Tokenize(_) | Command::Train(_) | Command::Sample(_)) {
        return true;
    }
    matches!(command, Command::Ingest(_))
}

/// Whether a command that is stopped finishes a piece of work and keeps it, however long that takes. Training does so from its
/// first step on: before that there is nothing to keep.
pub fn keeps_work(command: &Command) -> bool {
    #[cfg(feature = "torch")]
    if matches!(command, Command::Tokenize(_) | Command::Sample(_)) {
        return true;
    }
    matches!(command, Command::Ingest(_))
}
