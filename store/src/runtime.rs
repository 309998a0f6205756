//! The private runtime on which requests run, and waiting for them.

use crate::error::StoreError;
use futures_util::future::{Either, select};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// Threads that serve sockets. They mostly wait; copying ten gigabits per second needs two.
const THREADS: usize = 2;

/// How often a waiting thread checks whether the program is to stop.
const CANCEL_POLL: Duration = Duration::from_millis(50);

static CANCEL: OnceLock<&'static AtomicBool> = OnceLock::new();

/// Sets the flag of this process that ends reads: once it is true, they return [`StoreError::Cancelled`]. Writes are finished.
/// Later calls have no effect.
pub fn cancel_with(flag: &'static AtomicBool) {
    let _ = CANCEL.set(flag);
}

/// Whether the flag that [`cancel_with`] names is set.
pub fn is_cancelled() -> bool {
    CANCEL.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// The runtime of the process that has this number.
static RUNTIME: Mutex<Option<(u32, &'static Runtime)>> = Mutex::new(None);

/// The runtime, started with the first request. A forked process has none of the threads of its parent's: it starts its own, and
/// the other is not touched, since it cannot be shut down here.
pub(crate) fn runtime() -> &'static Runtime {
    let mut running = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    match *running {
        Some((owner, runtime)) if owner == process => runtime,
        _ => running.insert((process, Box::leak(Box::new(start())))).1,
    }
}

fn start() -> Runtime {
    // Before the first client is built. An earlier call by other code has made the same choice for the process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let threads = Builder::new_multi_thread().worker_threads(THREADS).thread_name("store").enable_all().build();
    threads.expect("the system allows two more threads")
}

/// Waits for a read, or until the program is to stop.
pub(crate) fn wait<T>(future: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    runtime().block_on(async {
        let stopped = async {
            while !is_cancelled() {
                tokio::time::sleep(CANCEL_POLL).await;
            }
        };
        match select(pin!(future), pin!(stopped)).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => Err(StoreError::Cancelled),
        }
    })
}

/// Waits for a write: an orderly stop still writes what is finished.
pub(crate) fn wait_through<T>(future: impl Future<Output = T>) -> T {
    runtime().block_on(future)
}
