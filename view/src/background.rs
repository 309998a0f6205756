//! Work in the background while requests are answered: opening the cache, counting, verifying.

use crate::lock::lock;
use crate::reply::panic_text;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// A value that is being made, with its progress.
#[derive(Debug)]
pub(crate) struct Background<T> {
    inner: Arc<Inner<T>>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Inner<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

/// How far it is.
#[derive(Debug)]
pub(crate) enum State<T> {
    /// Not asked for yet.
    Idle,
    /// Being made: so much is done, of so much.
    Running {
        /// Units done.
        done: u64,
        /// Units in all; 0 where that is not known.
        total: u64,
    },
    /// Here it is.
    Done(Arc<T>),
    /// It could not be made; the text says why.
    Failed(String),
}

impl<T> Clone for State<T> {
    fn clone(&self) -> State<T> {
        match self {
            State::Idle => State::Idle,
            State::Running { done, total } => State::Running { done: *done, total: *total },
            State::Done(value) => State::Done(Arc::clone(value)),
            State::Failed(why) => State::Failed(why.clone()),
        }
    }
}

impl<T> Default for Background<T> {
    fn default() -> Background<T> {
        let inner = Inner { state: Mutex::new(State::Idle), changed: Condvar::new() };
        Background { inner: Arc::new(inner), worker: Mutex::default() }
    }
}

impl<T> Inner<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        lock(&self.state)
    }

    fn set(&self, state: State<T>) {
        *self.state() = state;
        self.changed.notify_all();
    }
}

impl<T: Send + Sync + 'static> Background<T> {
    /// How far it is.
    pub(crate) fn state(&self) -> State<T> {
        self.inner.state().clone()
    }

    /// Begins to compute it on a separate thread, unless that is in progress. `again`: also if it is done already.
    /// `make` reports its progress as (done, total).
    pub(crate) fn start(
        &self,
        again: bool,
        make: impl FnOnce(&mut dyn FnMut(u64, u64)) -> Result<T, String> + Send + 'static,
    ) {
        let mut state = self.inner.state();
        let may_start = match &*state {
            State::Idle => true,
            State::Running { .. } => false,
            State::Done(_) | State::Failed(_) => again,
        };
        if !may_start {
            return;
        }
        *state = State::Running { done: 0, total: 0 };
        drop(state);
        let inner = Arc::clone(&self.inner);
        let work = move || {
            let mut progress = |done, total| *inner.state() = State::Running { done, total };
            // Whoever waits for the value learns that there will be none.
            let made = catch_unwind(AssertUnwindSafe(|| make(&mut progress)))
                .unwrap_or_else(|payload| Err(panic_text(payload.as_ref())));
            inner.set(made.map_or_else(State::Failed, |value| State::Done(Arc::new(value))));
        };
        *lock(&self.worker) = Some(std::thread::spawn(work));
    }

    /// Forgets the value, where there is one, as if it had never been asked for. Whether there was one.
    pub(crate) fn forget(&self) -> bool {
        let mut state = self.inner.state();
        let is_done = matches!(*state, State::Done(_));
        if is_done {
            *state = State::Idle;
        }
        is_done
    }

    /// Puts a value that was forgotten back, unless it was asked for meanwhile.
    pub(crate) fn put_back(&self, value: T) {
        let mut state = self.inner.state();
        if matches!(*state, State::Idle) {
            *state = State::Done(Arc::new(value));
        }
    }

    /// The value, waiting for it no longer than `patience`.
    pub(crate) fn wait(&self, patience: Duration) -> State<T> {
        let is_running = |state: &mut State<T>| matches!(state, State::Running { .. });
        let waited = self.inner.changed.wait_timeout_while(self.inner.state(), patience, is_running);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.clone()
    }

    /// Waits for the end of the work, if there is any.
    pub(crate) fn join(&self) {
        let worker = lock(&self.worker).take();
        if let Some(worker) = worker {
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_made_once_and_again_on_request() {
        let value = Background::<u32>::default();
        assert!(matches!(value.state(), State::Idle));
        value.start(false, |progress| {
            progress(1, 2);
            Ok(7)
        });
        assert!(matches!(value.wait(Duration::from_secs(60)), State::Done(seven) if *seven == 7));
        value.start(false, |_| Ok(8));
        assert!(matches!(value.wait(Duration::from_secs(60)), State::Done(seven) if *seven == 7));
        value.start(true, |_| Err("no".into()));
        assert!(matches!(value.wait(Duration::from_secs(60)), State::Failed(why) if why == "no"));
        assert!(!value.forget());
        value.put_back(9);
        assert!(matches!(value.state(), State::Failed(_)));
        value.start(true, |_| Ok(8));
        value.join();
        assert!(value.forget() && matches!(value.state(), State::Idle));
        value.put_back(9);
        assert!(matches!(value.state(), State::Done(nine) if *nine == 9));
        value.start(true, |_| panic!("a defect"));
        assert!(matches!(value.wait(Duration::from_secs(60)), State::Failed(why) if why.contains("a defect")));
        value.join();
    }
}
