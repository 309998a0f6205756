//! Starts the inspector and sends HTTP requests to it; small caches for it.
#![allow(dead_code, reason = "each test file uses a part of it")]

use super::common::text;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokengrid_cache::{CacheWriter, GridSpec, JobSpec, OpenMode, Row};

/// Timeout, longer than any request here takes, so that a hang becomes a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The program, ready to answer; killed when the test ends.
pub(crate) struct Viewer {
    child: Child,
    pub address: String,
}

impl Viewer {
    pub(crate) fn start(cache: &Path, more: &[&str]) -> Viewer {
        // The test must not write to the user's folders.
        Viewer::start_with(cache, more, &[("XDG_CACHE_HOME", text(&cache.join(".user-cache")).to_owned())])
    }

    /// With these variables.
    pub(crate) fn start_with(cache: &Path, more: &[&str], variables: &[(&'static str, String)]) -> Viewer {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tokengrid"))
            .args([&["view", text(cache), "--port", "0", "--json"], more].concat())
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut object = String::new();
        for line in lines {
            object += &line;
            if line == "}" {
                break;
            }
        }
        let printed: Value = serde_json::from_str(&object).expect("one JSON object with the address");
        let address = printed["address"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
        Viewer { child, address }
    }

    /// Sends a request verbatim; status, head, body.
    pub(crate) fn send(&self, request: &str) -> (u16, String, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer in time");
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a whole head");
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head, answer[end + 4..].to_vec())
    }

    pub(crate) fn get(&self, target: &str) -> (u16, String, Vec<u8>) {
        self.send(&format!("GET {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address))
    }

    /// An answer of any status that must be JSON.
    pub(crate) fn ask(&self, target: &str) -> (u16, Value) {
        let (status, _, body) = self.get(target);
        (status, serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{target}: no JSON")))
    }

    #[track_caller]
    pub(crate) fn json(&self, target: &str) -> Value {
        let (status, value) = self.ask(target);
        assert_eq!(status, 200, "{target}: {value}");
        value
    }

    /// Polls an address until its background work is done.
    #[track_caller]
    pub(crate) fn wait_for(&self, target: &str) -> Value {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            let value = self.json(target);
            match value["state"].as_str() {
                Some("idle" | "running") => std::thread::sleep(Duration::from_millis(20)),
                _ => return value,
            }
        }
        panic!("{target} is still running");
    }

    /// Starts background work, and waits for its end.
    pub(crate) fn begun(&self, target: &str) -> Value {
        let host = &self.address;
        let start = format!("POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        assert_eq!(self.send(&start).0, 200);
        self.wait_for(target)
    }

    pub(crate) fn verified(&self) -> Value {
        self.begun("/api/health")
    }

    pub(crate) fn counted(&self) -> Value {
        self.begun("/api/statistics")
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends a viewer as Ctrl-C does; returns its exit code and its stderr.
#[cfg(unix)]
pub(crate) fn stopped(mut viewer: Viewer) -> (Option<i32>, String) {
    let id = viewer.child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let code = viewer.child.wait().unwrap().code();
    let mut said = String::new();
    viewer.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (code, said)
}

/// A cache of 4 x 4 grids of 18 bits in 3 classes, with what the arguments change.
pub(crate) fn made_cache(dir: &Path, images: usize, change: impl Fn(usize, &mut [u32], &mut i32)) {
    let mut job = JobSpec::new(GridSpec { height: 4, width: 4, bits: 18 }, images, 1);
    job.classes = ["cat", "dog", "fish"].map(str::to_owned).to_vec();
    (job.rows_per_group, job.groups_per_shard) = (8, 2);
    let mut writer = CacheWriter::open(dir, job, OpenMode::Resume).unwrap();
    for image in 0..images {
        let noise = |i: usize| ((image * 16 + i + 1) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut tokens: Vec<u32> = (0..16).map(|i| (noise(i) >> 40) as u32 & 0x3FFFF).collect();
        let class = image % 3;
        let mut label = class as i32;
        change(image, &mut tokens, &mut label);
        let key = format!("{}/{image}.jpg", ["cat", "dog", "fish"][class]);
        let row = Row { tokens: &tokens, label, key: &key, view: 0, crop_x: 0, crop_y: 0, flip: false };
        writer.push_image(image, &[row]).unwrap();
    }
    assert!(writer.finish().unwrap().published);
}
