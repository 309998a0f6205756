//! What is answered.

use crate::query::BadRequest;
use hyper::StatusCode;
use serde_json::{Value, json};
use tokengrid_cache::CacheError;

/// An answer: status, type, bytes.
#[derive(Debug)]
pub struct Reply {
    /// Status.
    pub status: StatusCode,
    /// Media type.
    pub kind: &'static str,
    /// Whether a browser may keep it: pictures, whose address names their cache.
    pub may_be_kept: bool,
    /// The file name for saving it, where it is meant for that.
    pub download: Option<String>,
    /// The content.
    pub body: Vec<u8>,
}

/// An answer, or the reason why there is none.
pub type Answer = Result<Reply, Refusal>;

/// Why a request is not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request makes no sense.
    Bad(String),
    /// There is no such thing.
    Missing(String),
    /// It cannot be had now, or on this machine; the text says what would help.
    Unavailable(String),
    /// Too much was asked for at once.
    Busy,
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
    /// The answer that says so.
    pub fn reply(&self) -> Reply {
        let (status, text) = match self {
            Refusal::Bad(text) => (StatusCode::BAD_REQUEST, text.as_str()),
            Refusal::Missing(text) => (StatusCode::NOT_FOUND, text.as_str()),
            Refusal::Unavailable(text) => (StatusCode::SERVICE_UNAVAILABLE, text.as_str()),
            Refusal::Busy => (StatusCode::TOO_MANY_REQUESTS, "too many pictures were asked for at once; ask again"),
        };
        Reply { status, ..json(&json!({ "error": text })) }
    }
}

/// A JSON object.
pub fn json(value: &Value) -> Reply {
    Reply {
        status: StatusCode::OK,
        kind: "application/json",
        may_be_kept: false,
        download: None,
        body: value.to_string().into_bytes(),
    }
}

/// A PNG file.
pub fn png(body: Vec<u8>) -> Reply {
    Reply { status: StatusCode::OK, kind: "image/png", may_be_kept: true, download: None, body }
}

/// A file of the page itself.
pub fn asset(kind: &'static str, text: &'static str) -> Reply {
    Reply { status: StatusCode::OK, kind, may_be_kept: false, download: None, body: text.as_bytes().to_vec() }
}

/// A list of objects with the same fields, as comma-separated values for spreadsheets.
pub fn csv(name: &str, items: &[Value]) -> Reply {
    let mut text = String::new();
    let mut line = |cells: Vec<String>| {
        text.push_str(&cells.join(","));
        text.push_str("\r\n");
    };
    for (i, item) in items.iter().filter_map(Value::as_object).enumerate() {
        if i == 0 {
            line(item.keys().map(|key| quoted(key)).collect());
        }
        line(item.values().map(cell).collect());
    }
    let download = Some(format!("{name}.csv"));
    Reply {
        status: StatusCode::OK,
        kind: "text/csv; charset=utf-8",
        may_be_kept: false,
        download,
        body: text.into_bytes(),
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => quoted(text),
        other => quoted(&other.to_string()),
    }
}

/// RFC 4180. A text that a spreadsheet would take for a formula gets an apostrophe, which makes it a text.
fn quoted(text: &str) -> String {
    let is_number = text.parse::<f64>().is_ok();
    let guard = if !is_number && text.starts_with(['=', '+', '-', '@']) { "'" } else { "" };
    let must_be_quoted = text.contains([',', '"', '\n', '\r']);
    if must_be_quoted { format!("\"{guard}{}\"", text.replace('"', "\"\"")) } else { format!("{guard}{text}") }
}

/// An error with its causes, on one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_becomes_a_table_that_no_spreadsheet_executes() {
        let items =
            [json!({"key": "a,\"b\"", "rows": -3, "note": null}), json!({"key": "=1+1", "rows": 2, "note": "x"})];
        let reply = csv("rows", &items);
        let text = String::from_utf8(reply.body).unwrap();
        // Objects keep their fields in alphabetical order.
        assert_eq!(text, "key,note,rows\r\n\"a,\"\"b\"\"\",,-3\r\n'=1+1,x,2\r\n");
        assert_eq!(reply.download.as_deref(), Some("rows.csv"));
    }
}
