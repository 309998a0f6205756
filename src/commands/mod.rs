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
use crate::stopping;

/// Runs what was typed.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    let global = &cli.global;
    if is_droppable(&cli.command) {
        stopping::drop_when_stopped();
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

/// Whether the command may end at any moment: it writes nothing, or nothing that the same command could not go on from.
/// The others bring what they have in hand to a safe end.
fn is_droppable(command: &Command) -> bool {
    match command {
        Command::Cache(_) | Command::Bench(_) => true,
        #[cfg(feature = "torch")]
        Command::Eval(_) | Command::Weights(_) => true,
        _ => false,
    }
}
