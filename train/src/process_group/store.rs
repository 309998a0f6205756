//! A connection to the store of a run, with deadlines. Calls of a TCPStore have none: on a server that was stopped they hang
//! for ever. So a thread makes them, and the caller waits for its answer for a bounded time.

use super::endpoint::Endpoint;
use super::ffi::{Failure, RawStore};
use crossbeam::channel::{Sender, bounded};
use std::time::Duration;

/// How long a store may take to answer.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

/// Requests that may wait for the thread: a caller waits for each, so there is rarely more than one.
const QUEUE: usize = 4;

/// Why a store gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StoreError {
    /// No answer within the deadline.
    Silent,
    /// The connection is lost, or was never made.
    Failed(String),
}

impl From<Failure> for StoreError {
    fn from(Failure(text): Failure) -> Self {
        StoreError::Failed(text)
    }
}

type Request = Box<dyn FnOnce(&RawStore) + Send>;

/// A connection, and the thread that owns it.
#[derive(Debug)]
pub(super) struct Store {
    requests: Sender<Request>,
}

impl Store {
    /// Connects, trying for up to `timeout`; with `serve`, the store lives in this process.
    pub(super) fn connect(endpoint: &Endpoint, serve: bool, timeout: Duration) -> Result<Store, StoreError> {
        let (host, port) = (endpoint.host.clone(), endpoint.port);
        Self::start(timeout + ANSWER, move || RawStore::connect(&host, port, serve, timeout).map(|(store, _)| store))
    }

    /// Another connection to the same store, with its own thread.
    pub(super) fn another(&self) -> Result<Store, StoreError> {
        let raw = self.another_raw()?;
        Self::start(ANSWER, move || Ok(raw))
    }

    /// Another connection, for a process group.
    pub(crate) fn another_raw(&self) -> Result<RawStore, StoreError> {
        self.ask(RawStore::another)
    }

    pub(super) fn set(&self, key: &str, value: &str) -> Result<(), StoreError> {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.ask(move |store| store.set(&key, value.as_bytes()))
    }

    /// Adds to the number under a key, which begins at 0; the sum.
    pub(super) fn add(&self, key: &str, more: i64) -> Result<i64, StoreError> {
        let key = key.to_owned();
        self.ask(move |store| store.add(&key, more))
    }

    /// The value of a key, if it has one by now.
    pub(super) fn get(&self, key: &str) -> Result<Option<String>, StoreError> {
        let key = key.to_owned();
        let value = self.ask(move |store| store.get(&key))?;
        Ok(value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn start(
        limit: Duration,
        connect: impl FnOnce() -> Result<RawStore, Failure> + Send + 'static,
    ) -> Result<Store, StoreError> {
        let (requests, queue) = bounded::<Request>(QUEUE);
        let (ready, connected) = bounded(1);
        std::thread::spawn(move || match connect() {
            Ok(store) => {
                let _ = ready.send(Ok(()));
                queue.iter().for_each(|request| request(&store));
            }
            Err(failure) => drop(ready.send(Err(failure))),
        });
        connected.recv_timeout(limit).map_err(|_| StoreError::Silent)??;
        Ok(Store { requests })
    }

    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&RawStore) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = bounded(1);
        let request: Request = Box::new(move |store| drop(answer.send(question(store))));
        self.requests.send_timeout(request, ANSWER).map_err(|_| StoreError::Silent)?;
        Ok(answered.recv_timeout(ANSWER).map_err(|_| StoreError::Silent)??)
    }
}
