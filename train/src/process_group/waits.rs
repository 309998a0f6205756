//! The share of the time that a process waits for exchanges.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// The time that a process waits for the others, from its first step on.
#[derive(Debug, Default)]
pub(super) struct Waits {
    /// Calls of `begin`.
    calls: Cell<u32>,
    since: Cell<Option<Instant>>,
    waited: Cell<Duration>,
}

impl Waits {
    /// Call it when a run starts or continues, and after each step.
    pub(super) fn begin(&self) {
        self.calls.set(self.calls.get().saturating_add(1));
        // The first step also waits for the slowest process to start.
        if self.calls.get() == 2 {
            self.since.set(Some(Instant::now()));
            self.waited.set(Duration::ZERO);
        }
    }

    /// Counts the time that `wait` takes.
    pub(super) fn during<T>(&self, wait: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let outcome = wait();
        self.waited.set(self.waited.get() + started.elapsed());
        outcome
    }

    /// Logs the share of the time.
    pub(super) fn report(&self) {
        let Some(since) = self.since.get() else { return };
        let (waited, all) = (self.waited.get().as_secs_f64(), since.elapsed().as_secs_f64());
        tracing::info!("waited {waited:.3} s of {all:.3} s for exchanges ({:.1} %)", 100.0 * waited / all.max(1e-9));
    }
}
