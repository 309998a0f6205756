//! Long work that Ctrl-C ends.
//!
//! Python runs its signal handlers on the main thread, between two steps of the interpreter. While that thread waits for us no
//! handler would run, so the work is done by another one, and the main thread asks for signals meanwhile.

use crate::errors;
use pyo3::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;
use tokengrid_cache::CacheError;

/// How often the interpreter is asked for signals.
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
