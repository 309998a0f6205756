//! `tokengrid cache ...`: one function a command.

mod bridge;
mod look;
mod plot;
#[cfg(feature = "torch")]
mod trust;

#[cfg(feature = "torch")]
pub use trust::with_job;

use crate::args::{CacheCommand, Global};

/// Runs the command.
pub fn run(command: &CacheCommand, global: &Global) -> anyhow::Result<()> {
    match command {
        CacheCommand::Info { dir } => look::info(dir, global),
        CacheCommand::Verify { dir } => look::check(dir, global),
        CacheCommand::Show { dir, index } => look::show(dir, *index, global),
        CacheCommand::Stats { dir, plot } => look::stats(dir, plot.as_deref(), global),
        CacheCommand::Import(args) => bridge::import(args, global),
        CacheCommand::Export { dir, format, out } => bridge::export(dir, *format, out, global),
        CacheCommand::Merge { out, inputs, overwrite } => bridge::merge(out, inputs, *overwrite, global),
        CacheCommand::Subset(args) => bridge::subset(args, global),
        #[cfg(feature = "torch")]
        CacheCommand::Repair { dir, made_of } => trust::repair(dir, made_of, global),
        #[cfg(feature = "torch")]
        CacheCommand::Check { dir, made_of, sample, seed } => trust::check(dir, made_of, *sample, *seed, global),
    }
}
