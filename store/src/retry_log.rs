//! Warnings of requests that are made again: one is enough for all that fail together.

use crate::connect::RETRIES_MAX;
use reqwest::StatusCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// At most one warning in this time.
const EVERY: Duration = Duration::from_secs(10);

static LAST: Mutex<Option<Instant>> = Mutex::new(None);

/// Whether a request with such an answer is made again.
pub(crate) fn is_repeated(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::REQUEST_TIMEOUT
}

/// Warns that `request` is made again. `why` is a verb with its object: `was answered with 503`.
pub(crate) fn warn_of_retry(request: &str, why: &str) {
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if last.is_some_and(|at| at.elapsed() < EVERY) {
        return;
    }
    *last = Some(Instant::now());
    tracing::warn!(
        "{request} {why}; requests are repeated up to {RETRIES_MAX} times (at most one such warning in {} s)",
        EVERY.as_secs()
    );
}
