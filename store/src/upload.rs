//! Files to objects: one request for a small file, a multipart upload for a larger one, whose object appears when it is complete.

use crate::bucket::{Bucket, key_of};
use crate::error::{StoreError, classify};
use crate::fetch::again;
use crate::place::Place;
use crate::runtime::wait_through;
use crate::traffic::count_sent;
use bytes::Bytes;
use futures_util::future::try_join_all;
use object_store::aws::AmazonS3;
use object_store::multipart::MultipartStore;
use object_store::path::Path as Key;
use object_store::signer::{SignedUrlOptions, Signer};
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};
use reqwest::{Method, StatusCode};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// Bytes of one part; smaller files are written by one request. S3 demands at least 5 MiB for all parts but the last.
pub const PART_BYTES: u64 = 8 << 20;

/// Parts that are sent at once: what an upload holds in memory.
const PARTS_IN_FLIGHT: usize = 4;

/// Most parts of one upload to S3; files of more than `PART_BYTES` times that get larger parts.
const PARTS_MAX: u64 = 10_000;

impl Bucket {
    /// Writes a file as an object, replacing an existing one. The object appears when it is complete.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the file cannot be read; the variant that names why a request failed after all retries. An
    /// upload that fails is aborted.
    pub fn upload(&self, file: &Path, key: &str) -> Result<(), StoreError> {
        let mut source = File::open(file).map_err(StoreError::io("open", file))?;
        let bytes = source.metadata().map_err(StoreError::io("read the size of", file))?.len();
        if bytes <= PART_BYTES {
            let mut whole = Vec::with_capacity(bytes as usize);
            source.read_to_end(&mut whole).map_err(StoreError::io("read", file))?;
            return self.put(key, whole.into()).map(drop);
        }
        let place = self.place(key);
        let failed = |error: object_store::Error| classify(&place, "write", &error);
        let mut upload = wait_through(self.store.put_multipart(&key_of(&place)?)).map_err(failed)?;
        let part_bytes = PART_BYTES.max(bytes.div_ceil(PARTS_MAX));
        let sent = send_parts(&mut *upload, &mut source, part_bytes, file, &place);
        let done = sent.and_then(|()| match wait_through(upload.complete()) {
            Ok(_) => Ok(()),
            // The answer to an earlier attempt may have been lost although the upload was completed.
            Err(_) if self.head(key)?.is_some_and(|object| object.bytes == bytes) => Ok(()),
            Err(error) => Err(failed(error)),
        });
        if done.is_err() {
            // Parts of an abandoned upload are stored, and charged for, until they are removed.
            let _ = wait_through(upload.abort());
        }
        done
    }

    /// Aborts the unfinished multipart uploads below a prefix of an S3 bucket, and returns how many there were. Other stores
    /// need no such call: Azure drops unfinished uploads after a week, for Google a lifecycle rule of the bucket does.
    ///
    /// # Errors
    /// The variant that names why a request failed after all retries.
    pub fn abort_uploads(&self, prefix: &str) -> Result<usize, StoreError> {
        let Some(s3) = &self.s3 else { return Ok(0) };
        let place = self.place(prefix);
        let is_busy =
            |error: &Refused| error.status.is_none_or(|status| status.is_server_error() || status.as_u16() == 429);
        let found =
            wait_through(again(async || list_uploads(s3, &place).await, is_busy)).map_err(|refused| refused.error)?;
        let is_below =
            |key: &str| key.strip_prefix(place.key()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let found: Vec<_> = found.into_iter().filter(|(key, _)| place.key().is_empty() || is_below(key)).collect();
        for (key, id) in &found {
            let place = self.place(key);
            let path = key_of(&place)?;
            match wait_through(s3.abort_multipart(&path, id)) {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(classify(&place, "abort the upload of", &error)),
            }
        }
        Ok(found.len())
    }
}

/// Sends the file in parts, a few at a time.
fn send_parts(
    upload: &mut dyn MultipartUpload,
    source: &mut File,
    part_bytes: u64,
    file: &Path,
    place: &Place,
) -> Result<(), StoreError> {
    loop {
        let mut parts = Vec::new();
        while parts.len() < PARTS_IN_FLIGHT {
            let mut part = Vec::with_capacity(part_bytes as usize);
            source.take(part_bytes).read_to_end(&mut part).map_err(StoreError::io("read", file))?;
            if part.is_empty() {
                break;
            }
            count_sent(part.len());
            parts.push(upload.put_part(PutPayload::from_bytes(Bytes::from(part))));
        }
        if parts.is_empty() {
            return Ok(());
        }
        wait_through(try_join_all(parts)).map_err(|error| classify(place, "write", &error))?;
    }
}

/// How long the signed URL of a listing is valid.
const LISTING_VALID: Duration = Duration::from_secs(300);

/// Keys and ids of unfinished uploads, the first thousand of them. `object_store` has no call for `ListMultipartUploads`, but
/// it signs the URL of one.
async fn list_uploads(s3: &AmazonS3, place: &Place) -> Result<Vec<(String, String)>, Refused> {
    let options = SignedUrlOptions::default().with_query([("uploads", ""), ("prefix", place.key())]);
    let url = s3.signed_url_opts(Method::GET, &Key::default(), LISTING_VALID, &options).await;
    let url =
        url.map_err(|error| Refused { error: classify(place, LIST, &error), status: Some(StatusCode::FORBIDDEN) })?;
    let failed = |detail: String, status: Option<StatusCode>| {
        let error = StoreError::Failed { place: place.clone(), action: LIST, detail };
        Refused { error, status }
    };
    let told = |error: reqwest::Error| failed(error.without_url().to_string(), None);
    let client = reqwest::Client::builder().build().map_err(told)?;
    let answer = client.get(url).send().await.map_err(told)?;
    let status = answer.status();
    let text = answer.text().await.map_err(told)?;
    if !status.is_success() {
        return Err(failed(format!("the server answered {status}"), Some(status)));
    }
    Ok(uploads_in(&text))
}

const LIST: &str = "list the uploads of";

/// Why a listing failed, and the HTTP status if there was an answer.
struct Refused {
    error: StoreError,
    status: Option<StatusCode>,
}

/// The uploads in an answer of `ListMultipartUploads`.
fn uploads_in(xml: &str) -> Vec<(String, String)> {
    let field = |upload: &str, name: &str| {
        let text = upload.split_once(&format!("<{name}>"))?.1.split_once(&format!("</{name}>"))?.0;
        Some(unescape(text))
    };
    let uploads = xml.split("<Upload>").skip(1).filter_map(|upload| upload.split("</Upload>").next());
    uploads.filter_map(|upload| Some((field(upload, "Key")?, field(upload, "UploadId")?))).collect()
}

fn unescape(text: &str) -> String {
    let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    entities.iter().fold(text.to_owned(), |text, (entity, character)| text.replace(entity, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_uploads_are_read_from_the_servers_answer() {
        let xml = "<?xml version='1.0'?><R><Bucket>b</Bucket><Upload><Key>a/b &amp; c</Key><UploadId>1</UploadId></Upload>\
                   <Upload><Key>d</Key><UploadId>x&lt;y</UploadId><Initiator/></Upload></R>";
        let found = uploads_in(xml);
        assert_eq!(found, [("a/b & c".to_owned(), "1".to_owned()), ("d".to_owned(), "x<y".to_owned())]);
        assert!(uploads_in("<R></R>").is_empty());
    }

    #[test]
    fn files_of_any_size_become_objects() {
        let folder = tempfile::tempdir().unwrap();
        let bucket = crate::Bucket::in_memory();
        for bytes in [0, 1, PART_BYTES, PART_BYTES + 1, (PARTS_IN_FLIGHT as u64 + 1) * PART_BYTES + 3] {
            let (path, content) = (folder.path().join("f"), (0..bytes).map(|i| (i / 999) as u8).collect::<Vec<_>>());
            std::fs::write(&path, &content).unwrap();
            bucket.upload(&path, "x/f").unwrap();
            assert!(bucket.read("x/f").unwrap().unwrap() == content, "{bytes}");
        }
    }
}
