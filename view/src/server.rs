//! HTTP: who may ask, and how answers go out. What is answered is in [`crate::api`].

use crate::api::{self, Lane};
use crate::body::{PartByPart, Sent};
use crate::config::ViewConfig;
use crate::connections::{Admitted, CONNECTIONS_MAX, Connection, Connections, WAIT_MAX, Watched};
use crate::error::ViewError;
use crate::files::Files;
use crate::names::{self, OwnNames};
use crate::reply::{Content, Refusal, Reply, json};
use crate::state::Shared;
use crate::text::printable;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

/// Requests that are worked on at a time: the sum of the lanes, and some for what is quick and for lists as files.
const WORKERS_MAX: usize = 48;
const ROWS_MAX: usize = 12;
const SEARCHES_MAX: usize = 2;
const PICTURES_MAX: usize = 20;

/// Long lists that are sent as files at a time.
const FILES_MAX: usize = 8;

/// How long a client may take to say what it wants.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it may take to send a selection, how long that may be, and how many may be on their way.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);
pub(crate) const BODY_BYTES_MAX: usize = 32 << 20;
const BODIES_MAX: usize = 4;

/// How often a server that runs looks whether it should stop.
const STOP_EVERY: Duration = Duration::from_millis(100);

/// A server that listens, and does not answer yet.
pub struct Server {
    runtime: Runtime,
    listener: TcpListener,
    address: SocketAddr,
    service: Arc<Service>,
}

/// What every connection needs to answer.
struct Service {
    shared: Arc<Shared>,
    names: OwnNames,
    /// Empty, or a path that begins with a slash and does not end in one.
    prefix: String,
    rows: Semaphore,
    searches: Semaphore,
    pictures: Semaphore,
    bodies: Semaphore,
    files: Arc<Files>,
}

impl Server {
    /// Reads the manifest and takes the port.
    ///
    /// # Errors
    /// [`ViewError::Prefix`] when the prefix is not a path; [`ViewError::PortTaken`], [`ViewError::PortForbidden`],
    /// [`ViewError::NoSuchHost`] and [`ViewError::Serve`] when the port or the address cannot be used; [`ViewError::Cache`] when
    /// the folder has no usable cache.
    pub fn bind(config: ViewConfig) -> Result<Server, ViewError> {
        let host = config.host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = config.port;
        let prefix = prefix(&config.prefix)?;
        let failed = |source| ViewError::Serve { host: host.clone(), port, source };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(WORKERS_MAX)
            .enable_all()
            .build()
            .map_err(failed)?;
        let listener = listen(&runtime, &host, port)?;
        let address = listener.local_addr().map_err(failed)?;
        let names = OwnNames::new(&host, &config.allowed_hosts);
        let service = Service {
            shared: Arc::new(Shared::open(config)?),
            names,
            prefix,
            rows: Semaphore::new(ROWS_MAX),
            searches: Semaphore::new(SEARCHES_MAX),
            pictures: Semaphore::new(PICTURES_MAX),
            bodies: Semaphore::new(BODIES_MAX),
            files: Files::new(FILES_MAX),
        };
        Ok(Server { runtime, listener, address, service: Arc::new(service) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What to open in a browser: the machine's name where it listens at all of its addresses.
    pub fn url(&self) -> String {
        let name = self.address.ip().is_unspecified().then(names::machine_name).flatten();
        let authority = match name {
            Some(name) => format!("{name}:{}", self.address.port()),
            None => self.address.to_string(),
        };
        let slash = if self.service.prefix.is_empty() { "" } else { "/" };
        format!("http://{authority}{}{slash}", self.service.prefix)
    }

    /// Answers until `stop` is set.
    pub fn run(self, stop: &AtomicBool) {
        let Server { runtime, listener, service, .. } = self;
        let connections = Connections::new(CONNECTIONS_MAX);
        runtime.block_on(async {
            while !stop.load(Ordering::SeqCst) {
                connections.close_stalled(WAIT_MAX);
                // No connection for a while, or a client that gave up.
                let Ok(accepted) = tokio::time::timeout(STOP_EVERY, listener.accept()).await else { continue };
                let Ok((stream, _)) = accepted else {
                    // Too many open files, for instance, which passes.
                    tokio::time::sleep(STOP_EVERY).await;
                    continue;
                };
                let Some(admitted) = connections.admit() else { continue };
                tokio::spawn(serve(stream, admitted, Arc::clone(&service)));
            }
        });
        service.shared.end();
        runtime.shutdown_background();
    }
}

/// Checks a prefix; without the slash at its end.
fn prefix(text: &str) -> Result<String, ViewError> {
    let path = text.trim_matches('/');
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@/".contains(&byte);
    let is_path = path.bytes().all(is_plain) && !path.contains("//") && path.split('/').all(|part| part != "..");
    match path {
        _ if !is_path => Err(ViewError::Prefix { prefix: text.to_owned() }),
        "" => Ok(String::new()),
        path => Ok(format!("/{path}")),
    }
}

fn listen(runtime: &Runtime, host: &str, port: u16) -> Result<TcpListener, ViewError> {
    let named = |source| ViewError::NoSuchHost { host: host.to_owned(), source };
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(named)?.collect();
    runtime.block_on(TcpListener::bind(addresses.as_slice())).map_err(|source| {
        let host = host.to_owned();
        match source.kind() {
            io::ErrorKind::AddrInUse => ViewError::PortTaken { host, port },
            io::ErrorKind::PermissionDenied => ViewError::PortForbidden { host, port },
            io::ErrorKind::AddrNotAvailable => ViewError::NoSuchHost { host, source },
            _ => ViewError::Serve { host, port, source },
        }
    })
}

async fn serve(stream: TcpStream, admitted: Admitted, service: Arc<Service>) {
    let connection = Arc::clone(admitted.connection());
    let answers = service_fn(|request| {
        let (service, connection) = (Arc::clone(&service), Arc::clone(&connection));
        async move {
            let working = connection.works();
            let reply = service.answer(request).await;
            drop(working);
            Ok::<_, Infallible>(response(reply, &service.files, &connection))
        }
    });
    let watched = Watched { stream, connection: Arc::clone(&connection) };
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(watched), answers);
    let (mut served, mut closed) = (pin!(served), pin!(connection.closed()));
    let either = poll_fn(|cx| match closed.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(Ok(())),
        Poll::Pending => served.as_mut().poll(cx),
    });
    if let Err(error) = either.await {
        tracing::debug!("connection: {error}");
    }
}

/// Ends the work on a request when it is dropped: the client has gone.
struct Unwanted(Arc<AtomicBool>);

impl Drop for Unwanted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Service {
    async fn answer(&self, request: Request<Incoming>) -> Reply {
        if let Some(refused) = self.refused(&request) {
            return refused;
        }
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let Some(path) = self.path(uri.path()) else { return moved_to_folder(&self.prefix) };
        let path = path.to_owned();
        // What a selection is sent for is done, or begun, before the next one may be sent.
        let _sent = if method == Method::POST { self.bodies.acquire().await.ok() } else { None };
        let body = match body(request).await {
            Ok(body) => body,
            Err(refused) => return refused,
        };
        let unwanted = Unwanted(Arc::default());
        let flag = Arc::clone(&unwanted.0);
        // Whoever waits here holds no thread, and leaves the queue with its connection. A lane is never closed.
        let _slot = match Lane::of(&path, uri.query().unwrap_or("")) {
            Lane::Quick => None,
            Lane::Rows => self.rows.acquire().await.ok(),
            Lane::Search => self.searches.acquire().await.ok(),
            Lane::Pictures => self.pictures.acquire().await.ok(),
        };
        let shared = Arc::clone(&self.shared);
        let work = move || api::answer(&shared, &method, &path, uri.query().unwrap_or(""), &body, &flag);
        let reply = tokio::task::spawn_blocking(work).await;
        drop(unwanted);
        reply.unwrap_or_else(|_| refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal error; please report this"))
    }

    /// The part of a path after the prefix, where it has that; `None` for the prefix alone.
    fn path<'a>(&self, path: &'a str) -> Option<&'a str> {
        match path.strip_prefix(self.prefix.as_str()) {
            Some("") if !self.prefix.is_empty() => None,
            Some(rest) if rest.starts_with('/') => Some(rest),
            // A proxy may have taken the prefix away.
            _ => Some(path),
        }
    }

    /// Requests that other pages make a browser send, and requests for other servers.
    fn refused(&self, request: &Request<Incoming>) -> Option<Reply> {
        let headers = request.headers();
        let Some(named) = headers.get(header::HOST).and_then(|value| value.to_str().ok()) else {
            return Some(refusal(StatusCode::BAD_REQUEST, "the request has no Host header"));
        };
        if !self.names.contains(named) {
            let text = format!(
                "this server answers under localhost, the names and addresses of its machine, and what --host and \
                 --allow-host name; {} is none of them",
                printable(named, 100)
            );
            return Some(refusal(StatusCode::FORBIDDEN, &text));
        }
        let is_change = request.method() != Method::GET && request.method() != Method::HEAD;
        let is_foreign =
            if is_change { !self.names.is_own_page(headers, named) } else { names::is_from_another_site(headers) };
        is_foreign.then(|| refusal(StatusCode::FORBIDDEN, "this request came from a page of another origin"))
    }
}

/// What came with a request that changes something; nothing else has use for a body.
async fn body(request: Request<Incoming>) -> Result<Bytes, Reply> {
    if request.method() != Method::POST {
        return Ok(Bytes::new());
    }
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
    match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let most = BODY_BYTES_MAX >> 20;
            Err(refusal(StatusCode::PAYLOAD_TOO_LARGE, &format!("the selection is longer than {most} MiB")))
        }
        Ok(Err(_)) | Err(_) => Err(refusal(StatusCode::BAD_REQUEST, "the request's body did not arrive")),
    }
}

fn refusal(status: StatusCode, text: &str) -> Reply {
    Reply { status, ..json(&json!({ "error": text })) }
}

/// The prefix without a slash at its end is no folder: what is relative to it would be beside it.
fn moved_to_folder(prefix: &str) -> Reply {
    let name = prefix.rsplit('/').next().unwrap_or_default();
    Reply { location: Some(format!("{name}/")), ..refusal(StatusCode::PERMANENT_REDIRECT, "see below the slash") }
}

/// Scripts, styles and pictures come from here and from nowhere else.
const POLICY: &str =
    "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'self'; form-action 'none'";

fn response(reply: Reply, files: &Arc<Files>, connection: &Arc<Connection>) -> Response<Sent> {
    let body = match reply.body {
        Content::Whole(bytes) => Sent::Whole(Full::new(bytes)),
        Content::Parts(parts) => match files.admit(connection) {
            Some(slot) => Sent::Parts { parts: PartByPart::Waiting(parts), _slot: slot },
            None => return response(Refusal::Busy.reply(), files, connection),
        },
    };
    let mut response = Response::new(body);
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    let mut set = |name, value: &'static str| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_TYPE, reply.kind);
    set(header::CACHE_CONTROL, if reply.may_be_kept { "private, max-age=3600" } else { "no-cache" });
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "no-referrer");
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    let download = reply.download.map(|name| format!("attachment; filename=\"{name}\""));
    for (name, value) in [(header::CONTENT_DISPOSITION, download), (header::LOCATION, reply.location)] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            headers.insert(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_path() {
        for (text, expected) in
            [("", ""), ("/", ""), ("tokens", "/tokens"), ("/user/me/proxy/8080/", "/user/me/proxy/8080")]
        {
            assert_eq!(prefix(text).unwrap(), expected, "{text}");
        }
        for text in ["a b", "a?b", "a#b", "a//b", "/../x", "a\nb", "\u{e9}"] {
            assert!(prefix(text).is_err(), "{text}");
        }
    }
}
