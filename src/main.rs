//! `tokengrid`: images to token grids, once; autoregressive image models from the cache.
//!
//! This package is the command line only: what was typed ([`args`]) is checked and handed to the libraries by one module a
//! command ([`commands`]). Answers go to stdout, progress and logs to stderr.

// First, since its macros take the place of the standard ones in every module that follows.
#[macro_use]
mod output;

mod args;
mod commands;
mod exit;
mod files;
mod log;
#[cfg(all(feature = "torch", target_os = "linux", target_env = "gnu"))]
mod openmp;
mod panics;
mod printable;
#[cfg_attr(not(feature = "torch"), allow(dead_code))] // only jobs that need libtorch have ranks
mod ranks;
mod signals;
mod terminal;
mod threads;
#[cfg(target_os = "linux")]
mod working_folder;

use clap::Parser;

fn main() {
    panics::install();
    let code = match args::Cli::try_parse() {
        Ok(cli) => run(cli),
        Err(refusal) => refuse(&refusal),
    };
    exit::leave(code)
}

fn run(mut cli: args::Cli) -> u8 {
    output::expect_json(cli.global.json);
    log::init(&cli.global);
    #[cfg(target_os = "linux")]
    working_folder::warn_if_deleted();
    cli.global.threads = threads::choose(cli.global.threads);
    signals::install();
    tokengrid_cache::cancel_with(signals::flag());
    tokengrid_cache::handle_lost_pages(tokengrid_cache::LostPages::End);
    if commands::is_job(&cli.command) {
        log::heading(&cli.global);
    }
    if commands::keeps_work(&cli.command) {
        signals::keep_work();
    }
    exit::code_of(|| commands::run(cli))
}

/// Prints what is wrong with the line that was typed, or the help that was asked for.
fn refuse(refusal: &clap::Error) -> u8 {
    let _ = refusal.print();
    let code = refusal.exit_code() as u8;
    if code != 0 {
        output::expect_json(std::env::args_os().any(|word| word == "--json"));
        let text = refusal.to_string();
        let first = text.lines().next().unwrap_or_default();
        output::print_failure(first.trim_start_matches("error: "), code);
    }
    code
}
