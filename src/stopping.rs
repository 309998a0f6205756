//! The end of commands that have nothing to bring to a safe end, however busy they are.

use crate::signals;
use std::time::Duration;

/// Between two looks for a signal.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Time for the command to end by itself, and to remove what it was writing.
const GRACE: Duration = Duration::from_millis(1200);

/// From now on the process ends a moment after a signal, with its exit code, even in the midst of a long computation.
pub fn drop_when_stopped() {
    std::thread::spawn(|| {
        while !signals::cancelled() {
            std::thread::sleep(LOOK_EVERY);
        }
        std::thread::sleep(GRACE);
        eprintln!("tokengrid: stopped");
        // SAFETY: ends the process without running destructors, which other threads may still be in need of.
        unsafe { libc::_exit(i32::from(signals::exit_code())) }
    });
}
