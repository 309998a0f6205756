//! The server as clients meet it that mean harm, are slow, or come by other names.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod browser;
mod served;

use browser::{ask, count, json, send};
use served::{Served, Stub, every_kind, labelled, written};
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tokengrid_cache::{CacheWriter, GridSpec, JobSpec, LostPages, OpenMode, Row, handle_lost_pages};
use tokengrid_view::{Decoder, ViewConfig};

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
    assert!(first.0.contains("aaaa") && other.0.contains("bbbb"), "{first:?} {other:?}");
    // Nobody knows what became of the source and of damaged shards in between, nor what the decoder ran on.
    assert_ne!(first.0, again.0);
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

/// What is mapped of a shard that was cut and replaced is lost, although the file is whole again.
#[test]
fn a_shard_that_was_cut_and_replaced_is_not_called_altered() {
    handle_lost_pages(LostPages::Zeros);
    let temp = tempfile::tempdir().unwrap();
    let dir = labelled(&temp.path().join("cache"), "a", 40);
    for target in ["/api/row/20", "/api/rows?key=a/2", "/api/rows?limit=40"] {
        let server = Served::of(&dir);
        assert_eq!(ask(&server.address, "GET", "/api/row/3").status, 200);
        let shard = dir.join("shard-00000-00001.parquet");
        let whole = std::fs::read(&shard).unwrap();
        std::fs::OpenOptions::new().write(true).open(&shard).unwrap().set_len(0).unwrap();
        std::fs::write(dir.join("new"), whole).unwrap();
        std::fs::rename(dir.join("new"), &shard).unwrap();
        let answer = json(&server.address, "GET", target).1;
        let said = answer["error"].as_str().or(answer["items"][20]["damage"].as_str()).unwrap_or_default();
        assert!(said.contains("was cut while") && said.contains("start `view` again"), "{target}: {answer}");
        let mut state = json(&server.address, "POST", "/api/statistics").1;
        while state["state"] == "running" {
            std::thread::sleep(Duration::from_millis(10));
            state = json(&server.address, "GET", "/api/statistics").1;
        }
        assert!(state["error"].as_str().is_some_and(|text| text.contains("start `view` again")), "{target}: {state}");
    }
}

#[test]
fn classes_are_accepted_as_they_are_shown() {
    let temp = tempfile::tempdir().unwrap();
    let images = [("a", 0), ("b", 2), ("c", -1), ("d", 3), ("e", 3)].map(Some);
    let server = Served::of(&written(&temp.path().join("cache"), &images[..3], |job| {
        job.classes = ["class 3", "x (0)", "dog"].map(str::to_owned).to_vec();
    }));
    let total = |class: &str| json(&server.address, "GET", &format!("/api/rows?class={class}")).1["total"].as_u64();
    for (class, rows) in [("dog+(2)", 1), ("no+class", 1), ("class+3+(0)", 1), ("x+(0)+(1)", 0), ("x+(0)", 0)] {
        assert_eq!(total(class), Some(rows), "{class}");
    }
    // A class's own name comes first.
    assert_eq!(total("class+3"), Some(1));
    for class in ["dog+(1)", "cat+(0)", "class+2", "class+-1", "(2)"] {
        assert_eq!(json(&server.address, "GET", &format!("/api/rows?class={class}")).0, 400, "{class}");
    }
    let plain = Served::of(&written(&temp.path().join("plain"), &images, |job| job.classes.clear()));
    assert_eq!(json(&plain.address, "GET", "/api/rows?class=class+3").1["total"], 2);
    assert_eq!(json(&plain.address, "GET", "/api/overview").1["classes"]["named"], 0);
}

#[test]
fn empty_lists_as_files_have_a_heading() {
    let temp = tempfile::tempdir().unwrap();
    let lists = ["quarantine", "codes", "classes", "duplicates", "near-duplicates", "label-conflicts"];
    for (kind, dir) in every_kind(temp.path()) {
        let server = Served::of(&dir);
        count(&server.address);
        for list in lists {
            let text = ask(&server.address, "GET", &format!("/api/{list}?format=csv")).body;
            let text = String::from_utf8(text).unwrap();
            let (_, found) = json(&server.address, "GET", &format!("/api/{list}?limit=1000"));
            let (total, heading) = (found["total"].as_u64().unwrap(), text.lines().next().unwrap_or_default());
            assert_eq!(text.lines().count() as u64, total + 1, "{kind}, {list}: {text}");
            // Pairs are objects within objects in JSON, and flat in a file.
            if let Some(item) = found["items"][0].as_object().filter(|_| !list.contains("duplicates")) {
                assert_eq!(heading, item.keys().cloned().collect::<Vec<_>>().join(","), "{kind}, {list}");
            }
        }
    }
}

#[test]
fn other_methods_are_told_where_they_are_answered() {
    let temp = tempfile::tempdir().unwrap();
    let server = Served::of(&labelled(&temp.path().join("cache"), "a", 5));
    let (status, answer) = json(&server.address, "POST", "/api/rows");
    let said = answer["error"].as_str().unwrap();
    assert!(status == 405 && said.contains("POST is answered at /api/health and /api/statistics"), "{answer}");
}
