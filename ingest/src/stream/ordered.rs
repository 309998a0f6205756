//! Work on many positions by threads, whose results the consumer gets in the requested order.
//!
//! There is one lock and no channel. A worker claims the next position of the order only while fewer than `in_flight`
//! claimed ones are undelivered, so at most that many results exist at any moment, finished or being worked on. The position
//! that the consumer waits for was claimed before all later ones, so it is always among the claimed ones: nothing can deadlock.

use crate::stages::StageCounters;
use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// One thread's tools.
pub(super) trait Work: Send + 'static {
    /// What a position gets when it is claimed, in the order of positions.
    type Reserved: Send + 'static;
    /// What is made of it.
    type Output: Send + 'static;

    /// Works on one position. A panic ends the stream: the consumer gets it.
    fn work(&mut self, index: usize, reserved: Self::Reserved) -> Self::Output;
}

/// Where positions come from, and what is reserved for each; both are asked under the lock.
pub(super) struct Claims<W: Work> {
    pub order: Box<dyn Iterator<Item = usize> + Send>,
    pub reserve: Box<dyn FnMut() -> W::Reserved + Send>,
}

/// The results in order. Dropping it stops the workers and waits for them.
pub(super) struct Ordered<W: Work> {
    shared: Arc<Shared<W>>,
    workers: Vec<JoinHandle<()>>,
    /// Works in `next` itself, should the system refuse every thread.
    inline: Option<W>,
}

impl<W: Work> Ordered<W> {
    pub(super) fn spawn(
        claims: Claims<W>,
        worker: impl Fn() -> W,
        threads: usize,
        in_flight: usize,
        counters: Arc<StageCounters>,
    ) -> Ordered<W> {
        let in_flight = in_flight.max(1);
        let slots = VecDeque::with_capacity(in_flight.min(4096));
        let state = State { claims: Some(claims), slots, first: 0, cancelled: false, panic: None };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            room: Condvar::new(),
            ready: Condvar::new(),
            in_flight,
            counters,
        });
        let start = |i: usize| {
            let (shared, mut worker) = (Arc::clone(&shared), worker());
            let run = move || while shared.work_once(&mut worker) {};
            thread::Builder::new().name(format!("ingest-{i}")).spawn(run).ok()
        };
        let workers: Vec<_> = (0..threads.min(in_flight)).filter_map(start).collect();
        let inline = workers.is_empty().then(&worker);
        Ordered { shared, workers, inline }
    }

    pub(super) fn counters(&self) -> &Arc<StageCounters> {
        &self.shared.counters
    }

    /// The next result; `None` when the order is exhausted.
    ///
    /// # Panics
    /// Passes on a panic of the order's iterator or of a worker.
    pub(super) fn next(&mut self) -> Option<W::Output> {
        if let Some(worker) = &mut self.inline {
            self.shared.work_once(worker);
        }
        let mut state = self.shared.lock();
        loop {
            if let Some(panic) = state.panic.take() {
                drop(state);
                resume_unwind(panic);
            }
            if let Some(Slot::Done(_)) = state.slots.front() {
                let Some(Slot::Done(output)) = state.slots.pop_front() else { return None };
                state.first += 1;
                drop(state);
                self.shared.room.notify_one();
                return Some(output);
            }
            if state.claims.is_none() && state.slots.is_empty() {
                return None;
            }
            let since = Instant::now();
            state = self.shared.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
            self.shared.counters.add_starved(since);
        }
    }
}

impl<W: Work> Drop for Ordered<W> {
    fn drop(&mut self) {
        let claims = {
            let mut state = self.shared.lock();
            state.cancelled = true;
            // Nobody takes the results any more, and a worker may wait for the memory that they hold.
            state.slots.iter_mut().for_each(|slot| *slot = Slot::Working);
            state.claims.take()
        };
        self.shared.room.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches what happens inside it; there is nothing left to report.
            let _ = worker.join();
        }
        drop(claims);
    }
}

/// What workers and consumer share.
struct Shared<W: Work> {
    state: Mutex<State<W>>,
    /// Workers wait here for room.
    room: Condvar,
    /// The consumer waits here for a result.
    ready: Condvar,
    in_flight: usize,
    counters: Arc<StageCounters>,
}

struct State<W: Work> {
    /// What is still to be claimed; `None` when exhausted.
    claims: Option<Claims<W>>,
    /// Claimed and undelivered positions, the first being number `first` of the order. Never longer than `in_flight`.
    slots: VecDeque<Slot<W::Output>>,
    first: u64,
    cancelled: bool,
    /// A panic of the order's iterator or of a worker, for the consumer.
    panic: Option<Box<dyn Any + Send>>,
}

enum Slot<T> {
    Working,
    Done(T),
}

/// A position that a worker has taken on.
struct Claim<T> {
    /// Its number in the order.
    number: u64,
    index: usize,
    reserved: T,
}

impl<W: Work> Shared<W> {
    fn lock(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims and delivers one position; false when there is none left.
    fn work_once(&self, worker: &mut W) -> bool {
        let Some(Claim { number, index, reserved }) = self.claim() else { return false };
        match catch_unwind(AssertUnwindSafe(|| worker.work(index, reserved))) {
            Ok(output) => {
                self.deliver(number, output);
                true
            }
            // The position would stay undelivered, and the consumer would wait for it for ever.
            Err(panic) => {
                let mut state = self.lock();
                self.end(&mut state, Some(panic));
                false
            }
        }
    }

    /// Ends the claiming; a panic is passed to the consumer.
    fn end(&self, state: &mut State<W>, panic: Option<Box<dyn Any + Send>>) {
        state.claims = None;
        state.panic = panic.or(state.panic.take());
        self.ready.notify_all();
        self.room.notify_all();
    }

    /// Claims the next position, waiting for room.
    fn claim(&self) -> Option<Claim<W::Reserved>> {
        let mut state = self.lock();
        while state.slots.len() >= self.in_flight && !state.cancelled {
            let since = Instant::now();
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            self.counters.add_blocked(since);
        }
        if state.cancelled {
            return None;
        }
        let claims = state.claims.as_mut()?;
        match catch_unwind(AssertUnwindSafe(|| claims.order.next())) {
            Ok(Some(index)) => {
                let reserved = (claims.reserve)();
                let number = state.first + state.slots.len() as u64;
                state.slots.push_back(Slot::Working);
                return Some(Claim { number, index, reserved });
            }
            Ok(None) => self.end(&mut state, None),
            Err(panic) => self.end(&mut state, Some(panic)),
        }
        None
    }

    fn deliver(&self, number: u64, output: W::Output) {
        let mut state = self.lock();
        if state.cancelled {
            return;
        }
        let place = (number - state.first) as usize;
        state.slots[place] = Slot::Done(output);
        drop(state);
        if place == 0 {
            self.ready.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Breaking;

    impl Work for Breaking {
        type Reserved = ();
        type Output = usize;

        fn work(&mut self, index: usize, (): ()) -> usize {
            assert!(index != 3, "the worker is broken");
            index
        }
    }

    #[test]
    fn a_panic_of_a_worker_reaches_the_consumer() {
        for threads in [1, 4] {
            let claims = Claims { order: Box::new(0..100), reserve: Box::new(|| ()) };
            let mut results = Ordered::spawn(claims, || Breaking, threads, 8, Arc::default());
            let consume = AssertUnwindSafe(|| while results.next().is_some() {});
            let panic = catch_unwind(consume).expect_err("the panic is passed on");
            assert_eq!(panic.downcast_ref::<&str>(), Some(&"the worker is broken"));
        }
    }
}
