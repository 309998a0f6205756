//! `tokengrid cache ...`: one function a command.

mod bridge;
#[cfg(feature = "torch")]
mod check;
mod inspect;
mod look;
#[cfg(feature = "torch")]
mod origin;
#[cfg(feature = "torch")]
mod picture;
mod plot;
#[cfg(feature = "torch")]
mod repair;
mod rows;
mod table;

#[cfg(feature = "torch")]
pub use origin::with_job;

pub use inspect::inspection_folder;

use crate::args::{CacheCommand, Global};

/// Runs the command.
pub fn run(command: &CacheCommand, global: &Global) -> anyhow::Result<()> {
    match command {
        CacheCommand::Info { dir } => look::info(dir, global),
        CacheCommand::Verify { dir } => look::check(dir, global),
        CacheCommand::Show(args) => rows::show(args, global),
        CacheCommand::Head { dir, rows } => rows::head(dir, *rows, global),
        CacheCommand::Find(args) => rows::find(args, global),
        CacheCommand::Stats { dir, plot } => inspect::stats(dir, plot.as_deref(), global),
        CacheCommand::Classes { dir, sort, plot } => inspect::classes(dir, *sort, plot.as_deref(), global),
        CacheCommand::Diff { a, b, limit } => inspect::diff(a, b, *limit, global),
        CacheCommand::Import(args) => bridge::import(args, global),
        CacheCommand::Export { dir, format, out } => bridge::export(dir, *format, out, global),
        CacheCommand::Merge { out, inputs, overwrite } => bridge::merge(out, inputs, *overwrite, global),
        CacheCommand::Subset(args) => bridge::subset(args, global),
        #[cfg(feature = "torch")]
        CacheCommand::Repair { dir, made_of } => repair::repair(dir, made_of, global),
        #[cfg(feature = "torch")]
        CacheCommand::Check { dir, made_of, sample, seed } => check::check(dir, made_of, *sample, *seed, global),
    }
}
