//! The page as a browser runs it: its scripts from the running server, in a JavaScript engine, over a small document.
//!
//! No browser is needed, so that these tests run wherever the project builds. What they cannot show is layout.
#![allow(clippy::unwrap_used, dead_code, missing_docs)] // in a test, a panic is the report

use rquickjs::loader::{BuiltinLoader, BuiltinResolver};
use rquickjs::{CatchResultExt, Context, Function, Module, Runtime, Value};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Longer than anything here takes, so that a hang is a failure and not a wait.
const PATIENCE: Duration = Duration::from_secs(60);

const DOM: &str = include_str!("dom.js");

/// An answer of the server: status, head, body; status 0 when there is no server.
pub(crate) struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

/// Sends a request that a browser might.
pub(crate) fn ask(address: &str, method: &str, target: &str) -> Answer {
    send(
        address,
        &format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    )
}

/// Sends a request with a body.
pub(crate) fn post(address: &str, target: &str, body: &str) -> Answer {
    let length = body.len();
    let head = format!("POST {target} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\nConnection: close");
    send(address, &format!("{head}\r\n\r\n{body}"))
}

/// Sends a request as it is.
pub(crate) fn send(address: &str, request: &str) -> Answer {
    let none = || Answer { status: 0, head: String::new(), body: Vec::new() };
    let Ok(mut stream) = TcpStream::connect(address) else { return none() };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer in time");
    let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return none() };
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer[end + 4..].to_vec();
    let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Answer { status, head, body: if is_chunked { joined(&body) } else { body } }
}

/// An answer that must be JSON, whatever its status.
pub(crate) fn json(address: &str, method: &str, target: &str) -> (u16, serde_json::Value) {
    let answer = ask(address, method, target);
    (answer.status, serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{target}: no JSON")))
}

/// Has the rows counted, and waits for it.
pub(crate) fn count(address: &str) {
    let mut state = json(address, "POST", "/api/statistics").1;
    let started = Instant::now();
    while state["state"] == "running" && started.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(10));
        state = json(address, "GET", "/api/statistics").1;
    }
    assert_eq!(state["state"], "done", "{state}");
}

/// The chunks of a body, joined; what follows an incomplete one is left out.
fn joined(mut chunks: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = chunks.windows(2).position(|bytes| bytes == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&chunks[..end]).unwrap(), 16).unwrap();
        let Some(chunk) = chunks.get(end + 2..end + 2 + size).filter(|_| size > 0) else { break };
        body.extend(chunk);
        chunks = &chunks[end + 2 + size + 2..];
    }
    body
}

/// A page that is open.
pub(crate) struct Browser {
    runtime: Runtime,
    context: Context,
}

impl Browser {
    /// Opens `path` of the server at `address`.
    pub(crate) fn open(address: &str, path: &str) -> Browser {
        Self::open_behind(address, path, "")
    }

    /// As [`Browser::open`], behind a proxy that shows the server below `prefix` and takes that away from requests.
    pub(crate) fn open_behind(address: &str, path: &str, prefix: &'static str) -> Browser {
        let document = ask(address, "GET", path);
        assert_eq!(document.status, 200, "{path}: {}", document.head);
        let html = String::from_utf8(document.body).unwrap();
        let runtime = Runtime::new().unwrap();
        let (mut resolver, mut loader) = (BuiltinResolver::default(), BuiltinLoader::default());
        let assets = concat!(env!("CARGO_MANIFEST_DIR"), "/assets");
        for file in std::fs::read_dir(assets).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".js") {
                let script = ask(address, "GET", &format!("/assets/{name}"));
                assert_eq!(script.status, 200, "{name}");
                resolver.add_module(format!("assets/{name}"));
                loader.add_module(format!("assets/{name}"), script.body);
            }
        }
        runtime.set_loader(resolver, loader);
        let context = Context::full(&runtime).unwrap();
        runtime.set_host_promise_rejection_tracker(Some(Box::new(|ctx, _, reason: Value, is_handled| {
            let heard: Function = ctx.globals().get(if is_handled { "isHandled" } else { "mayBeUnhandled" }).unwrap();
            let _ = heard.call::<_, ()>((reason,));
        })));
        let browser = Browser { runtime, context };
        browser.context.with(|ctx| {
            let server = address.to_owned();
            let request = move |method: String, target: String, sent: String| -> (u16, String, String) {
                let target = target.strip_prefix(prefix).unwrap_or(&target).to_owned();
                let answer =
                    if sent.is_empty() { ask(&server, &method, &target) } else { post(&server, &target, &sent) };
                let Answer { status, head, body } = answer;
                (status, head, String::from_utf8_lossy(&body).into_owned())
            };
            ctx.globals()
                .set(
                    "ask",
                    Function::new(ctx.clone(), move |method, target, sent| {
                        let (status, kind, body) = request(method, target, sent);
                        vec![status.to_string(), kind, body]
                    })
                    .unwrap(),
                )
                .unwrap();
            ctx.eval::<(), _>(DOM).catch(&ctx).unwrap();
            let load: Function = ctx.globals().get("load").unwrap();
            load.call::<_, ()>((format!("http://{address}{prefix}{path}"), html)).catch(&ctx).unwrap();
            Module::evaluate(ctx.clone(), "assets/start.js", "import './app.js';").catch(&ctx).unwrap();
        });
        browser.settle();
        browser
    }

    /// Runs everything that the page waits for.
    pub(crate) fn settle(&self) {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            while self.runtime.execute_pending_job().is_ok_and(|did| did) {}
            if self.eval("reportUnhandled() || runTimers()") != "true" {
                return;
            }
            // The server works meanwhile.
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("the page goes on changing");
    }

    /// The value of an expression, as text.
    #[track_caller]
    pub(crate) fn eval(&self, script: &str) -> String {
        self.context.with(|ctx| {
            let value = ctx.eval::<Value, _>(format!("String({script})")).catch(&ctx);
            value.unwrap_or_else(|error| panic!("{script}: {error}")).as_string().unwrap().to_string().unwrap()
        })
    }

    /// Does something on the page, and waits for what follows.
    pub(crate) fn act(&self, script: &str) {
        self.eval(&format!("(() => {{ {script} }})()"));
        self.settle();
    }

    /// What the page says.
    pub(crate) fn text(&self) -> String {
        self.eval("document.getElementById('page').textContent")
    }

    /// What went wrong in its scripts.
    pub(crate) fn failures(&self) -> String {
        self.eval("failures.join('\\n')")
    }

    /// Messages about errors that a user would see.
    pub(crate) fn alerts(&self) -> String {
        self.eval("document.querySelectorAll('p').filter((p) => p.classList.contains('bad')).map((p) => p.textContent).join('|')")
    }
}
