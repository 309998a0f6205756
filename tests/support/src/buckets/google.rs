//! fake-gcs-server, a stand-in for Google Cloud Storage, behind a proxy that translates writes.
//!
//! The program's client writes by the XML API, as Google specifies it: `PUT /bucket/key`, and uploads in parts (module
//! `google_uploads`). The server accepts uploads of the JSON API, and honours conditions in multipart ones. Reads, listings and
//! removals pass unchanged.

use super::google_uploads::Uploads;
use super::message::{Answer, Request};
use super::proxy::{Fate, Proxy, pass_on};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;

/// Separator of the parts of an upload. No test's content contains it.
const BOUNDARY: &str = "between-the-parts-of-an-upload";

/// The server at `server` with the interface that the program's client expects of Google's, and its uploads in parts.
pub(super) fn translated(server: SocketAddr) -> (Proxy, Arc<Uploads>) {
    let uploads = Arc::new(Uploads::default());
    let of_parts = Arc::clone(&uploads);
    let answer = move |request: &Request| {
        let (path, query) = request.path().split_once('?').unwrap_or((request.path(), ""));
        let key = path.trim_start_matches('/').split_once('/').map_or("", |(_, key)| key);
        if let Some(answer) = of_parts.answer(request, key, query, &|whole| put(server, path, "", whole)) {
            return answer;
        }
        let condition = request.header("x-goog-if-generation-match");
        let condition = condition.map_or_else(String::new, |generation| format!("&ifGenerationMatch={generation}"));
        match request.method() {
            "PUT" => put(server, path, &condition, &request.body),
            _ => pass_on(server, &addressed(server, request)),
        }
    };
    (Proxy::serve(|_, _| Fate::Pass, answer), uploads)
}

/// The request with the server's own address, which it checks.
fn addressed(server: SocketAddr, request: &Request) -> Request {
    let lines = request.head.lines().filter(|line| !line.is_empty());
    let line = |line: &str| match line.to_ascii_lowercase().starts_with("host:") {
        true => format!("Host: {server}\r\n"),
        false => format!("{line}\r\n"),
    };
    Request { head: lines.map(line).chain(["\r\n".to_owned()]).collect(), body: request.body.clone() }
}

/// Writes an object; `condition` is the end of a query.
fn put(server: SocketAddr, path: &str, condition: &str, content: &[u8]) -> Answer {
    let (bucket, key) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
    let kinds = ["application/json", "application/octet-stream"];
    let description = json!({ "name": decoded(key) }).to_string();
    let mut body = Vec::new();
    for (kind, part) in kinds.iter().zip([description.as_bytes(), content]) {
        body.extend(format!("--{BOUNDARY}\r\nContent-Type: {kind}\r\n\r\n").as_bytes());
        body.extend(part);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{BOUNDARY}--\r\n").as_bytes());
    let head = format!(
        "POST /upload/storage/v1/b/{bucket}/o?uploadType=multipart{condition} HTTP/1.1\r\nHost: {server}\r\n\
         Content-Type: multipart/related; boundary={BOUNDARY}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let answer = pass_on(server, &Request { head, body });
    let Ok(object) = serde_json::from_slice::<Value>(&answer.body) else { return answer };
    let (Some(tag), Some(generation)) = (object["etag"].as_str(), object["generation"].as_str()) else { return answer };
    Answer::new("200 OK", &format!("ETag: \"{tag}\"\r\nx-goog-generation: {generation}\r\n"), b"")
}

/// Decodes `%2F` and other percent escapes to bytes.
fn decoded(key: &str) -> String {
    let mut parts = key.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at(2);
        bytes.push(u8::from_str_radix(code, 16).expect("two hexadecimal digits"));
        bytes.extend(rest.as_bytes());
    }
    String::from_utf8(bytes).expect("keys are text")
}
