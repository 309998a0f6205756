//! Ctrl-C and SIGTERM: the work in hand is finished or dropped, everything stays resumable. A second signal ends at once.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, LazyLock};

static CANCEL: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
static SIGNAL: AtomicU8 = AtomicU8::new(0);

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

/// A command without an error type of its own was stopped.
#[derive(Debug, thiserror::Error)]
#[error("stopped; run the same command again to go on")]
pub struct Stopped;

/// Starts to listen.
pub fn install() {
    let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]) else { return };
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if SIGNAL.swap(signal as u8, Ordering::SeqCst) != 0 {
                std::process::exit(128 + signal);
            }
            CANCEL.store(true, Ordering::SeqCst);
            eprintln!("tokengrid: stopping (again to stop at once)");
        }
    });
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
