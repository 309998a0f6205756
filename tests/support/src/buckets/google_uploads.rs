//! Uploads in parts by Google's XML API, <https://cloud.google.com/storage/docs/xml-api/overview#multipart>: the parts stay here, and
//! become one object when the upload is complete. What Google refuses is refused.

use super::message::{Answer, Request};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Smallest part of an upload but the last.
const PART_BYTES_MIN: usize = 5 << 20;

/// Unfinished uploads by their ids.
#[derive(Default)]
pub(super) struct Uploads(Mutex<(usize, BTreeMap<String, Upload>)>);

/// An unfinished upload.
#[derive(Default)]
struct Upload {
    key: String,
    parts: BTreeMap<usize, Vec<u8>>,
}

impl Uploads {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.lock().1.len()
    }

    /// The answer to a request of this API for an object: begin, part, completion, abortion. `None` for any other request.
    /// `put` writes the object.
    pub(super) fn answer(
        &self,
        request: &Request,
        key: &str,
        query: &str,
        put: &dyn Fn(&[u8]) -> Answer,
    ) -> Option<Answer> {
        let parameter = |name: &str| {
            query
                .split('&')
                .find_map(|pair| pair.split_once('=').filter(|(found, _)| *found == name).map(|(_, value)| value))
        };
        if key.is_empty() {
            return None;
        }
        if request.method() == "POST" && matches!(query, "uploads" | "uploads=") {
            return Some(self.begin(key));
        }
        let id = parameter("uploadId")?;
        if self.lock().1.get(id).is_none_or(|upload| upload.key != key) {
            return Some(refusal("404 Not Found", "NoSuchUpload"));
        }
        match (request.method(), parameter("partNumber")) {
            ("PUT", Some(number)) => Some(self.take_part(id, number.parse().ok()?, &request.body)),
            ("POST", None) => Some(self.complete(id, &String::from_utf8_lossy(&request.body), put)),
            ("DELETE", None) => {
                self.lock().1.remove(id);
                Some(Answer::status_only("204 No Content"))
            }
            _ => Some(refusal("400 Bad Request", "InvalidArgument")),
        }
    }

    fn begin(&self, key: &str) -> Answer {
        let mut uploads = self.lock();
        uploads.0 += 1;
        let id = format!("upload-{}", uploads.0);
        uploads.1.insert(id.clone(), Upload { key: key.to_owned(), parts: BTreeMap::new() });
        xml(
            "200 OK",
            "",
            &format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"),
        )
    }

    fn take_part(&self, id: &str, number: usize, content: &[u8]) -> Answer {
        if let Some(upload) = self.lock().1.get_mut(id) {
            upload.parts.insert(number, content.to_vec());
        }
        Answer::new("200 OK", &format!("ETag: {}\r\n", tag(content)), b"")
    }

    /// Writes the parts that `list` names, in its order, as one object.
    fn complete(&self, id: &str, list: &str, put: &dyn Fn(&[u8]) -> Answer) -> Answer {
        // Held until the object is there: of two requests to complete an upload, the second finds none.
        let mut uploads = self.lock();
        let Some(upload) = uploads.1.get(id) else { return refusal("404 Not Found", "NoSuchUpload") };
        let whole = match upload.joined(list) {
            Ok(whole) => whole,
            Err(code) => return refusal("400 Bad Request", code),
        };
        let written = put(&whole);
        if written.status() != 200 {
            return written;
        }
        uploads.1.remove(id);
        let header = |name: &str| written.header(name).unwrap_or_default().to_owned();
        let headers = format!("x-goog-generation: {}\r\n", header("x-goog-generation"));
        let body = format!("<ETag>{}</ETag>", header("etag").replace('"', "&quot;"));
        xml("200 OK", &headers, &format!("<CompleteMultipartUploadResult>{body}</CompleteMultipartUploadResult>"))
    }

    fn lock(&self) -> MutexGuard<'_, (usize, BTreeMap<String, Upload>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upload {
    /// The parts that a list names, one after the other; the code of the refusal where Google refuses the list.
    fn joined(&self, list: &str) -> Result<Vec<u8>, &'static str> {
        let named: Vec<(usize, String)> = list.split("<Part>").skip(1).filter_map(part_of).collect();
        let is_in_order = named.windows(2).all(|pair| pair[0].0 < pair[1].0);
        if named.is_empty() || !is_in_order {
            return Err("InvalidPartOrder");
        }
        let mut whole = Vec::new();
        for (place, (number, expected)) in named.iter().enumerate() {
            let part = self.parts.get(number).filter(|content| tag(content) == *expected).ok_or("InvalidPart")?;
            if part.len() < PART_BYTES_MIN && place + 1 < named.len() {
                return Err("EntityTooSmall");
            }
            whole.extend(part);
        }
        Ok(whole)
    }
}

/// Number and tag of a `<Part>`.
fn part_of(text: &str) -> Option<(usize, String)> {
    let field = |name: &str| Some(text.split_once(&format!("<{name}>"))?.1.split_once(&format!("</{name}>"))?.0);
    Some((field("PartNumber")?.parse().ok()?, field("ETag")?.replace("&quot;", "\"")))
}

fn tag(content: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

fn xml(status: &str, headers: &str, body: &str) -> Answer {
    let headers = format!("{headers}Content-Type: application/xml\r\n");
    Answer::new(status, &headers, format!("<?xml version='1.0' encoding='UTF-8'?>{body}").as_bytes())
}

fn refusal(status: &str, code: &str) -> Answer {
    xml(status, "", &format!("<Error><Code>{code}</Code><Message>No.</Message></Error>"))
}
