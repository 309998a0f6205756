//! A proxy that injects faults and counts.

use super::message::{Answer, Request, exchange};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Handling of a request by the proxy.
pub enum Fate {
    /// It is passed on.
    Pass,
    /// It gets this answer, and is not passed on.
    Answer(Answer),
    /// It is passed on, and answered with 500: the answer is lost.
    Lose,
    /// It is passed on after a delay.
    Slow(Duration),
    /// It is passed on, and the answer's body is cut in half.
    Tear,
    /// It is passed on without its condition (`If-None-Match`), as to a store that does not support it.
    Unconditional,
}

/// A proxy in front of a server, one request per connection.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    requests: AtomicUsize,
    body_bytes: AtomicU64,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
}

impl Proxy {
    /// Starts one; `fate` decides for each request, by its number.
    pub fn start(server: SocketAddr, fate: impl Fn(usize, &Request) -> Fate + Send + Sync + 'static) -> Proxy {
        Proxy::serve(fate, move |request| pass_on(server, request))
    }

    /// Starts a server whose answer to each request is `answer`.
    ///
    /// # Panics
    /// When no port is free.
    pub fn serve(
        fate: impl Fn(usize, &Request) -> Fate + Send + Sync + 'static,
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Counts::default());
        let (counts, deciders) = (Arc::clone(&shared), Arc::new((fate, answer)));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (counts, deciders) = (Arc::clone(&counts), Arc::clone(&deciders));
                thread::spawn(move || counts.handle(&stream, &deciders.0, &deciders.1));
            }
        });
        Proxy { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests so far.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Bytes of bodies that were answered so far.
    pub fn body_bytes(&self) -> u64 {
        self.shared.body_bytes.load(Ordering::SeqCst)
    }

    /// The largest number of requests that were pending at one time.
    pub fn most_in_flight(&self) -> usize {
        self.shared.most_in_flight.load(Ordering::SeqCst)
    }
}

/// The server's answer to a request.
pub(super) fn pass_on(server: SocketAddr, request: &Request) -> Answer {
    // One request per connection: the answer ends where the connection does.
    let kept = request.head.lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    let mut head: String = kept.filter(|line| !line.is_empty()).map(|line| format!("{line}\r\n")).collect();
    head.push_str("Connection: close\r\n\r\n");
    match exchange(server, &[head.as_bytes(), &request.body].concat()) {
        Ok(answer) => answer.closing(),
        Err(_) => Answer::status_only("502 Bad Gateway"),
    }
}

impl Counts {
    fn handle(
        &self,
        mut stream: &TcpStream,
        fate: impl Fn(usize, &Request) -> Fate,
        answer: impl Fn(&Request) -> Answer,
    ) {
        let Some(request) = Request::read(stream) else { return };
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_in_flight.fetch_max(now, Ordering::SeqCst);
        let (reply, is_torn) = match fate(number, &request) {
            Fate::Pass => (answer(&request), false),
            Fate::Answer(reply) => (reply, false),
            Fate::Lose => {
                answer(&request);
                (Answer::status_only("500 Internal Server Error"), false)
            }
            Fate::Slow(pause) => {
                thread::sleep(pause);
                (answer(&request), false)
            }
            Fate::Tear => (answer(&request), true),
            Fate::Unconditional => {
                let kept = request.head.lines().filter(|line| !line.to_ascii_lowercase().starts_with("if-none-match:"));
                let head = kept.map(|line| format!("{line}\r\n")).collect();
                (answer(&Request { head, body: request.body.clone() }), false)
            }
        };
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        let sent = if is_torn { reply.body.len() / 2 } else { reply.body.len() };
        self.body_bytes.fetch_add(sent as u64, Ordering::SeqCst);
        // The client may have closed the connection.
        let _ = stream.write_all(reply.head.as_bytes()).and_then(|()| stream.write_all(&reply.body[..sent]));
    }
}
