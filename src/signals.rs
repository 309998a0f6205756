//! Ctrl-C and SIGTERM: the work in hand is finished or dropped, everything stays resumable. A second signal ends at once.

use crate::exit;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

static CANCEL: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
static SIGNAL: AtomicU8 = AtomicU8::new(0);
static KEEPS_ITS_WORK: AtomicBool = AtomicBool::new(false);

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

/// How long a command that keeps no work may take to notice a signal.
const GRACE: Duration = Duration::from_millis(1500);

/// A command without an error type of its own was stopped.
#[derive(Debug, thiserror::Error)]
#[error("stopped")]
pub struct Stopped;

/// Starts to listen.
pub fn install() {
    let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]) else { return };
    let listen = move || {
        for signal in signals.forever() {
            let code = 128 + signal as u8;
            if SIGNAL.swap(signal as u8, Ordering::SeqCst) != 0 {
                exit::leave_at_once(code);
            }
            CANCEL.store(true, Ordering::SeqCst);
            eprintln!("tokengrid: stopping (again to stop at once)");
            if !KEEPS_ITS_WORK.load(Ordering::SeqCst) {
                let _ = std::thread::Builder::new().name("grace".into()).spawn(move || end_after_grace(code));
            }
        }
    };
    // Without the thread a signal does what it does to any program.
    let _ = std::thread::Builder::new().name("signals".into()).spawn(listen);
}

/// From now on the command is waited for, however long it takes to finish and keep the work in hand: a step and its
/// checkpoint, a batch and its shard. Every other command ends within two seconds, in the middle of what it does if it
/// must: what it writes appears under its final name when it is whole, as after a kill.
pub fn keep_work() {
    KEEPS_ITS_WORK.store(true, Ordering::SeqCst);
}

fn end_after_grace(code: u8) {
    std::thread::sleep(GRACE);
    eprintln!("tokengrid: {Stopped}");
    exit::leave_at_once(code);
}

/// The flag that long work looks at.
pub fn flag() -> &'static AtomicBool {
    &CANCEL
}

/// Whether a signal came.
pub fn cancelled() -> bool {
    CANCEL.load(Ordering::SeqCst)
}

/// 130 after Ctrl-C, 143 after SIGTERM.
pub fn exit_code() -> u8 {
    128 + SIGNAL.load(Ordering::SeqCst)
}
