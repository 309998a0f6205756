//! Memory of the server that grows with the rows: how much for each page, measured at two sizes. In a file of its own, as
//! memory is counted for the whole process.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod browser;
mod served;

use browser::{ask, count, json, post};
use served::Served;
use std::path::Path;
use std::time::{Duration, Instant};
use tokengrid_cache::{CacheWriter, GridSpec, JobSpec, OpenMode, Row};
use tokengrid_test_support::heap::{Counting, check_growth, held, peak};
use tokengrid_view::{Beside, ViewConfig};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The largest answer is not held by the server; the test drops it before the next one.
fn get(address: &str, target: &str) -> Vec<u8> {
    let answer = ask(address, "GET", target);
    assert_eq!(answer.status, 200, "{target}: {}", String::from_utf8_lossy(&answer.body));
    answer.body
}

/// Images in row order, or, with `turned`, in the other one.
fn write(dir: &Path, images: usize, turned: bool) {
    let mut job = JobSpec::new(GridSpec { height: 1, width: 4, bits: 18 }, images, 1);
    (job.rows_per_group, job.groups_per_shard) = (8192, 4);
    let mut writer = CacheWriter::open(dir, job, OpenMode::Resume).unwrap();
    for place in 0..images {
        let image = if turned { images - 1 - place } else { place };
        let mixed = (image as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let tokens = [0, 12, 24, 36].map(|shift| (mixed >> shift) as u32 & 0x3FFFF);
        let (key, label) = (format!("n{:04}/{image}.JPEG", image % 1000), (image % 1000) as i32);
        let row = Row { tokens: &tokens, label, key: &key, view: 0, crop_x: 0, crop_y: 0, flip: false };
        writer.push_image(place, &[row]).unwrap();
    }
    writer.finish().unwrap();
}

/// Has the rows surveyed, and waits for it.
fn survey(address: &str) {
    let started = Instant::now();
    let mut state = json(address, "POST", "/api/map").1;
    while state["state"] == "running" && started.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(10));
        state = json(address, "GET", "/api/map").1;
    }
    assert_eq!(state["state"], "done", "{state}");
}

/// What each page takes of a server that shows two caches of so many rows: the most that is held after it began, in bytes.
fn peaks(rows: usize) -> Vec<(&'static str, usize)> {
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name);
    let [dir, same, turned] = ["cache", "same", "turned"].map(path);
    write(&dir, rows, false);
    write(&same, rows, false);
    write(&turned, rows, true);
    let mut peaks = Vec::new();
    let before = held();
    let mut measure = |name, work: &mut dyn FnMut()| peaks.push((name, peak(work).saturating_sub(before)));
    let with = |other: Option<&Path>| {
        let beside = other.map(|other| Beside { dir: other.to_owned(), decoder: None });
        Served::start(ViewConfig { beside, export_dir: Some(temp.path().to_owned()), ..ViewConfig::new(dir.clone()) })
    };
    let last = rows - 1;
    let server = with(None);
    let address = server.address.clone();
    measure("overview", &mut || drop(get(&address, "/api/overview")));
    measure("grid", &mut || drop(get(&address, &format!("/api/rows?offset={}", rows - 60))));
    measure("row", &mut || drop(get(&address, &format!("/api/row/{last}"))));
    measure("class", &mut || drop(get(&address, "/api/rows?label=7")));
    measure("classes", &mut || drop(get(&address, "/api/rows?label=7,8,9,500")));
    measure("key", &mut || drop(get(&address, "/api/rows?key=/77777.")));
    measure("every key", &mut || drop(get(&address, "/api/rows?key=JPEG")));
    measure("code", &mut || drop(get(&address, "/api/rows?code=77")));
    measure("from the last", &mut || drop(get(&address, "/api/rows?sort=row&order=down")));
    measure("by margin", &mut || drop(get(&address, "/api/rows?sort=margin")));
    measure("similar", &mut || drop(get(&address, "/api/similar/77")));
    measure("selection", &mut || drop(get(&address, "/api/row-numbers")));
    measure("map", &mut || survey(&address));
    measure("points", &mut || drop(get(&address, "/api/map/points?step=1000")));
    measure("by entropy", &mut || drop(get(&address, "/api/rows?sort=entropy")));
    measure("by distance", &mut || drop(get(&address, "/api/rows?sort=distance&order=down")));
    measure("lasso", &mut || {
        let corners = r#"{"corners":[[0,0],[9000,0],[9000,65535],[0,65535]]}"#;
        assert_eq!(post(&address, "/api/map/lasso", corners).status, 200);
    });
    measure("statistics", &mut || {
        count(&address);
        // The survey made room for it, and is there again.
        assert_eq!(json(&address, "GET", "/api/map").1["state"], "done");
    });
    measure("codes", &mut || drop(get(&address, "/api/codes")));
    measure("class list", &mut || drop(get(&address, "/api/classes")));
    measure("duplicates", &mut || {
        for list in ["duplicates", "near-duplicates", "label-conflicts"] {
            get(&address, &format!("/api/{list}"));
        }
    });
    measure("subset", &mut || {
        let request = format!(r#"{{"rows":"0-{}","name":"subset"}}"#, last / 2);
        assert_eq!(post(&address, "/api/subset", &request).status, 200);
        let started = Instant::now();
        while json(&address, "GET", "/api/subset").1["state"] == "running" {
            assert!(started.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(json(&address, "GET", "/api/subset").1["rows"], rows / 2);
    });
    drop(server);
    for (name, other) in [("beside", &same), ("beside in another order", &turned)] {
        let server = with(Some(other));
        measure(name, &mut || {
            let found = json(&server.address, "GET", &format!("/api/rows?offset={}&limit=1", rows - 1)).1;
            let expected = if other == &same { last } else { 0 };
            assert_eq!(found["items"][0]["beside"], expected, "{found}");
        });
    }
    peaks
}

/// Bytes that the server may hold for each row while it answers, with what it keeps of the answers before: two for the labels,
/// eight for a survey, four for an order.
const BYTES_PER_ROW: [(&str, usize); 24] = [
    ("overview", 5),
    ("grid", 5),
    ("row", 5),
    ("class", 4),
    ("classes", 4),
    ("key", 5),
    ("every key", 12),
    ("code", 10),
    ("from the last", 10),
    ("by margin", 12),
    ("similar", 12),
    ("selection", 12),
    ("map", 16),
    ("points", 12),
    ("by entropy", 20),
    ("by distance", 20),
    ("lasso", 20),
    ("statistics", 13),
    ("codes", 13),
    ("class list", 13),
    ("duplicates", 13),
    ("subset", 17),
    ("beside", 8),
    ("beside in another order", 16),
];

#[test]
fn memory_of_the_server_grows_by_a_few_bytes_per_row() {
    check_growth([100_000, 300_000], peaks, &BYTES_PER_ROW);
}
