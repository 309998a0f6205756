//! The commands that need no libtorch, one module each, and the dispatch of all commands.

pub(crate) mod bench;
pub(crate) mod cache;
pub(crate) mod completions;
pub(crate) mod ingest;
pub(crate) mod view;

use crate::args::{Cli, Command};
use crate::{launcher, torch};

/// Runs the parsed command.
pub(crate) fn run(cli: Cli) -> anyhow::Result<()> {
    let global = &cli.global;
    tokengrid_ingest::share_memory_budget(launcher::local_world_size().unwrap_or(1));
    if let Some(bytes) = global.memory {
        tokengrid_ingest::set_memory_budget(bytes);
    }
    match &cli.command {
        Command::Ingest(args) => ingest::run(args, global),
        Command::Cache(args) => cache::run(&args.command, global),
        Command::View(args) if args.tokenizer.is_none() && args.beside_tokenizer.is_none() => {
            view::run(args, None, None, global)
        }
        Command::Bench(args) => bench::run(&args.command, global),
        Command::Completions { shell } => completions::run(*shell),
        Command::Manuals { dir } => completions::manuals(dir),
        other => torch::run(other, global),
    }
}

/// Whether a command computes with libtorch. All others run without loading it.
pub(crate) fn needs_torch(command: &Command) -> bool {
    match command {
        Command::Ingest(_) | Command::Completions { .. } | Command::Manuals { .. } => false,
        Command::Cache(args) => cache::needs_torch(&args.command),
        Command::View(args) => args.tokenizer.is_some(),
        Command::Bench(args) => bench::needs_torch(&args.command),
        _ => true,
    }
}

/// Whether a command may take hours: its log begins with a heading.
pub(crate) fn is_job(command: &Command) -> bool {
    matches!(command, Command::Ingest(_) | Command::Tokenize(_) | Command::Train(_) | Command::Sample(_))
}

/// Whether a stopped command finishes and saves its current unit of work, however long that takes. Training does so only
/// from its first step on, when there is something to save. A demo waits for the command that it runs.
pub(crate) fn keeps_work(command: &Command) -> bool {
    match command {
        Command::Ingest(args) => args.out.is_some(),
        Command::Tokenize(args) => !args.dry_run,
        Command::Sample(_) | Command::Demo(_) => true,
        _ => false,
    }
}
