//! Programs that are stopped at a definite moment.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Timeout after which a program counts as hanging, on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program, outside of any launcher.
pub(crate) fn program() -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("tokengrid"));
    for name in ["RANK", "WORLD_SIZE", "SLURM_STEP_ID", "SLURM_PROCID", "SLURM_NTASKS", "TOKENGRID_LOG"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// A command that runs, and is killed if its test fails.
pub(crate) struct Started {
    child: Child,
    stderr: PathBuf,
    _folder: tempfile::TempDir,
}

impl Started {
    fn new(arguments: &[&str]) -> Started {
        let folder = tempfile::tempdir().unwrap();
        let stderr = folder.path().join("stderr");
        let mut command = program();
        command.args(arguments).stdout(Stdio::null()).stderr(fs::File::create(&stderr).unwrap());
        Started { child: command.spawn().unwrap(), stderr, _folder: folder }
    }

    /// Runs until the thread that listens to signals exists: before that, at most the arguments are parsed.
    pub(crate) fn listening(arguments: &[&str]) -> Started {
        let started = Started::new(arguments);
        let tasks = PathBuf::from(format!("/proc/{}/task", started.child.id()));
        let listens = || {
            let names = fs::read_dir(&tasks).into_iter().flatten().flatten();
            let mut names = names.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
            names.any(|name| name.trim() == "signals")
        };
        started.once(arguments, &listens)
    }

    /// Runs until `reached`, or until the command has ended.
    pub(crate) fn until(arguments: &[&str], reached: impl Fn() -> bool) -> Started {
        Started::new(arguments).once(arguments, &reached)
    }

    fn once(mut self, arguments: &[&str], reached: &dyn Fn() -> bool) -> Started {
        let since = Instant::now();
        while !reached() && self.child.try_wait().unwrap().is_none() {
            assert!(since.elapsed() < PATIENCE, "{arguments:?} never reached the state: {}", self.said());
            std::thread::sleep(Duration::from_millis(2));
        }
        self
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Sends the signal; returns how the command ends, and its stderr.
    pub(crate) fn stop(mut self, signal: i32) -> (ExitStatus, String) {
        if self.child.try_wait().unwrap().is_none() {
            // SAFETY: a signal to a child that was started here and has not been waited for.
            assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
        }
        let status = wait_for(&mut self.child);
        (status, self.said())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // Both fail if it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The exit status of a child; the test fails if it does not end.
pub(crate) fn wait(mut child: Child) -> ExitStatus {
    wait_for(&mut child)
}

fn wait_for(child: &mut Child) -> ExitStatus {
    let since = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if since.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("still running after {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a command to which the signal was sent before its first instruction.
pub(crate) fn pending(arguments: &[&str], signal: i32) -> (ExitStatus, String) {
    let mut command = program();
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
    // SAFETY: nothing but signals are dealt with between the two programs.
    unsafe { command.pre_exec(move || hold_and_raise(&[signal])) };
    let mut child = command.spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let status = wait_for(&mut child);
    let mut said = String::new();
    stderr.read_to_string(&mut said).unwrap();
    (status, said)
}

/// SIGINT and SIGTERM stay pending until a thread listens for them.
pub(crate) fn hold_and_raise_both() -> std::io::Result<()> {
    hold_and_raise(&[libc::SIGINT, libc::SIGTERM])
}

fn hold_and_raise(signals: &[i32]) -> std::io::Result<()> {
    // SAFETY: the set is filled before it is used; both calls may be made between fork and exec.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut set);
        signals.iter().for_each(|&signal| _ = libc::sigaddset(&mut set, signal));
        libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        signals.iter().for_each(|&signal| _ = libc::kill(libc::getpid(), signal));
    }
    Ok(())
}
