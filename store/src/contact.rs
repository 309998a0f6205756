//! The first contact with a server: whether it answers at all.

use crate::place::Place;
use object_store::client::HttpError;
use std::collections::HashSet;
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long connections may fail before a server has answered for the first time. A misspelt name, or a port where no server
/// listens and a server without TLS stay so; one that has answered is known to exist, and is waited for as long as retries last.
const PATIENCE: Duration = Duration::from_secs(1);

/// Roots of the places whose servers have answered in this process.
static ANSWERED: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);

/// Whether the server of a place has answered in this process, with any status: it is there, though it may be gone now.
pub(crate) fn has_answered(place: &Place) -> bool {
    ANSWERED.lock().unwrap_or_else(PoisonError::into_inner).contains(place.root())
}

/// A client's state of its server.
#[derive(Debug)]
pub(crate) struct Contact {
    /// The root of the places that it serves.
    root: String,
    has_answered: AtomicBool,
    first_failure: OnceLock<Instant>,
}

impl Contact {
    /// With the server of the places below `root`.
    pub(crate) fn with(root: &str) -> Contact {
        Contact { root: root.to_owned(), has_answered: AtomicBool::new(false), first_failure: OnceLock::new() }
    }

    /// The server has answered, with any status.
    pub(crate) fn answered(&self) {
        if !self.has_answered.swap(true, Ordering::Relaxed) {
            ANSWERED.lock().unwrap_or_else(PoisonError::into_inner).insert(self.root.clone());
        }
    }

    /// Whether it ever has.
    pub(crate) fn has_answered(&self) -> bool {
        self.has_answered.load(Ordering::Relaxed)
    }

    /// The root of the places that it serves.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// A connection was not made, at `now`. Whether another try is of no use.
    pub(crate) fn is_hopeless(&self, now: Instant) -> bool {
        let first = *self.first_failure.get_or_init(|| now);
        !self.has_answered() && now.saturating_duration_since(first) > PATIENCE
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
    use crate::error::{StoreError, classify};

    #[test]
    fn only_a_server_that_never_answered_is_given_up() {
        let begin = Instant::now();
        let (soon, late) = (begin + PATIENCE / 2, begin + 2 * PATIENCE);
        let contact = Contact::with("s3://contact-test");
        let place = Place::parse("s3://contact-test/a".as_ref()).unwrap().unwrap();
        assert!(!contact.is_hopeless(begin) && !contact.is_hopeless(soon), "it may be starting");
        assert!(contact.is_hopeless(late));
        assert!(!has_answered(&place));
        contact.answered();
        assert!(has_answered(&place));
        assert!(!contact.is_hopeless(late), "it has answered before, and may do so again");
    }

    #[test]
    fn a_server_that_is_gone_is_told_apart_from_one_that_was_never_there() {
        let place = Place::parse("s3://gone/a/b".as_ref()).unwrap().unwrap();
        let source = "error trying to connect, after 10 retries, max_retries: 10: Connection refused (os error 111)";
        let error = object_store::Error::Generic { store: "S3", source: source.into() };
        assert!(matches!(classify(&place, "read", &error), StoreError::Unreachable { .. }));
        Contact::with(place.root()).answered();
        let said = classify(&place, "read", &error).to_string();
        assert!(
            said.starts_with("cannot read s3://gone/a/b: the server no longer answers") && said.contains("again"),
            "{said}"
        );
        assert!(said.contains("after 10 retries"), "{said}");
    }
}
