//! Long lists as files. Alone in its process, whose memory it looks at.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod browser;
mod served;

use browser::{ask, count};
use served::Served;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};
use tokengrid_cache::{CacheWriter, GridSpec, JobSpec, OpenMode, Row};

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
    // A short list is to be had whatever is on its way, and a long one when others have stalled.
    assert_eq!(ask(&server.address, "GET", "/api/duplicates?format=csv").status, 200);
    std::thread::sleep(Duration::from_millis(2500));
    for _ in 0..3 {
        let file = ask(&server.address, "GET", "/api/codes?format=csv");
        assert_eq!((file.status, file.body.iter().filter(|byte| **byte == b'\n').count()), (200, (1 << 18) + 1));
    }
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
