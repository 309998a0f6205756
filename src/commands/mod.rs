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

/// Whether a command is a job that may take hours, whose log is worth a heading.
pub fn is_long(command: &Command) -> bool {
    #[cfg(feature = "torch")]
    if matches!(command, Command::Eval(_)) {
        return true;
    }
    keeps_its_work(command)
}

/// Whether a command that is stopped finishes the work in hand and keeps it.
pub fn keeps_its_work(command: &Command) -> bool {
    #[cfg(feature = "torch")]
    if matches!(command, Command::Tokenize(_) | Command::Train(_) | Command::Sample(_)) {
        return true;
    }
    matches!(command, Command::Ingest(_))
}
