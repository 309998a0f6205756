//! Stand-in for the module `torch`: the commands that compute with libtorch are in `tokengrid-torch`, beside this program.
//!
//! Loading libtorch takes longer than most commands that do not need it. So this program is not linked to it, and executes
//! the other one in its place where needed: in the same process, with the same arguments, signals and exit codes.

use crate::args::{BenchCommand, Command, FindArgs, Global, ImportArgs, MadeOfArgs, ShowArgs};
use std::error::Error;
use std::path::Path;
use tokengrid_cache::{BitOrder, FrameSet, Manifest, TokenCache, TokenizerInfo};

#[path = "installed_torch.rs"]
mod installed_torch;

/// Whether this program is the one with libtorch.
pub(crate) const IS_HERE: bool = false;

const PROGRAM: &str = "tokengrid-torch";

/// Replaces this process by the other program. Returns only if that fails.
pub(crate) fn hand_over() -> anyhow::Error {
    crate::signals::hold();
    // A signal that came before was received by this program's thread.
    if crate::signals::cancelled() {
        return crate::signals::Stopped.into();
    }
    let own = match std::env::current_exe() {
        Ok(own) => own,
        Err(error) => return anyhow::Error::from(error).context("cannot find the path of this program"),
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

pub(crate) fn find_near_image(_: &TokenCache, _: &FindArgs, _: &Global) -> anyhow::Result<()> {
    Err(hand_over())
}

pub(crate) fn bit_order(_: &FrameSet, _: &ImportArgs, _: &Global) -> anyhow::Result<(Option<BitOrder>, String)> {
    Err(hand_over())
}

pub(crate) fn tokenizer_identity(_: &ImportArgs, _: &Global) -> anyhow::Result<(TokenizerInfo, u32)> {
    Err(hand_over())
}

pub(crate) fn show_picture(_: &Manifest, _: &[u32], _: &ShowArgs, _: &Global) -> anyhow::Result<()> {
    Err(hand_over())
}

/// There is nothing to report at the start.
pub(crate) fn begin() {}

/// No panic of this program comes from libtorch.
pub(crate) fn is_expected_panic(_: &str) -> bool {
    false
}

/// No error of this program comes from the other one's libraries.
pub(crate) fn is_cancelled(_: &(dyn Error + 'static)) -> bool {
    false
}

/// As [`is_cancelled`].
pub(crate) fn is_usage(_: &(dyn Error + 'static)) -> bool {
    false
}
