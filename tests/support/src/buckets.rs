//! Object stores for tests: a real S3 server (moto, from PyPI), and a proxy that injects faults and counts.

use crate::skip;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long a server may take to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Moto asks for a signature and does not look at it.
const ANY_SIGNATURE: &str =
    "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=x";

/// Ends with its parent, whose end closes the pipe.
const SERVER: &str = "
import os, sys, threading
def wait():
    sys.stdin.read()
    os._exit(0)
threading.Thread(target=wait, daemon=True).start()
from moto.server import main
main(['-H', '127.0.0.1', '-p', sys.argv[1]])
";

/// An S3 server of this process's own, in memory.
pub struct S3Server {
    child: Child,
    address: SocketAddr,
}

impl S3Server {
    /// Starts one with an empty bucket `bucket`; `None`, with the reason noted, where moto cannot be installed.
    ///
    /// # Panics
    /// When it is installed and does not start.
    pub fn start() -> Option<S3Server> {
        let python = python_with_moto()?;
        // Free at this moment; nobody else on this machine asks for just this one.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        let mut command = Command::new(python);
        command.args(["-c", SERVER, &port.to_string()]).stdin(Stdio::piped());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("python starts");
        let server = S3Server { child, address: SocketAddr::from(([127, 0, 0, 1], port)) };
        let since = Instant::now();
        while TcpStream::connect(server.address).is_err() {
            assert!(since.elapsed() < PATIENCE, "moto does not start");
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(server.send("PUT", "/bucket", &[]).0, 200, "the bucket is created");
        Some(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Writes an object of `bucket`.
    ///
    /// # Panics
    /// When the server refuses it.
    pub fn put(&self, key: &str, body: &[u8]) {
        assert_eq!(self.send("PUT", &format!("/bucket/{key}"), body).0, 200, "{key} is written");
    }

    /// Writes all files below a folder as objects below `prefix`.
    ///
    /// # Panics
    /// When the folder cannot be read or the server refuses a file.
    pub fn put_folder(&self, folder: &Path, prefix: &str) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let key = format!("{prefix}/{}", path.file_name().expect("a name").to_string_lossy());
            if path.is_dir() {
                self.put_folder(&path, &key);
            } else {
                self.put(&key, &fs::read(&path).expect("a file"));
            }
        }
    }

    /// Reads an object of `bucket`, if it is there.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        let (status, body) = self.send("GET", &format!("/bucket/{key}"), &[]);
        (status == 200).then_some(body)
    }

    /// Removes an object of `bucket`.
    pub fn delete(&self, key: &str) {
        self.send("DELETE", &format!("/bucket/{key}"), &[]);
    }

    /// Keys of `bucket` that begin with `prefix`, sorted.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let (_, body) = self.send("GET", &format!("/bucket?list-type=2&max-keys=1000&prefix={prefix}"), &[]);
        let text = String::from_utf8_lossy(&body).into_owned();
        let keys = text.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
        keys.map(str::to_owned).collect()
    }

    /// Multipart uploads that were begun and not finished.
    pub fn num_uploads(&self) -> usize {
        let (_, body) = self.send("GET", "/bucket?uploads", &[]);
        String::from_utf8_lossy(&body).matches("<UploadId>").count()
    }

    /// Begins a multipart upload and leaves it.
    ///
    /// # Panics
    /// When the server refuses it.
    pub fn begin_upload(&self, key: &str) {
        assert_eq!(self.send("POST", &format!("/bucket/{key}?uploads"), &[]).0, 200);
    }

    fn send(&self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nContent-Type: application/octet-stream\r\n\
             Authorization: {ANY_SIGNATURE}\r\nConnection: close\r\n\r\n",
            self.address,
            body.len()
        );
        let answer = exchange(self.address, &[head.as_bytes(), body].concat()).expect("moto answers");
        (answer.status(), answer.body)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The variables by which a program finds a server: at `address`, with any credentials.
pub fn s3_variables(address: SocketAddr) -> [(&'static str, String); 5] {
    [
        ("AWS_ENDPOINT_URL", format!("http://{address}")),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_ACCESS_KEY_ID", "key".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
    ]
}

/// A Python of its own with moto, made once below `target/`.
fn python_with_moto() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let folder = target.join("object-store-env");
    let python = folder.join("bin/python");
    fs::create_dir_all(&target).expect("target/");
    let lock = File::create(target.join("object-store-env.lock")).expect("a lock");
    lock.lock().expect("a lock");
    let has_moto = || {
        let mut import = Command::new(&python);
        import.args(["-c", "import moto.server, flask"]).stderr(Stdio::null());
        import.status().is_ok_and(|status| status.success())
    };
    if has_moto() {
        return Some(python);
    }
    let run = |program: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let is_made = run(Path::new("python3"), &["-m", "venv", &folder.to_string_lossy()])
        && run(&python, &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "moto[server]>=5.1"]);
    if is_made && has_moto() {
        return Some(python);
    }
    skip("moto[server], an S3 server from PyPI, cannot be installed");
    None
}

/// An answer of a server: head with the empty line, and body.
#[derive(Clone)]
pub struct Answer {
    head: String,
    body: Vec<u8>,
}

impl Answer {
    /// An answer without a body of interest.
    pub fn status_only(status: &str) -> Answer {
        Answer::new(status, "", b"")
    }

    /// An answer with more header lines, each with its end.
    pub fn new(status: &str, headers: &str, body: &[u8]) -> Answer {
        let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        Answer { head, body: body.to_vec() }
    }

    /// The same answer, after which the connection ends.
    fn closing(self) -> Answer {
        let kept =
            self.head.lines().filter(|line| !line.is_empty() && !line.to_ascii_lowercase().starts_with("connection:"));
        let head: String = kept.map(|line| format!("{line}\r\n")).collect();
        Answer { head: format!("{head}Connection: close\r\n\r\n"), ..self }
    }

    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }
}

/// Sends a request whole and reads the answer to its end.
fn exchange(address: SocketAddr, request: &[u8]) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(request)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
    Ok(Answer { head: String::from_utf8_lossy(&bytes[..end]).into_owned(), body: bytes[end..].to_vec() })
}

/// A request as a server sees it.
pub struct Request {
    /// `GET /bucket/key HTTP/1.1` and the headers, as they came.
    pub head: String,
    body: Vec<u8>,
}

impl Request {
    /// The method.
    pub fn method(&self) -> &str {
        self.head.split(' ').next().unwrap_or_default()
    }

    /// The path with its query.
    pub fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// A header's value, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1);
        lines
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.trim())
    }

    fn read(stream: &TcpStream) -> Option<Request> {
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let request = Request { head, body: Vec::new() };
        let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        Some(Request { body, ..request })
    }
}

/// What becomes of a request at the proxy.
pub enum Fate {
    /// It is passed on.
    Pass,
    /// It is answered so, and not passed on.
    Answer(Answer),
    /// It is passed on, and answered with 500: the answer is lost.
    Lose,
    /// It is passed on after a while.
    Slow(Duration),
    /// It is passed on, and the answer's body ends half way.
    Tear,
    /// It is passed on without its condition (`If-None-Match`), as to a store that does not know it.
    Unconditional,
}

/// A proxy in front of a server, one request a connection.
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
        Proxy::serve(fate, move |request| {
            // One request a connection: the answer ends where the connection does.
            let kept = request.head.lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
            let mut head: String = kept.filter(|line| !line.is_empty()).map(|line| format!("{line}\r\n")).collect();
            head.push_str("Connection: close\r\n\r\n");
            match exchange(server, &[head.as_bytes(), &request.body].concat()) {
                Ok(answer) => answer.closing(),
                Err(_) => Answer::status_only("502 Bad Gateway"),
            }
        })
    }

    /// A server of its own, which `answer` is.
    ///
    /// # Panics
    /// When no port can be had.
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

    /// The most requests that were in flight at one time.
    pub fn most_in_flight(&self) -> usize {
        self.shared.most_in_flight.load(Ordering::SeqCst)
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
        // Whoever asked may have gone.
        let _ = stream.write_all(reply.head.as_bytes()).and_then(|()| stream.write_all(&reply.body[..sent]));
    }
}

/// A web server of files that are held in memory, with ranges: `GET` and `HEAD`.
///
/// # Panics
/// When no port can be had.
pub fn web_server(files: Vec<(String, Vec<u8>)>) -> Proxy {
    let files = Mutex::new(files);
    Proxy::serve(
        |_, _| Fate::Pass,
        move |request| {
            let files = files.lock().expect("no panic");
            let Some((_, content)) = files.iter().find(|(name, _)| format!("/{name}") == request.path()) else {
                return Answer::status_only("404 Not Found");
            };
            let range = request.header("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
            let etag = format!("ETag: \"{:x}\"\r\nAccept-Ranges: bytes\r\n", content.len());
            if request.method() == "HEAD" {
                let head =
                    format!("HTTP/1.1 200 OK\r\n{etag}Content-Length: {}\r\nConnection: close\r\n\r\n", content.len());
                return Answer { head, body: Vec::new() };
            }
            let Some((from, to)) = range else { return Answer::new("200 OK", &etag, content) };
            let from: usize = from.parse().unwrap_or(0);
            let end = to.parse::<usize>().map_or(content.len(), |to| (to + 1).min(content.len()));
            let headers = format!("{etag}Content-Range: bytes {from}-{}/{}\r\n", end - 1, content.len());
            Answer::new("206 Partial Content", &headers, &content[from..end])
        },
    )
}
