//! `tokengrid bench ...`: speed of one stage on this machine, reported with the machine so that results can be compared.

pub(crate) mod clock;
mod ingest;
mod loader;
pub(crate) mod machine;

use crate::args::{BenchCommand, Global};

/// Runs the command.
pub(crate) fn run(command: &BenchCommand, global: &Global) -> anyhow::Result<()> {
    match command {
        BenchCommand::Ingest(args) => ingest::run(args, global),
        BenchCommand::Loader(args) => loader::run(args, global),
        _ => crate::torch::bench(command, global),
    }
}

/// Whether the stage needs libtorch.
pub(crate) fn needs_torch(command: &BenchCommand) -> bool {
    !matches!(command, BenchCommand::Ingest(_) | BenchCommand::Loader(_))
}
