//! `tokengrid cache ...`: one function per command.

mod clean;
mod import_export;
mod info;
mod inspect;
mod made;
mod made_by;
mod merge_subset;
mod names;
pub(crate) mod near;
mod plot;
pub(crate) mod rows;
pub(crate) mod table;
mod verify;

pub(crate) use inspect::inspection_folder;

use crate::args::{CacheCommand, Global};

/// Runs the command.
pub(crate) fn run(command: &CacheCommand, global: &Global) -> anyhow::Result<()> {
    match command {
        CacheCommand::Info { dir } => info::info(dir, global),
        CacheCommand::Verify { dir } => verify::verify(dir, global),
        CacheCommand::Show(args) => rows::show(args, global),
        CacheCommand::Head { dir, rows } => rows::head(dir, *rows, global),
        CacheCommand::Find(args) if args.near.is_some() => near::find(args, global),
        CacheCommand::Find(args) => rows::find(args, global),
        CacheCommand::Leak(args) => near::leak(args, global),
        CacheCommand::Stats { dir, plot } => inspect::stats(dir, plot.as_deref(), global),
        CacheCommand::Classes { dir, sort, plot } => inspect::classes(dir, *sort, plot.as_deref(), global),
        CacheCommand::Names { dir, file, remove } => names::names(dir, file.as_deref(), *remove, global),
        CacheCommand::Diff { a, b, limit } => inspect::diff(a, b, *limit, global),
        CacheCommand::Import(args) => import_export::import(args, global),
        CacheCommand::Export(args) => import_export::export(args, global),
        CacheCommand::Merge { out, inputs, overwrite } => merge_subset::merge(out, inputs, *overwrite, global),
        CacheCommand::Subset(args) => merge_subset::subset(args, global),
        CacheCommand::Clean { url, unfinished } => clean::clean(url, *unfinished, global),
        CacheCommand::Repair { dir, made_of } => crate::torch::repair(dir, made_of, global),
        CacheCommand::Check { dir, made_of, sample, seed } => crate::torch::check(dir, made_of, *sample, *seed, global),
    }
}

/// Whether the command encodes images or decodes tokens.
pub(crate) fn needs_torch(command: &CacheCommand) -> bool {
    match command {
        CacheCommand::Repair { .. } | CacheCommand::Check { .. } => true,
        CacheCommand::Show(args) => rows::needs_torch(args),
        CacheCommand::Find(args) => near::needs_torch(args),
        CacheCommand::Import(args) => args.tokenizer.is_some(),
        _ => false,
    }
}
