//! What is answered.

use crate::body::Parts;
use crate::query::BadRequest;
use hyper::StatusCode;
use hyper::body::Bytes;
use serde::Serialize;
use serde_json::{Value, json};
use tokengrid_cache::CacheError;

/// An answer: status, type, bytes.
pub(crate) struct Reply {
    /// Status.
    pub status: StatusCode,
    /// Media type.
    pub kind: &'static str,
    /// Whether a browser may keep it: pictures, whose address names their cache.
    pub may_be_kept: bool,
    /// The file name for saving it, where it is meant for that.
    pub download: Option<String>,
    /// Where it is instead.
    pub location: Option<String>,
    /// The content.
    pub body: Content,
}

/// The content of an answer.
pub(crate) enum Content {
    /// All of it.
    Whole(Bytes),
    /// Part by part, each made when the client has taken the one before.
    Parts(Parts),
}

/// An answer, or the reason why there is none.
pub(crate) type Answer = Result<Reply, Refusal>;

/// Why a request is not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request is not valid.
    Bad(String),
    /// There is no such thing.
    Missing(String),
    /// It is being made; the text says what to wait for.
    NotYet(String),
    /// It cannot be had on this machine; the text says what would help.
    Unavailable(String),
    /// Too much was asked for at once.
    Busy,
    /// A defect of the program.
    Internal(String),
}

impl From<BadRequest> for Refusal {
    fn from(BadRequest(text): BadRequest) -> Refusal {
        Refusal::Bad(text)
    }
}

impl From<CacheError> for Refusal {
    fn from(error: CacheError) -> Refusal {
        Refusal::Unavailable(with_causes(&error))
    }
}

impl Refusal {
    /// What is said.
    pub(crate) fn text(&self) -> &str {
        match self {
            Refusal::Bad(text)
            | Refusal::Missing(text)
            | Refusal::NotYet(text)
            | Refusal::Unavailable(text)
            | Refusal::Internal(text) => text,
            Refusal::Busy => "too much was asked for at once; ask again",
        }
    }

    /// Whether it is a fault of the server, for its log, and not of the client.
    pub(crate) fn is_of_server(&self) -> bool {
        matches!(self, Refusal::Unavailable(_) | Refusal::Internal(_))
    }

    /// The answer that says so.
    pub(crate) fn reply(&self) -> Reply {
        let status = match self {
            Refusal::Bad(_) => StatusCode::BAD_REQUEST,
            Refusal::Missing(_) => StatusCode::NOT_FOUND,
            Refusal::NotYet(_) | Refusal::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Busy => StatusCode::TOO_MANY_REQUESTS,
            Refusal::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Reply { status, ..json(&json!({ "error": self.text() })) }
    }
}

/// A JSON object.
pub(crate) fn json(value: &Value) -> Reply {
    whole("application/json", Bytes::from(value.to_string()))
}

/// An object with long texts, which are written once.
pub(crate) fn json_of(object: &impl Serialize) -> Reply {
    // Numbers and texts always have a JSON form.
    whole("application/json", Bytes::from(serde_json::to_vec(object).unwrap_or_default()))
}

/// A PNG file; `may_be_kept` by a browser where the address names what it is of.
pub(crate) fn png(body: Vec<u8>, may_be_kept: bool) -> Reply {
    Reply { may_be_kept, ..whole("image/png", body.into()) }
}

/// A file of the page itself.
pub(crate) fn asset(kind: &'static str, text: &'static str) -> Reply {
    whole(kind, Bytes::from_static(text.as_bytes()))
}

/// A text of a media type.
pub(crate) fn whole(kind: &'static str, body: Bytes) -> Reply {
    Reply {
        status: StatusCode::OK,
        kind,
        may_be_kept: false,
        download: None,
        location: None,
        body: Content::Whole(body),
    }
}

/// An error with its causes, on one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The message of a panic, as an answer.
pub(crate) fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
    let line = text.and_then(|text| text.lines().next()).unwrap_or("unknown");
    format!("internal error: {}; please report this", crate::text::printable(line, 300))
}
