//! Ctrl-C and SIGTERM: the current unit of work is finished or dropped, everything stays resumable. A second signal ends at once.

use crate::exit;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

static CANCEL: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
/// The first signal that came; the others are counted by the thread that listens.
static SIGNAL: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);
static SEEN: AtomicBool = AtomicBool::new(false);
static KEEPS_ITS_WORK: AtomicBool = AtomicBool::new(false);

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

/// How long a command that keeps no work may take to notice a signal.
/// Less than the two seconds that it has: a busy machine takes some of them.
const GRACE: Duration = Duration::from_millis(1000);

/// A command without an error type of its own was stopped.
#[derive(Debug, thiserror::Error)]
#[error("stopped")]
pub(crate) struct Stopped;

/// Signals wait from now on, also while this process becomes another program, until [`install`].
#[cfg(unix)]
pub(crate) fn hold() {
    mask(libc::SIG_BLOCK);
}

#[cfg(not(unix))]
pub fn hold() {}

#[cfg(unix)]
fn mask(how: i32) {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the first call makes the set, the others are given it; the old mask is not asked for.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), SIGINT);
        libc::sigaddset(set.as_mut_ptr(), SIGTERM);
        libc::pthread_sigmask(how, set.as_ptr(), std::ptr::null_mut());
    }
}

/// Starts to listen, and lets through what came since [`hold`]: [`cancelled`] knows of that when this returns.
pub(crate) fn install() {
    for signal in [SIGINT, SIGTERM] {
        let _ = signal_hook::flag::register_usize(signal, SIGNAL.clone(), signal as usize);
        let _ = signal_hook::flag::register(signal, CANCEL.clone());
    }
    listen();
    #[cfg(unix)]
    mask(libc::SIG_UNBLOCK);
    #[cfg(unix)]
    fail_beyond_file_limits();
}

/// Writing beyond `ulimit -f` is an error with a message, instead of a signal that ends the process without one.
#[cfg(unix)]
fn fail_beyond_file_limits() {
    // SAFETY: no handler is installed; the signal is ignored from now on.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

fn listen() {
    let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]) else { return };
    let listen = move || {
        for signal in signals.forever() {
            let code = 128 + signal as u8;
            let answer = answer(SEEN.swap(true, Ordering::SeqCst), KEEPS_ITS_WORK.load(Ordering::SeqCst));
            if answer == Answer::EndAtOnce {
                exit::leave_at_once(code);
            }
            eprintln!("tokengrid: stopping (again to stop at once)");
            if let Answer::EndAfter(grace) = answer {
                let end = move || end_after(grace, code);
                let _ = std::thread::Builder::new().name("grace".into()).spawn(end);
            }
        }
    };
    // Without the thread a signal does what it does to any program.
    let _ = std::thread::Builder::new().name("signals".into()).spawn(listen);
}

/// What a signal does.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// The command looks at the flag, and ends when what it keeps is kept.
    Wait,
    /// The command may look at the flag; if it has not ended by then, it is ended.
    EndAfter(Duration),
    EndAtOnce,
}

fn answer(is_second: bool, keeps_its_work: bool) -> Answer {
    match (is_second, keeps_its_work) {
        (true, _) => Answer::EndAtOnce,
        (false, true) => Answer::Wait,
        (false, false) => Answer::EndAfter(GRACE),
    }
}

/// From now on the command is waited for, however long it takes to finish and keep the current work: a step and its
/// checkpoint, a batch and its shard. Every other command ends within two seconds, in the middle of what it does if it
/// must: what it writes appears under its final name when it is whole, as after a kill.
pub(crate) fn keep_work() {
    KEEPS_ITS_WORK.store(true, Ordering::SeqCst);
}

fn end_after(grace: Duration, code: u8) {
    std::thread::sleep(grace);
    eprintln!("tokengrid: {Stopped}");
    exit::leave_at_once(code);
}

/// The flag that long work looks at.
pub(crate) fn flag() -> &'static AtomicBool {
    &CANCEL
}

/// Whether a signal came.
pub(crate) fn cancelled() -> bool {
    CANCEL.load(Ordering::SeqCst)
}

/// 130 after Ctrl-C, 143 after SIGTERM, which may have been another process's of the same run.
pub(crate) fn exit_code() -> u8 {
    match SIGNAL.load(Ordering::SeqCst) {
        0 => 128 + SIGTERM as u8,
        signal => 128 + signal as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the documentation promises for commands that keep no work.
    const PROMISED: Duration = Duration::from_secs(2);

    #[test]
    fn a_command_that_keeps_no_work_has_less_than_the_promised_time() {
        let Answer::EndAfter(grace) = answer(false, false) else { panic!("it is ended") };
        assert!(grace <= PROMISED / 2, "a busy machine takes some of it");
    }

    #[test]
    fn kept_work_is_waited_for_and_a_second_signal_waits_for_nothing() {
        assert_eq!(answer(false, true), Answer::Wait);
        assert_eq!([true, false].map(|keeps| answer(true, keeps)), [Answer::EndAtOnce, Answer::EndAtOnce]);
    }
}
