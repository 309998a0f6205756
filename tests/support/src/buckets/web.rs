//! Web servers of files.

use super::environment::{TRUSTME, environment_with};
use super::message::Answer;
use super::proxy::{Fate, Proxy};
use super::server::Program;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// A web server of files that are held in memory, with ranges: `GET` and `HEAD`.
///
/// # Panics
/// When no port is free.
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

/// Serves the files of a folder with ranges by HTTPS, with a certificate of a private authority. Prints the port.
const HTTPS: &str = r#"
import http.server, pathlib, ssl, sys
import trustme

root, authority = map(pathlib.Path, sys.argv[1:3])

class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = root / self.path.lstrip("/")
        if not path.is_file():
            return self.send_error(404)
        content = path.read_bytes()
        start, end = 0, len(content)
        wanted = self.headers.get("Range")
        if wanted:
            first, last = wanted.removeprefix("bytes=").split("-")
            start, end = int(first), min(int(last) + 1 if last else end, end)
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[start:end])

    def log_message(self, *arguments):
        pass

ca = trustme.CA()
ca.cert_pem.write_to_path(str(authority))
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
ca.issue_cert(sys.argv[3]).configure_cert(context)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
# Hands are shaken by the thread of the connection: a client that does not like the certificate ends only its own.
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

/// A web server with TLS. A client needs the file with its authority's certificate.
pub struct HttpsServer {
    _program: Program,
    address: SocketAddr,
    authority: PathBuf,
}

impl HttpsServer {
    /// Serves the files below `root` as `host`, the name in the certificate; the authority's certificate is written
    /// to `authority`. `None`, with the reason recorded, where certificates cannot be made.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn start(root: &Path, authority: &Path, host: &str) -> Option<HttpsServer> {
        let python = environment_with(&TRUSTME)?.join("bin/python");
        let mut command = Command::new(python);
        command.args(["-c", HTTPS]).arg(root).arg(authority).arg(host);
        let mut program = Program::start(&command, Stdio::piped());
        let port = program.first_line().trim().parse().expect("a port");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Some(HttpsServer { _program: program, address, authority: authority.to_owned() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate of its authority, for `SSL_CERT_FILE`.
    pub fn authority(&self) -> &Path {
        &self.authority
    }
}
