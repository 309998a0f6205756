//! What can go wrong with an object store: one variant for each remedy.

use crate::contact::has_answered;
use crate::place::{Place, Scheme};
use crate::settings::{anonymous_variable, is_anonymous, names_metadata_server, without_tls};
use std::io;
use std::path::PathBuf;

/// An error of this crate: one line that says what is wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // The texts are the documentation; fields are named after what they hold.
pub enum StoreError {
    #[error(
        "{url}: {problem}; expected s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or https://host/path"
    )]
    Url { url: String, problem: &'static str },

    #[error("{place}: no such object, and none below it; check the spelling")]
    NotFound { place: Place },

    #[error("{place}: there is no bucket '{}'{endpoint}; check its name and, for a store of your own, the endpoint ({})", place.bucket(), endpoint_variable(place.scheme()))]
    NoBucket { place: Place, endpoint: String },

    #[error("{place}: the server does not accept the credentials ({code}); check {}", credential_variables(place.scheme()))]
    Credentials { place: Place, code: String },

    #[error("{place}: {missing}; set {}{}", credential_variables(place.scheme()), without_credentials(place.scheme()))]
    NoCredentials { place: Place, missing: String },

    #[error("{place}: {what}, {problem}")]
    Endpoint { place: Place, what: String, problem: String },

    #[error("{place}: a setting in the environment cannot be used ({detail}); check the variables {}", variables(place.scheme()))]
    Settings { place: Place, detail: String },

    #[error("{place}: access is denied ({action}); {}", denied_because(place.scheme()))]
    Denied { place: Place, action: &'static str },

    #[error(
        "{place}: the clock of this machine differs too much from the server's, which refuses the signature; set the clock (for example with `timedatectl set-ntp true`)"
    )]
    ClockSkew { place: Place },

    #[error("{place}: the bucket lies in another region{found}; set AWS_REGION to its region")]
    Region { place: Place, found: String },

    #[error("{place}: the server cannot be reached ({detail}); check the network and the endpoint ({})", endpoint_variable(place.scheme()))]
    Unreachable { place: Place, detail: String },

    #[error(
        "cannot {action} {place}: the server no longer answers ({detail}); what is finished is kept: run the command again when it does"
    )]
    Lost { place: Place, action: &'static str, detail: String },

    #[error(
        "{place}: the server's certificate is not accepted ({detail}); for a server with an authority of its own, name the file of that authority's certificate in SSL_CERT_FILE"
    )]
    Certificate { place: Place, detail: String },

    #[error("{place}: {what}")]
    Unsupported { place: Place, what: &'static str },

    #[error("{place} was replaced while it was read: run the command again")]
    Changed { place: Place },

    #[error(
        "{place}: {expected} bytes were requested, {actual} arrived; the server does not serve byte ranges correctly"
    )]
    Length { place: Place, expected: u64, actual: u64 },

    #[error("{place} has {bytes} bytes, more than the limit of {bytes_max} for such an object")]
    TooLarge { place: Place, bytes: u64, bytes_max: u64 },

    #[error(
        "cannot {action} {place}: {detail}; what is finished is kept: run the command again when the server is available"
    )]
    Failed { place: Place, action: &'static str, detail: String },

    #[error(
        "{place} has the checksum {actual}, expected {expected}: the object is damaged; write it again or restore it from a copy"
    )]
    Checksum { place: Place, expected: String, actual: String },

    #[error("{place} needs {needed} bytes in {}, where {limit} are allowed (--stage-size) and {free} are free; free some space, raise the limit, or name another folder with --stage-dir", folder.display())]
    StageFull { place: Place, folder: PathBuf, needed: u64, limit: u64, free: u64 },

    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },

    #[error("stopped")]
    Cancelled,
}

impl StoreError {
    /// Names the local file in an error of the system.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.into();
        move |source| StoreError::Io { action, path, source }
    }
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> io::Error {
        let kind = match &error {
            StoreError::Io { source, .. } => source.kind(),
            StoreError::NotFound { .. } => io::ErrorKind::NotFound,
            StoreError::Denied { .. } | StoreError::Credentials { .. } => io::ErrorKind::PermissionDenied,
            StoreError::Cancelled => io::ErrorKind::Interrupted,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

/// The setting that names the endpoint of a self-hosted store.
fn endpoint_variable(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::S3 => "AWS_ENDPOINT_URL, with AWS_ALLOW_HTTP=true for http",
        Scheme::Gs => "GOOGLE_BASE_URL, or gcs_base_url in the service account's file",
        Scheme::Az => "AZURE_STORAGE_ENDPOINT and AZURE_STORAGE_ACCOUNT_NAME",
        Scheme::Http => "the host in the URL",
    }
}

/// The settings that hold credentials.
fn credential_variables(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::S3 => {
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for temporary ones, AWS_SESSION_TOKEN (a profile in ~/.aws is not read: `aws configure export-credentials --format env` makes variables of it)"
        }
        Scheme::Gs => {
            "GOOGLE_APPLICATION_CREDENTIALS, the path of a service account's file, or run `gcloud auth application-default login`"
        }
        Scheme::Az => "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (or AZURE_STORAGE_SAS_TOKEN)",
        Scheme::Http => "the server's own rules: only public files can be read",
    }
}

/// The variables of a cloud.
fn variables(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::S3 => "AWS_*",
        Scheme::Gs => "GOOGLE_*",
        Scheme::Az => "AZURE_*",
        Scheme::Http => "HTTP_PROXY, HTTPS_PROXY and SSL_CERT_FILE",
    }
}

/// How public data are read, as the end of a sentence that names the credentials.
fn without_credentials(scheme: Scheme) -> String {
    match scheme {
        Scheme::Http => String::new(),
        scheme => format!("; public data are read without credentials where {}=true", anonymous_variable(scheme)),
    }
}

/// Why access may be denied, and what to do.
fn denied_because(scheme: Scheme) -> String {
    let variable = anonymous_variable(scheme);
    match scheme {
        Scheme::Http => "only public files can be read".to_owned(),
        scheme if is_anonymous(scheme) => format!(
            "the request had no credentials, since {variable}=true: where the data are not public, unset it and set {}",
            credential_variables(scheme)
        ),
        _ => "the credentials do not permit this: see the permissions in docs/src/object-stores.md".to_owned(),
    }
}

/// Longest part of a server's answer that an error quotes, in characters.
const DETAIL_CHARS: usize = 240;

/// Codes of the stores, by what they mean.
const CREDENTIAL_CODES: [&str; 9] = [
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "AuthenticationFailed",
    "InvalidAuthenticationInfo",
    "invalid_grant",
    "Invalid Credentials",
];
const REGION_CODES: [&str; 4] =
    ["PermanentRedirect", "AuthorizationHeaderMalformed", "redirect without LOCATION", "TemporaryRedirect"];
/// What the HTTP library says of an address without TLS where it must have it.
const SCHEME_REFUSED: &str = "URL scheme is not allowed";
const BUCKET_CODES: [&str; 3] = ["NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist"];

/// What an error of `object_store` means to a user. `action` is a verb: `read`.
pub(crate) fn classify(place: &Place, action: &'static str, error: &object_store::Error) -> StoreError {
    use object_store::Error;
    let text = chain(error);
    let has = |code: &&&str| text.contains(**code);
    let place = place.clone();
    if names_metadata_server(&text) {
        let missing = format!(
            "there are no credentials in the environment, and this machine's metadata server gives none ({})",
            detail(&text)
        );
        return StoreError::NoCredentials { place, missing };
    }
    if text.contains(SCHEME_REFUSED) {
        let (what, problem) = ("the server's address begins with http://".to_owned(), without_tls(place.scheme()));
        return StoreError::Endpoint { place, what, problem };
    }
    if text.contains("RequestTimeTooSkewed") {
        return StoreError::ClockSkew { place };
    }
    if let Some(code) = CREDENTIAL_CODES.iter().find(has) {
        return StoreError::Credentials { place, code: (*code).to_owned() };
    }
    if REGION_CODES.iter().any(|code| has(&code)) && place.scheme() == Scheme::S3 {
        let found = between(&text, "<Region>", "</Region>").or_else(|| between(&text, "expecting '", "'"));
        return StoreError::Region { place, found: found.map_or_else(String::new, |region| format!(", {region}")) };
    }
    if BUCKET_CODES.iter().any(|code| has(&code)) {
        let endpoint = std::env::var("AWS_ENDPOINT_URL").ok().filter(|_| place.scheme() == Scheme::S3);
        return StoreError::NoBucket { place, endpoint: endpoint.map_or_else(String::new, |at| format!(" at {at}")) };
    }
    match error {
        Error::NotFound { .. } => StoreError::NotFound { place },
        Error::PermissionDenied { .. } => StoreError::Denied { place, action },
        Error::Unauthenticated { .. } if is_anonymous(place.scheme()) => StoreError::Denied { place, action },
        Error::Unauthenticated { .. } => StoreError::Credentials { place, code: "401 Unauthorized".to_owned() },
        Error::Precondition { .. } | Error::NotModified { .. } => StoreError::Changed { place },
        Error::NotSupported { .. } | Error::NotImplemented { .. } => {
            StoreError::Unsupported { place, what: "the server does not support this" }
        }
        _ if text.contains("AccessDenied") || text.contains(" 403 Forbidden") => StoreError::Denied { place, action },
        _ if text.contains("NotPartial") || text.contains("not a partial response") => {
            StoreError::Unsupported { place, what: "the server does not serve ranges (it answers with the whole file)" }
        }
        _ if is_about_certificate(error) => StoreError::Certificate { place, detail: root_cause(error) },
        _ if is_connection(&text) && has_answered(&place) => {
            StoreError::Lost { place, action, detail: connection_detail(error) + &retries(&text) }
        }
        _ if is_connection(&text) => StoreError::Unreachable { place, detail: connection_detail(error) },
        _ if text.contains("status code: ") || !text.contains("Error performing ") => {
            StoreError::Failed { place, action, detail: detail(&text) }
        }
        // No answer: the request with its address and times says nothing that the place does not.
        _ => StoreError::Failed { place, action, detail: root_cause(error) + &retries(&text) },
    }
}

/// An error of a client that cannot be made.
pub(crate) fn unusable(place: &Place, error: &object_store::Error) -> StoreError {
    let text = detail(&chain(error));
    // `Generic S3 error: ` says nothing to a user.
    let reason = text.strip_prefix("Generic ").and_then(|rest| rest.split_once(" error: ")).map(|(_, reason)| reason);
    StoreError::Settings { place: place.clone(), detail: reason.unwrap_or(&text).to_owned() }
}

/// Whether a connection was not made because of the server's certificate.
pub(crate) fn is_about_certificate(error: &dyn std::error::Error) -> bool {
    root_cause(error).contains("certificate")
}

fn is_connection(text: &str) -> bool {
    ["Connection refused", "dns error", "tcp connect error", "client error (Connect)"]
        .iter()
        .any(|known| text.contains(known))
}

/// Why no connection was made.
fn connection_detail(error: &object_store::Error) -> String {
    let cause = root_cause(error);
    // A server without TLS closes the connection, or answers in what rustls calls a message of an invalid type.
    let is_without_tls = cause.contains("InvalidContentType") || cause.contains("tls handshake eof");
    let hint = if is_without_tls { ": it may not speak TLS; an address without TLS begins with http://" } else { "" };
    format!("{cause}{hint}")
}

/// An error and its causes, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = inner.source();
    }
    text
}

/// The innermost cause: what a user can act upon.
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(cause) = inner.source() {
        inner = cause;
    }
    inner.to_string()
}

fn between(text: &str, start: &str, end: &str) -> Option<String> {
    let rest = &text[text.find(start)? + start.len()..];
    Some(rest[..rest.find(end)?].to_owned())
}

/// The part of an answer that helps: the status with the retries, without markup.
fn detail(text: &str) -> String {
    let retries = retries(text);
    if let Some(status) = between(text, "status code: ", ":") {
        let code = between(text, "<Code>", "</Code>").map_or_else(String::new, |code| format!(" ({code})"));
        return format!("the server answered {status}{code}{retries}");
    }
    let words: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let short: String = words.chars().take(DETAIL_CHARS).collect();
    format!("{short}{retries}")
}

/// How often a request was repeated, as the end of a sentence; empty if it was not.
fn retries(text: &str) -> String {
    between(text, "after ", " retries").map_or_else(String::new, |n| format!(" after {n} retries"))
}
