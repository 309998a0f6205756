//! The first contact with a server: whether it answers at all.

use object_store::client::HttpError;
use std::error::Error;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long connections may fail before a server has answered for the first time. A misspelt name, or a port where no server
/// listens and a server without TLS stay so; one that has answered is known to exist, and is waited for as long as retries last.
const PATIENCE: Duration = Duration::from_secs(1);

/// A client's state of its server.
#[derive(Debug, Default)]
pub(crate) struct Contact {
    has_answered: AtomicBool,
    first_failure: OnceLock<Instant>,
}

impl Contact {
    /// The server has answered, with any status.
    pub(crate) fn answered(&self) {
        self.has_answered.store(true, Ordering::Relaxed);
    }

    /// A connection was not made, at `now`. Whether another try is of no use.
    pub(crate) fn is_hopeless(&self, now: Instant) -> bool {
        let first = *self.first_failure.get_or_init(|| now);
        !self.has_answered.load(Ordering::Relaxed) && now.saturating_duration_since(first) > PATIENCE
    }
}

/// Whether no connection was made: unknown name, closed port, timeout, or failed TLS handshake.
pub(crate) fn is_about_connecting(error: &HttpError) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<reqwest::Error>());
    cause.is_some_and(reqwest::Error::is_connect)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_that_never_answered_is_given_up() {
        let begin = Instant::now();
        let (soon, late) = (begin + PATIENCE / 2, begin + 2 * PATIENCE);
        let contact = Contact::default();
        assert!(!contact.is_hopeless(begin) && !contact.is_hopeless(soon), "it may be starting");
        assert!(contact.is_hopeless(late));
        contact.answered();
        assert!(!contact.is_hopeless(late), "it has answered before, and may do so again");
    }
}
