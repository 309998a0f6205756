//! HTTP: who may ask, and how answers go out. What is answered is in [`crate::api`].

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use crate::api;
use crate::config::ViewConfig;
use crate::error::ViewError;
use crate::reply::{Reply, json};
use crate::state::Shared;

/// Connections at a time; a browser has six.
const CONNECTIONS_MAX: usize = 64;

/// Requests that are worked on at a time.
const WORKERS_MAX: usize = 32;

/// How long a client may take to say what it wants.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a server that runs looks whether it should stop.
const STOP_EVERY: Duration = Duration::from_millis(100);

/// A server that listens, and does not answer yet.
pub struct Server {
    runtime: Runtime,
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
    host: Arc<str>,
}

impl Server {
    /// Reads the manifest and takes the port.
    ///
    /// # Errors
    /// The folder is no cache; the port or the address cannot be had.
    pub fn bind(config: ViewConfig) -> Result<Server, ViewError> {
        let (host, port) = (config.host.clone(), config.port);
        let failed = |source| ViewError::Serve { host: host.clone(), port, source };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(WORKERS_MAX)
            .enable_all()
            .build()
            .map_err(failed)?;
        let listener = listen(&runtime, &host, port)?;
        let address = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared::open(config)?);
        Ok(Server { runtime, listener, address, shared, host: host.into() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` is set.
    pub fn run(self, stop: &AtomicBool) {
        let Server { runtime, listener, shared, host, .. } = self;
        runtime.block_on(async {
            let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
            while !stop.load(Ordering::SeqCst) {
                // No connection for a while, or a client that gave up, or too many open files, which passes.
                let Ok(Ok((stream, _))) = tokio::time::timeout(STOP_EVERY, listener.accept()).await else { continue };
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                let (shared, host) = (Arc::clone(&shared), Arc::clone(&host));
                tokio::spawn(async move {
                    serve(stream, shared, host).await;
                    drop(place);
                });
            }
        });
        shared.end();
        runtime.shutdown_background();
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

async fn serve(stream: TcpStream, shared: Arc<Shared>, host: Arc<str>) {
    let service = service_fn(move |request| {
        let (shared, host) = (Arc::clone(&shared), Arc::clone(&host));
        async move { Ok::<_, Infallible>(response(answer(request, shared, &host).await)) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!("connection: {error}");
    }
}

/// Tells the work on a request that nobody waits for it: the client has gone, and this was dropped.
struct Unwanted(Arc<AtomicBool>);

impl Drop for Unwanted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>, host: &str) -> Reply {
    if let Some(refused) = refused(&request, host) {
        return refused;
    }
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let unwanted = Unwanted(Arc::default());
    let flag = Arc::clone(&unwanted.0);
    let work = move || api::answer(&shared, &method, uri.path(), uri.query().unwrap_or(""), &flag);
    let reply = tokio::task::spawn_blocking(work).await;
    drop(unwanted);
    // Only a panic gets here, which the program's hook has reported.
    reply.unwrap_or_else(|_| refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal error; please report this"))
}

/// Requests that other pages make a browser send. A page of any origin may send requests to this machine; it may not read
/// the answers, unless it gets its own name to stand for this machine's address (DNS rebinding). That name is then the
/// request's host, so hosts are names of this machine or addresses, never other names.
fn refused(request: &Request<Incoming>, host: &str) -> Option<Reply> {
    let headers = request.headers();
    let Some(named) = headers.get(header::HOST).and_then(|value| value.to_str().ok()) else {
        return Some(refusal(StatusCode::BAD_REQUEST, "the request has no Host header"));
    };
    if !is_own_name(named, host) {
        let text = "this server answers under the name localhost, under --host and under IP addresses only";
        return Some(refusal(StatusCode::FORBIDDEN, text));
    }
    if request.method() != Method::GET && request.method() != Method::HEAD && !is_own_page(headers, named) {
        return Some(refusal(StatusCode::FORBIDDEN, "this request came from a page of another origin"));
    }
    None
}

fn is_own_name(named: &str, host: &str) -> bool {
    let is_port = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let name = named.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(named, |(name, _)| name);
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || name.eq_ignore_ascii_case(host) || address.parse::<IpAddr>().is_ok()
}

fn is_own_page(headers: &HeaderMap, named: &str) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    origin.to_str().is_ok_and(|origin| origin.strip_prefix("http://") == Some(named))
}

fn refusal(status: StatusCode, text: &str) -> Reply {
    Reply { status, ..json(&json!({ "error": text })) }
}

/// Scripts, styles and pictures come from here and from nowhere else.
const POLICY: &str =
    "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

fn response(reply: Reply) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(reply.body)));
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    let mut set = |name, value: &'static str| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_TYPE, reply.kind);
    set(header::CACHE_CONTROL, if reply.may_be_kept { "private, max-age=3600" } else { "no-cache" });
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "no-referrer");
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    if let Some(name) = reply.download {
        let value = HeaderValue::from_str(&format!("attachment; filename=\"{name}\""));
        value.into_iter().for_each(|value| _ = headers.insert(header::CONTENT_DISPOSITION, value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_answered() {
        for own in ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "[::1]:80", "192.168.1.7", "box.lan:8080"] {
            assert!(is_own_name(own, "box.lan"), "{own}");
        }
        for other in
            ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "", ":80"]
        {
            assert!(!is_own_name(other, "127.0.0.1"), "{other}");
        }
        let origin = |text: &'static str| HeaderMap::from_iter([(header::ORIGIN, HeaderValue::from_static(text))]);
        assert!(
            is_own_page(&HeaderMap::new(), "localhost:1") && is_own_page(&origin("http://localhost:1"), "localhost:1")
        );
        assert!(
            !is_own_page(&origin("http://evil.example"), "localhost:1") && !is_own_page(&origin("null"), "localhost:1")
        );
    }
}
