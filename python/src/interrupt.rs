//! Long work that Ctrl-C ends.
//!
//! Python runs its signal handlers on the main thread, between two steps of the interpreter. While that thread is with us no handler
//! runs. So work is either done by another thread, while the main thread checks for signals ([`run`]), or in pieces, between
//! which it asks ([`in_pieces`]).

use crate::errors;
use pyo3::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use tokengrid_cache::CacheError;

/// Interval of the checks for signals.
const SIGNAL_POLL: Duration = Duration::from_millis(50);

static STOP: AtomicBool = AtomicBool::new(false);

/// Sets the flag by which the libraries end long work.
pub(crate) fn install() {
    tokengrid_cache::cancel_with(&STOP);
    tokengrid_store::cancel_with(&STOP);
}

/// Does `work` without the interpreter's lock. A signal handler that raises, as Ctrl-C does, ends it, and its exception is raised.
pub(crate) fn run<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T, CacheError> + Send) -> PyResult<T> {
    let result = std::thread::scope(|scope| {
        let (sender, mut receiver) = mpsc::channel();
        scope.spawn(move || sender.send(work()));
        loop {
            // Through a unique reference, since a receiver is not for two threads at a time.
            let waiting = &mut receiver;
            match py.detach(move || waiting.recv_timeout(SIGNAL_POLL)) {
                Ok(result) => return Ok(Some(result)),
                // The thread panicked: the scope passes it on.
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Err(raised) = py.check_signals() {
                STOP.store(true, Ordering::Relaxed);
                let waiting = &mut receiver;
                py.detach(move || waiting.recv().ok());
                STOP.store(false, Ordering::Relaxed);
                return Err(raised);
            }
        }
    })?;
    let result = result.unwrap_or(Err(CacheError::Cancelled));
    result.map_err(|error| errors::raise(py, &error))
}

/// Calls `piece` until it returns false, without the interpreter's lock; one piece takes milliseconds. A signal handler that raises
/// ends it between two pieces, and its exception is raised.
pub(crate) fn in_pieces(py: Python<'_>, mut piece: impl FnMut() -> bool + Send) -> PyResult<()> {
    let mut work_a_while = || {
        let began = Instant::now();
        while piece() {
            if began.elapsed() > SIGNAL_POLL {
                return true;
            }
        }
        false
    };
    while py.detach(&mut work_a_while) {
        py.check_signals()?;
    }
    Ok(())
}
