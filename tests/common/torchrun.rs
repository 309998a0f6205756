//! A real `torchrun`, for tests.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

use super::ranks::free_port;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tokengrid_test_support::torch_environment;

/// `torchrun`: the one that `TOKENGRID_TORCHRUN` names, the one on PATH, or that of PyTorch in a separate environment.
#[track_caller]
pub(crate) fn torchrun() -> Option<Command> {
    let in_path = std::env::var_os("PATH").and_then(|path| {
        let programs = std::env::split_paths(&path).map(|folder| folder.join("torchrun"));
        programs.into_iter().find(|program| program.is_file())
    });
    let named = std::env::var_os("TOKENGRID_TORCHRUN").map(PathBuf::from);
    let in_environment = || Some(torch_environment()?.join("bin/torchrun"));
    named.or(in_path).or_else(in_environment).map(Command::new)
}

/// Starts two processes of a run, again after up to `restarts` failures.
pub(crate) fn start_torchrun(mut torchrun: Command, restarts: u32, arguments: &[String]) -> Child {
    for name in ["RANK", "WORLD_SIZE", "SLURM_STEP_ID"] {
        torchrun.env_remove(name);
    }
    let port = free_port().to_string();
    torchrun
        .args(["--nnodes", "1", "--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port", &port])
        .args(["--max-restarts", &restarts.to_string(), "--no-python"])
        .arg(assert_cmd::cargo::cargo_bin("tokengrid"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    torchrun.spawn().unwrap()
}
