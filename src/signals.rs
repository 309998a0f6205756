//! Ctrl-C and SIGTERM: the current unit of work is finished or dropped, the work stays resumable. A second signal ends the
//! process at once.

use crate::exit;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

static CANCEL: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
/// The first received signal; the listening thread counts the others.
static SIGNAL: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);
static SEEN: AtomicBool = AtomicBool::new(false);
static KEEPS_ITS_WORK: AtomicBool = AtomicBool::new(false);

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

/// Time for a command that saves no work to notice a signal. Below the two seconds that the documentation promises, since a
/// busy machine takes some of them.
const GRACE: Duration = Duration::from_millis(1000);

/// The error of a stopped command without its own error type.
#[derive(Debug, thiserror::Error)]
#[error("stopped")]
pub(crate) struct Stopped;

/// Blocks the signals until [`install`], also across the execution of another program.
#[cfg(unix)]
pub(crate) fn hold() {
    mask(libc::SIG_BLOCK);
}

#[cfg(not(unix))]
pub fn hold() {}

#[cfg(unix)]
fn mask(how: i32) {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the first call initializes the set that the others use; a null pointer for the old mask is allowed.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), SIGINT);
        libc::sigaddset(set.as_mut_ptr(), SIGTERM);
        libc::pthread_sigmask(how, set.as_ptr(), std::ptr::null_mut());
    }
}

/// Starts to listen and unblocks the signals since [`hold`]: [`cancelled`] includes them when this returns.
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

/// Makes writing beyond `ulimit -f` an error with a message, instead of a signal that ends the process without one.
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
            if !is_part() {
                eprintln!("tokengrid: stopping (again to stop at once)");
            }
            if let Answer::EndAfter(grace) = answer {
                let end = move || end_after(grace, code);
                let _ = std::thread::Builder::new().name("grace".into()).spawn(end);
            }
        }
    };
    // Without the thread a signal has its default action.
    let _ = std::thread::Builder::new().name("signals".into()).spawn(listen);
}

/// Reaction to a signal.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// The command polls the flag, and ends when its work is saved.
    Wait,
    /// The command may poll the flag; after the time limit the process is ended.
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

/// From now on a signal waits for the command to finish and save its current work, however long that takes: a step and its
/// checkpoint, a batch and its shard. Every other command ends within two seconds, wherever it is: files are written
/// atomically, so the state is that after a kill.
pub(crate) fn keep_work() {
    KEEPS_ITS_WORK.store(true, Ordering::SeqCst);
}

fn end_after(grace: Duration, code: u8) {
    std::thread::sleep(grace);
    if !is_part() {
        eprintln!("tokengrid: {Stopped}");
    }
    exit::leave_at_once(code);
}

/// The variable by which a command tells those that it runs that they are parts of it: it reports itself that it was stopped, and
/// how to go on.
pub(crate) const PART: &str = "TOKENGRID_PART_OF";

/// Whether another command runs this one as a part of it.
pub(crate) fn is_part() -> bool {
    std::env::var_os(PART).is_some()
}

/// The flag that long work polls.
pub(crate) fn flag() -> &'static AtomicBool {
    &CANCEL
}

/// Whether a signal was received.
pub(crate) fn cancelled() -> bool {
    CANCEL.load(Ordering::SeqCst)
}

/// 130 after Ctrl-C, 143 after SIGTERM; the signal may have reached another process of the run.
pub(crate) fn exit_code() -> u8 {
    match SIGNAL.load(Ordering::SeqCst) {
        0 => 128 + SIGTERM as u8,
        signal => 128 + signal as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The documented limit for commands that keep no work.
    const PROMISED: Duration = Duration::from_secs(2);

    #[test]
    fn a_command_that_keeps_no_work_has_less_than_the_promised_time() {
        let Answer::EndAfter(grace) = answer(false, false) else { panic!("it is ended") };
        assert!(grace <= PROMISED / 2, "the rest is a reserve for a busy machine");
    }

    #[test]
    fn kept_work_is_waited_for_and_a_second_signal_waits_for_nothing() {
        assert_eq!(answer(false, true), Answer::Wait);
        assert_eq!([true, false].map(|keeps| answer(true, keeps)), [Answer::EndAtOnce, Answer::EndAtOnce]);
    }
}
