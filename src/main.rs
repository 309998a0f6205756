//! `tokengrid`: images to token grids, once; autoregressive image models from the cache.
//!
//! This package is the command line only: what was typed ([`args`]) is checked and handed to the libraries by one module a
//! command ([`commands`]). Answers go to stdout, progress and logs to stderr.

mod args;
mod commands;
mod exit;
mod files;
#[cfg(feature = "torch")]
mod ranks;
mod signals;
mod stopping;
mod terminal;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    terminal::init(&cli.global);
    exit::one_line_panics();
    signals::install();
    tokengrid_cache::cancel_with(signals::flag());
    tokengrid_cache::handle_lost_pages(tokengrid_cache::LostPages::End);
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}
