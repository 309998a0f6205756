//! The server as clients meet it that mean harm, are slow, or come by other names.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod browser;
mod served;

use browser::{ask, send};
use serde_json::Value;
use served::{Served, Stub, labelled};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};
use tokengrid_cache::{CacheWriter, GridSpec, JobSpec, OpenMode, Row};
use tokengrid_view::{Decoder, ViewConfig};

/// An answer that must be JSON, whatever its status.
fn json(address: &str, method: &str, target: &str) -> (u16, Value) {
    let answer = ask(address, method, target);
    (answer.status, serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{target}: no JSON")))
}

/// Has the rows counted, and waits for it.
fn count(address: &str) {
    let mut state = json(address, "POST", "/api/statistics").1;
    let started = Instant::now();
    while state["state"] == "running" && started.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(10));
        state = json(address, "GET", "/api/statistics").1;
    }
    assert_eq!(state["state"], "done", "{state}");
}

#[test]
fn it_answers_under_the_machines_names_and_no_others() {
    let temp = tempfile::tempdir().unwrap();
    let dir = labelled(&temp.path().join("cache"), "a", 5);
    let config =
        ViewConfig { host: "0.0.0.0".into(), allowed_hosts: vec!["jupyter.lan".into()], ..ViewConfig::new(dir) };
    let server = Served::start(config);
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let status = |host: &str, method: &str, more: &str| {
        let request = format!(
            "{method} /api/health HTTP/1.1\r\nHost: {host}\r\n{more}Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
        send(&server.address, &request).status
    };
    for host in [
        "localhost:1",
        "127.0.0.1",
        "[::1]",
        "[::1]:8080",
        "10.1.2.3:80",
        "jupyter.lan",
        &machine,
        &machine.to_uppercase(),
    ] {
        assert_eq!(status(host, "GET", ""), 200, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "jupyter.lan.evil.example"] {
        assert_eq!(status(host, "GET", ""), 403, "{host}");
    }
    // Another site's page may not have work begun, nor pictures decoded.
    assert_eq!(status("localhost:1", "POST", "Origin: http://localhost:1\r\n"), 200);
    assert_eq!(status("jupyter.lan", "POST", "Origin: https://jupyter.lan\r\n"), 200);
    assert_eq!(status("localhost:1", "POST", "Origin: http://evil.example\r\n"), 403);
    assert_eq!(status("localhost:1", "POST", "Origin: null\r\n"), 403);
    assert_eq!(status("localhost:1", "POST", "Sec-Fetch-Site: cross-site\r\n"), 403);
    assert_eq!(status("localhost:1", "GET", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n"), 403);
    assert_eq!(status("localhost:1", "GET", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n"), 200);
}

#[test]
fn nothing_begins_by_being_asked_for() {
    let temp = tempfile::tempdir().unwrap();
    let server = Served::of(&labelled(&temp.path().join("cache"), "a", 5));
    for target in ["/api/statistics", "/api/codes", "/api/classes", "/api/duplicates", "/api/row/1", "/codebook"] {
        ask(&server.address, "GET", target);
    }
    let (_, overview) = json(&server.address, "GET", "/api/overview");
    assert_eq!(overview["statistics"]["state"], "idle", "{overview}");
    let (status, answer) = json(&server.address, "GET", "/api/codes");
    assert!(status == 503 && answer["error"].as_str().unwrap().contains("POST /api/statistics"), "{answer}");
    count(&server.address);
    assert_eq!(json(&server.address, "GET", "/api/codes").0, 200);
}

#[test]
fn the_prefix_alone_leads_below_it() {
    let temp = tempfile::tempdir().unwrap();
    let dir = labelled(&temp.path().join("cache"), "a", 5);
    let server = Served::start(ViewConfig { prefix: "/user/me/".into(), ..ViewConfig::new(dir) });
    let moved = ask(&server.address, "GET", "/user/me");
    assert!(moved.status == 308 && moved.head.contains("location: me/"), "{}", moved.head);
    for target in ["/user/me/", "/user/me/grid", "/user/me/api/overview", "/user/me/assets/app.js", "/api/overview"] {
        assert_eq!(ask(&server.address, "GET", target).status, 200, "{target}");
    }
    assert_eq!(ask(&server.address, "GET", "/user/mean").status, 404);
}

#[test]
fn a_panic_costs_one_answer() {
    let temp = tempfile::tempdir().unwrap();
    let mut job = JobSpec::new(GridSpec { height: 2, width: 2, bits: 18 }, 2, 1);
    (job.rows_per_group, job.groups_per_shard) = (8, 2);
    let dir = temp.path().join("cache");
    let mut writer = CacheWriter::open(&dir, job, OpenMode::Resume).unwrap();
    for (image, token) in [13, 14].into_iter().enumerate() {
        let (tokens, key) = ([token; 4], image.to_string());
        let row = Row { tokens: &tokens, label: -1, key: &key, view: 0, crop_x: 0, crop_y: 0, flip: false };
        writer.push_image(image, &[row]).unwrap();
    }
    assert!(writer.finish().unwrap().published);
    let server = Served::decoded(&dir);
    for _ in 0..3 {
        let (status, answer) = json(&server.address, "GET", "/picture/decoded/0.png");
        assert!(status == 500 && answer["error"].as_str().unwrap().contains("token 13"), "{status} {answer}");
        assert_eq!(ask(&server.address, "GET", "/picture/decoded/1.png").status, 200, "it answers on");
    }
}

/// Pictures that are the same to a browser must be the same.
#[test]
fn browsers_keep_pictures_of_one_cache_and_one_decoder_apart_from_all_others() {
    let temp = tempfile::tempdir().unwrap();
    let dir = labelled(&temp.path().join("cache"), "a", 5);
    let id_of = |fingerprint: &str| {
        // Two weight files whose paths are of one length.
        let decoder = Decoder { name: "w.ckpt".into(), fingerprint: fingerprint.into(), decode: Box::new(Stub) };
        let server = Served::start(ViewConfig { decoder: Some(decoder), ..ViewConfig::new(dir.clone()) });
        let overview = json(&server.address, "GET", "/api/overview").1;
        let id = overview["id"].as_str().unwrap().to_owned();
        let kept =
            |id: &str| ask(&server.address, "GET", &format!("/picture/decoded/1.png?v={id}")).head.contains("max-age");
        assert!(kept(&id) && !kept("other") && !kept(""), "{id}");
        (id, overview["source_id"].as_str().unwrap().to_owned())
    };
    let (first, again, other) = (id_of("aaaa"), id_of("aaaa"), id_of("bbbb"));
    assert_eq!(first.0, again.0);
    assert_ne!(first.0, other.0);
    // Nobody knows what became of the source in between.
    assert_ne!(first.1, again.1);
}

#[test]
fn connections_that_say_nothing_or_little_keep_nobody_out() {
    let temp = tempfile::tempdir().unwrap();
    let server = Served::of(&labelled(&temp.path().join("cache"), "a", 5));
    let connect = || TcpStream::connect(&server.address).unwrap();
    let mut idle: Vec<TcpStream> = (0..300).map(|_| connect()).collect();
    for (i, stream) in idle.iter_mut().enumerate().filter(|(i, _)| i % 2 == 0) {
        // Those that were closed cannot be written to, which is fine.
        let _ = stream.write_all(format!("GET / HTTP/1.1\r\nX-Slow: {i}").as_bytes());
    }
    let started = Instant::now();
    for _ in 0..20 {
        assert_eq!(ask(&server.address, "GET", "/api/overview").status, 200);
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

/// A cache in which each of the 2^18 codes occurs.
fn every_code(dir: &Path) {
    let mut job = JobSpec::new(GridSpec { height: 32, width: 32, bits: 18 }, 256, 1);
    (job.rows_per_group, job.groups_per_shard) = (256, 1);
    let mut writer = CacheWriter::open(dir, job, OpenMode::Resume).unwrap();
    for image in 0..256 {
        let tokens: Vec<u32> = (0..1024).map(|i| image as u32 * 1024 + i).collect();
        let key = image.to_string();
        let row = Row { tokens: &tokens, label: -1, key: &key, view: 0, crop_x: 0, crop_y: 0, flip: false };
        writer.push_image(image, &[row]).unwrap();
    }
    assert!(writer.finish().unwrap().published);
}

/// Memory of this process, in bytes.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn a_long_list_as_a_file_takes_little_memory_however_many_want_it() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("cache");
    every_code(&dir);
    let server = Served::of(&dir);
    count(&server.address);
    let before = resident_bytes();
    // Clients that ask and do not read.
    let request = format!("GET /api/codes?format=csv HTTP/1.1\r\nHost: {}\r\n\r\n", server.address);
    let stalled: Vec<TcpStream> = (0..60)
        .map(|_| {
            let mut stream = TcpStream::connect(&server.address).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            stream
        })
        .collect();
    let status = |mut stream: &TcpStream| {
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        String::from_utf8_lossy(&first[9..]).into_owned()
    };
    let statuses: Vec<String> = stalled.iter().map(status).collect();
    let served = statuses.iter().filter(|status| *status == "200").count();
    assert!((1..=8).contains(&served) && statuses.iter().all(|s| s == "200" || s == "429"), "{statuses:?}");
    assert_eq!(ask(&server.address, "GET", "/api/overview").status, 200, "others are answered meanwhile");
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more");
    drop(stalled);
    // Once they have gone, the file is to be had, whole.
    let started = Instant::now();
    let file = loop {
        let file = ask(&server.address, "GET", "/api/codes?format=csv");
        if file.status == 200 || started.elapsed() > Duration::from_secs(30) {
            break file;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let text = String::from_utf8(file.body).unwrap();
    assert!(file.head.contains("codes.csv") && text.starts_with("code,count,position,row\r\n"), "{}", file.head);
    let codes: std::collections::BTreeSet<&str> =
        text.lines().skip(1).filter_map(|line| line.split(',').next()).collect();
    assert_eq!((text.lines().count(), codes.len()), ((1 << 18) + 1, 1 << 18));
}

#[test]
fn a_shard_that_is_cut_while_it_is_mapped_costs_its_own_rows() {
    let temp = tempfile::tempdir().unwrap();
    let dir = labelled(&temp.path().join("cache"), "a", 40);
    let server = Served::decoded(&dir);
    assert_eq!(ask(&server.address, "GET", "/api/row/3").status, 200);
    let shard = dir.join("shard-00000-00001.parquet");
    let whole = std::fs::read(&shard).unwrap();
    std::fs::OpenOptions::new().write(true).open(&shard).unwrap().set_len(10).unwrap();
    for target in ["/api/row/20", "/api/rows?key=a", "/picture/decoded/20.png"] {
        let (status, answer) = json(&server.address, "GET", target);
        let message = answer["error"].as_str().unwrap();
        assert!(status == 503 && message.contains("shard-00000-00001.parquet has 10 bytes"), "{target}: {answer}");
    }
    let (_, state) = json(&server.address, "POST", "/api/statistics");
    assert!(state["state"] != "done", "{state}");
    // Rows of other shards are there, and the list says which are not.
    let (status, rows) = json(&server.address, "GET", "/api/rows?limit=40");
    let items = rows["items"].as_array().unwrap();
    assert_eq!((status, items.len()), (200, 40));
    assert!(
        items.iter().all(|item| item["damage"].is_string() == (16..32).contains(&item["row"].as_u64().unwrap())),
        "{rows}"
    );
    assert_eq!(ask(&server.address, "GET", "/picture/decoded/3.png").status, 200);
    std::fs::write(&shard, whole).unwrap();
}
