//! `tokengrid completions`, and the manual pages that `make install` puts in place.

use crate::args::Cli;
use clap::CommandFactory;
use clap_complete::Shell;
use std::path::Path;

/// Prints the completions of a shell.
pub(crate) fn run(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tokengrid", &mut script);
    crate::output::print_raw(&String::from_utf8(script)?);
    Ok(())
}

/// Writes a manual page for the program and one for each command to a folder that exists.
pub(crate) fn manuals(dir: &Path) -> anyhow::Result<()> {
    Ok(clap_mangen::generate_to(Cli::command(), dir)?)
}
