//! The commands that compute with libtorch are in a program of their own, `tokengrid-torch`, which lies beside this one.
//!
//! Loading libtorch takes longer than most commands that do without it. So this program is not linked to it, and becomes the
//! other one where it is needed: the same process, the same arguments, the same signals and exit codes.

use crate::args::{BenchCommand, Command, Global, ImportArgs, MadeOfArgs, ShowArgs};
use std::error::Error;
use std::path::Path;
use tokengrid_cache::{BitOrder, FrameSet, TokenCache};

#[path = "installed_torch.rs"]
mod installed_torch;

/// Whether this program is the one with libtorch.
pub(crate) const IS_HERE: bool = false;

const PROGRAM: &str = "tokengrid-torch";

/// Becomes the other program. Returns only when that fails.
pub(crate) fn hand_over() -> anyhow::Error {
    crate::signals::hold();
    // One that came before has been told to this program's thread.
    if crate::signals::cancelled() {
        return crate::signals::Stopped.into();
    }
    let own = match std::env::current_exe() {
        Ok(own) => own,
        Err(error) => return anyhow::Error::from(error).context("cannot tell where this program lies"),
    };
    let program = own.with_file_name(PROGRAM);
    let libraries = match installed_torch::libraries_for(&own) {
        Ok(Some(_)) if !program.exists() => return installed_torch::missing(&program),
        Ok(libraries) => libraries,
        Err(error) => return error,
    };
    let error = replace_by(&program, libraries.as_deref());
    if error.kind() == std::io::ErrorKind::NotFound {
        return anyhow::anyhow!(
            "{} is missing: this command needs libtorch, and {PROGRAM} is the part of tokengrid that has it. Install both \
             programs into one folder (`make install`); `cargo build --release` makes both",
            program.display()
        );
    }
    anyhow::Error::from(error).context(format!("cannot start {}", program.display()))
}

#[cfg(unix)]
fn replace_by(program: &Path, libraries: Option<&Path>) -> std::io::Error {
    use std::os::unix::process::CommandExt;
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| "tokengrid".into());
    let mut command = std::process::Command::new(program);
    if let Some(libraries) = libraries {
        command.env("LD_LIBRARY_PATH", installed_torch::search_path(libraries));
    }
    command.arg0(name).args(arguments).exec()
}

#[cfg(not(unix))]
fn replace_by(program: &Path, _: Option<&Path>) -> std::io::Error {
    match std::process::Command::new(program).args(std::env::args_os().skip(1)).status() {
        Ok(status) => std::process::exit(status.code().unwrap_or(1)),
        Err(error) => error,
    }
}

pub(crate) fn run(_: &Command, _: &Global) -> anyhow::Result<()> {
    Err(hand_over())
}

pub(crate) fn bench(_: &BenchCommand, _: &Global) -> anyhow::Result<()> {
    Err(hand_over())
}

pub(crate) fn check(_: &Path, _: &MadeOfArgs, _: u32, _: u64, _: &Global) -> anyhow::Result<()> {
    Err(hand_over())
}

pub(crate) fn repair(_: &Path, _: &MadeOfArgs, _: &Global) -> anyhow::Result<()> {
    Err(hand_over())
}

pub(crate) fn bit_order(_: &FrameSet, _: &ImportArgs, _: &Global) -> anyhow::Result<(Option<BitOrder>, String)> {
    Err(hand_over())
}

pub(crate) fn show_picture(_: &TokenCache, _: &[u32], _: &ShowArgs, _: &Global) -> anyhow::Result<()> {
    Err(hand_over())
}

/// Nothing needs to be said at the start.
pub(crate) fn begin() {}

/// No panic here comes from libtorch.
pub(crate) fn is_expected_panic(_: &str) -> bool {
    false
}

/// No error here comes from the other program's libraries.
pub(crate) fn is_cancelled(_: &(dyn Error + 'static)) -> bool {
    false
}

/// As [`is_cancelled`].
pub(crate) fn is_usage(_: &(dyn Error + 'static)) -> bool {
    false
}
