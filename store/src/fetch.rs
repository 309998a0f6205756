//! Reads of ranges, many at a time, repeated when a response body ends early.

use crate::error::{StoreError, classify};
use crate::place::Place;
use crate::retry_log::warn_of_retry;
use crate::runtime::{runtime, wait, wait_through};
use crate::traffic::count_fetched;
use bytes::Bytes;
use object_store::path::Path as Key;
use object_store::{GetOptions, ObjectMeta, ObjectStore};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Reads in flight in this process, unless [`allow_in_flight`] says otherwise. Measured: with 100 ms of latency, images of
/// their own are read a third faster than with 128, and as fast as with 512 (docs/benchmarks/2026-11-30-object-stores.md).
pub const IN_FLIGHT_DEFAULT: usize = 256;

static IN_FLIGHT: AtomicUsize = AtomicUsize::new(IN_FLIGHT_DEFAULT);

/// Chosen with the first read.
static PERMITS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(in_flight_max()));

/// Sets the number of reads in flight in this process, at least one. Called before the first read.
pub fn allow_in_flight(reads: usize) {
    IN_FLIGHT.store(reads.max(1), Ordering::Relaxed);
}

/// Reads that may be in flight in this process.
pub fn in_flight_max() -> usize {
    IN_FLIGHT.load(Ordering::Relaxed)
}

/// How often a body that ended early is requested again, with pauses that double; the retries of requests come on top.
const TORN_RETRIES_MAX: u32 = 5;
const TORN_PAUSE: Duration = Duration::from_millis(100);

/// A range that is being read. Dropping it cancels the read.
#[derive(Debug)]
pub struct Fetch(JoinHandle<Result<Bytes, StoreError>>);

impl Fetch {
    pub(crate) fn begin(
        store: Arc<dyn ObjectStore>,
        place: Place,
        path: Key,
        range: Range<u64>,
        tag: Option<String>,
    ) -> Fetch {
        Fetch(runtime().spawn(async move {
            let _permit = PERMITS.acquire().await;
            read_range(&store, &place, &path, range, tag).await
        }))
    }

    pub(crate) fn begin_all(store: Arc<dyn ObjectStore>, place: Place, path: Key, bytes_max: u64) -> Fetch {
        Fetch(runtime().spawn(async move {
            let _permit = PERMITS.acquire().await;
            read(&store, &place, &path, &GetOptions::default(), bytes_max).await.map(|(bytes, _)| bytes)
        }))
    }

    /// Waits for the bytes: exactly those of the range.
    ///
    /// # Errors
    /// [`StoreError::Changed`] where the object no longer has the tag; [`StoreError::Length`]; [`StoreError::TooLarge`];
    /// [`StoreError::Cancelled`]; the variant that names why the request failed after all retries.
    pub fn wait(mut self) -> Result<Bytes, StoreError> {
        let read = wait(async { (&mut self.0).await.unwrap_or(Err(StoreError::Cancelled)) });
        read.inspect_err(note_outage)
    }

    /// The same when the program is to stop: for what an orderly stop still needs.
    ///
    /// # Errors
    /// As the server says, after the retries; [`StoreError::Changed`].
    pub fn wait_through(mut self) -> Result<Bytes, StoreError> {
        wait_through(async { (&mut self.0).await.unwrap_or(Err(StoreError::Cancelled)) })
    }
}

/// The first failure of a read in this process that was not the object's own.
static OUTAGE: Mutex<Option<String>> = Mutex::new(None);

/// Why a read of this process failed although nothing is wrong with the object: the network was down, the server answered 503
/// to every retry, the object was replaced meanwhile. `None` if that never happened. After it, a missing object may exist all
/// the same.
pub fn outage() -> Option<String> {
    OUTAGE.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Forgets the failure that [`outage`] returns, before a new attempt.
pub fn forget_outage() {
    *OUTAGE.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

fn note_outage(error: &StoreError) {
    if !matches!(error, StoreError::NotFound { .. } | StoreError::TooLarge { .. }) {
        OUTAGE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.to_string());
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn read_range(
    store: &Arc<dyn ObjectStore>,
    place: &Place,
    path: &Key,
    range: Range<u64>,
    tag: Option<String>,
) -> Result<Bytes, StoreError> {
    let expected = range.end - range.start;
    if expected == 0 {
        return Ok(Bytes::new());
    }
    let options = GetOptions { range: Some(range.into()), if_match: tag, ..GetOptions::default() };
    let (bytes, _) = read(store, place, path, &options, u64::MAX).await?;
    let actual = bytes.len() as u64;
    if actual == expected { Ok(bytes) } else { Err(StoreError::Length { place: place.clone(), expected, actual }) }
}

/// A whole object.
pub(crate) async fn read_whole(
    store: &Arc<dyn ObjectStore>,
    place: &Place,
    path: &Key,
) -> Result<(Bytes, ObjectMeta), StoreError> {
    read(store, place, path, &GetOptions::default(), SMALL_BYTES_MAX).await
}

async fn read(
    store: &Arc<dyn ObjectStore>,
    place: &Place,
    path: &Key,
    options: &GetOptions,
    bytes_max: u64,
) -> Result<(Bytes, ObjectMeta), StoreError> {
    let failed = |error: object_store::Error| classify(place, "read", &error);
    let mut torn = 0;
    loop {
        // `object_store` repeats failed requests, but not bodies that end early.
        let answer = store.get_opts(path, options.clone()).await.map_err(failed)?;
        let meta = answer.meta.clone();
        if answer.range.end - answer.range.start > bytes_max {
            return Err(StoreError::TooLarge { place: place.clone(), bytes: meta.size, bytes_max });
        }
        match answer.bytes().await {
            Ok(bytes) => {
                count_fetched(bytes.len());
                return Ok((bytes, meta));
            }
            Err(error) if torn == TORN_RETRIES_MAX => return Err(failed(error)),
            Err(_) => {
                warn_of_retry(&place.to_string(), TORN);
                pause(torn).await;
                torn += 1;
            }
        }
    }
}

/// What happened to a body that is requested again, for a warning.
const TORN: &str = "ended early while it was read";

/// Largest object that is read whole where the caller names no limit, in bytes: manifests, job files, leases.
const SMALL_BYTES_MAX: u64 = 256 << 20;

/// Repeats a request whose error `is_torn`: the body ended early or, for requests without retries of their own, the server is busy.
pub(crate) async fn again<T, E>(ask: impl AsyncFn() -> Result<T, E>, is_torn: impl Fn(&E) -> bool) -> Result<T, E> {
    let mut torn = 0;
    loop {
        match ask().await {
            Err(error) if torn < TORN_RETRIES_MAX && is_torn(&error) => {
                pause(torn).await;
                torn += 1;
            }
            answered => return answered,
        }
    }
}

/// Whether a listing's body ended early: `object_store` repeats its requests, but not these.
pub(crate) fn is_torn(error: &object_store::Error) -> bool {
    error.to_string().contains("response body")
}

async fn pause(torn: u32) {
    tokio::time::sleep(TORN_PAUSE * 2u32.pow(torn) + jitter()).await;
}

/// Up to [`TORN_PAUSE`], so that reads that failed together are not repeated together.
fn jitter() -> Duration {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
    TORN_PAUSE.mul_f64(f64::from(nanos % 1000) / 1000.0)
}
