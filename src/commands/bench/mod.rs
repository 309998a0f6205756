//! `tokengrid bench ...`: how fast a stage is on this machine, in a form that can be kept and compared.

mod clock;
#[cfg(feature = "torch")]
mod encode;
mod ingest;
mod loader;
mod machine;
#[cfg(feature = "torch")]
mod sample;
#[cfg(feature = "torch")]
mod train;

use crate::args::{BenchCommand, Global};

/// Runs the command.
pub fn run(command: &BenchCommand, global: &Global) -> anyhow::Result<()> {
    match command {
        BenchCommand::Ingest(args) => ingest::run(args, global),
        #[cfg(feature = "torch")]
        BenchCommand::Encode(args) => encode::run(args, global),
        BenchCommand::Loader(args) => loader::run(args, global),
        #[cfg(feature = "torch")]
        BenchCommand::Train(args) => train::run(args, global),
        #[cfg(feature = "torch")]
        BenchCommand::Sample(args) => sample::run(args, global),
    }
}
