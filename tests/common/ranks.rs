//! Several real processes of one run, for tests.
#![allow(clippy::unwrap_used, dead_code)] // in a test, a panic is the report

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Timeout of everything, generous enough for any machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// A port that is free now.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts one process of a run under plain variables.
pub(crate) fn start_rank(arguments: &[String], rank: usize, world_size: usize, port: u16) -> Child {
    let program = Command::new(assert_cmd::cargo::cargo_bin("tokengrid"));
    start_as(program, arguments, (rank, world_size), ("127.0.0.1", port))
}

/// Starts process `member.0` of `member.1`, which connect to the store at `place`.
pub(crate) fn start_as(
    mut command: Command,
    arguments: &[String],
    member: (usize, usize),
    place: (&str, u16),
) -> Child {
    for name in ["SLURM_STEP_ID", "SLURM_PROCID", "SLURM_NTASKS", "TOKENGRID_LOG", "TORCHELASTIC_USE_AGENT_STORE"] {
        command.env_remove(name);
    }
    command
        .args(arguments)
        .env("RANK", member.0.to_string())
        .env("LOCAL_RANK", member.0.to_string())
        .env("WORLD_SIZE", member.1.to_string())
        .env("MASTER_ADDR", place.0)
        .env("MASTER_PORT", place.1.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Starts all processes of a run.
pub(crate) fn start(arguments: &[String], world_size: usize) -> Vec<Child> {
    let port = free_port();
    (0..world_size).map(|rank| start_rank(arguments, rank, world_size, port)).collect()
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit code.
    pub code: Option<i32>,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
}

/// Waits for the end of a process; one that does not end is killed, and the test fails.
#[track_caller]
pub(crate) fn end(mut child: Child) -> Ended {
    let mut pipes = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let reader = std::thread::spawn(move || {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        pipes.1.read_to_string(&mut stderr).unwrap();
        pipes.0.read_to_string(&mut stdout).unwrap();
        (stdout, stderr)
    });
    let status = wait_until(|| child.try_wait().unwrap());
    let Some(status) = status else {
        child.kill().unwrap();
        child.wait().unwrap();
        panic!("a process did not end: {:?}", reader.join().unwrap());
    };
    let (stdout, stderr) = reader.join().unwrap();
    Ended { code: status.code(), stdout, stderr }
}

/// Polls `look` until it returns a value; `None` after the timeout.
pub(crate) fn wait_until<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    loop {
        match look() {
            None if started.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(20)),
            found => return found,
        }
    }
}
