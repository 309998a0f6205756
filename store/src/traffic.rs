//! Counts of requests and bytes, retries included.

use crate::contact::{Contact, is_about_connecting};
use crate::error::{is_about_certificate, root_cause};
use crate::retry_log::{is_repeated, warn_of_retry};
use crate::settings::names_metadata_server;
use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

static REQUESTS: AtomicU64 = AtomicU64::new(0);
static FETCHED_BYTES: AtomicU64 = AtomicU64::new(0);
static SENT_BYTES: AtomicU64 = AtomicU64::new(0);

/// Requests that this process made to object stores so far, and the bytes that they moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests, retries included.
    pub requests: u64,
    /// Bytes of objects that were read.
    pub fetched_bytes: u64,
    /// Bytes of objects that were written.
    pub sent_bytes: u64,
}

/// The traffic of this process so far.
pub fn traffic() -> Traffic {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Traffic { requests: load(&REQUESTS), fetched_bytes: load(&FETCHED_BYTES), sent_bytes: load(&SENT_BYTES) }
}

pub(crate) fn count_fetched(bytes: usize) {
    FETCHED_BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
}

pub(crate) fn count_sent(bytes: usize) {
    SENT_BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
}

/// Makes clients that count their requests, of the places below `root`.
#[derive(Debug)]
pub(crate) struct CountingConnector {
    pub(crate) root: String,
}

impl HttpConnector for CountingConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Counting { client, contact: Contact::with(&self.root) }))
    }
}

#[derive(Debug)]
struct Counting {
    client: HttpClient,
    contact: Contact,
}

#[async_trait]
impl HttpService for Counting {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        REQUESTS.fetch_add(1, Ordering::Relaxed);
        let (method, address) = (request.method().clone(), request.uri().clone());
        let warn = |why: &str| warn_of_retry(&format!("{}: {method} {}", self.contact.root(), address.path()), why);
        let error = match self.client.execute(request).await {
            Ok(answer) => {
                // Credentials come by a client of the same kind from another server.
                if !self.contact.has_answered() && !names_metadata_server(&address.to_string()) {
                    self.contact.answered();
                }
                if is_repeated(answer.status()) {
                    warn(&format!("was answered with {}", answer.status()));
                }
                return Ok(answer);
            }
            Err(error) => error,
        };
        // Another try meets the same certificate.
        let is_final =
            is_about_certificate(&error) || is_about_connecting(&error) && self.contact.is_hopeless(Instant::now());
        // Until a server has answered, its silence is the error that is about to be reported.
        if !is_final && self.contact.has_answered() {
            warn(&format!("was not answered ({})", root_cause(&error)));
        }
        // Errors of this kind are not tried again.
        Err(if is_final { HttpError::new(HttpErrorKind::Unknown, error) } else { error })
    }
}
