//! Progress while a source is listed.

use crate::signals;
use crate::terminal::Counter;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;
use tokengrid_ingest::{IngestError, Source, SourceOptions};

/// How often the number of images is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Lists a source until the program is asked to stop, and shows how many images were found so far.
pub(super) fn list(path: &Path, options: &SourceOptions) -> Result<Source, IngestError> {
    let listed = AtomicU64::new(0);
    let (ended, end) = channel();
    thread::scope(|scope| {
        // Where the system refuses a thread, nothing is shown.
        let _ = thread::Builder::new().name("listing".to_owned()).spawn_scoped(scope, {
            let listed = &listed;
            move || show(listed, end)
        });
        let opened = Source::open_watched(path, options, signals::flag(), &listed);
        drop(ended);
        opened
    })
}

/// Shows the number until the other end of `end` is gone.
fn show(listed: &AtomicU64, end: Receiver<()>) {
    let mut counter = Counter::new("listing", "images");
    while end.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
        counter.update(listed.load(Ordering::Relaxed));
    }
}
