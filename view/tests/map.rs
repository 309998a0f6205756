//! The map, orders of rows, and readable names of classes.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod browser;
mod served;

use browser::{Browser, ask, json, post};
use served::{Served, every_kind, labelled, written};
use std::time::{Duration, Instant};
use tokengrid_cache::{
    CacheWriter, ClassNames, GridSpec, JobSpec, Manifest, Margins, OpenMode, Row, Survey, TokenCache,
};
use tokengrid_view::ViewConfig;

/// Has the rows surveyed, and waits for it.
fn survey(address: &str) {
    let mut state = json(address, "POST", "/api/map").1;
    let started = Instant::now();
    while state["state"] == "running" && started.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(10));
        state = json(address, "GET", "/api/map").1;
    }
    assert_eq!(state["state"], "done", "{state}");
}

fn rows_of(found: &serde_json::Value) -> Vec<usize> {
    found["items"].as_array().unwrap().iter().map(|item| item["row"].as_u64().unwrap() as usize).collect()
}

#[test]
fn every_row_is_a_point_and_a_line_around_points_names_their_rows() {
    let temp = tempfile::tempdir().unwrap();
    let dir = labelled(&temp.path().join("cache"), "a", 50);
    let server = Served::of(&dir);
    let (status, answer) = json(&server.address, "GET", "/api/map/points");
    assert!(status == 503 && answer["error"].as_str().unwrap().contains("POST /api/map"), "{answer}");
    assert_eq!(json(&server.address, "GET", "/api/map").1["state"], "idle");
    survey(&server.address);
    let cache = TokenCache::open(&dir).unwrap();
    let kept = Survey::load(&cache, None).expect("it is kept beside the cache");
    let bytes = ask(&server.address, "GET", "/api/map/points").body;
    let points: Vec<(u16, u16, i32)> = bytes
        .as_chunks::<8>()
        .0
        .iter()
        .map(|p| {
            let x = u16::from_le_bytes([p[0], p[1]]);
            (x, u16::from_le_bytes([p[2], p[3]]), i32::from_le_bytes([p[4], p[5], p[6], p[7]]))
        })
        .collect();
    let expected: Vec<_> = (0..50).map(|row| (kept.x[row], kept.y[row], cache.label(row))).collect();
    assert_eq!(points, expected);
    let every_seventh = ask(&server.address, "GET", "/api/map/points?step=7").body;
    assert_eq!(every_seventh.len(), 8 * 8);
    assert_eq!(every_seventh[8..16], bytes[7 * 8..8 * 8]);

    // A square around one point has that point, and whatever else lies there.
    let (x, y) = (f32::from(kept.x[31]), f32::from(kept.y[31]));
    let square: Vec<[f32; 2]> =
        [(-1., -1.), (1., -1.), (1., 1.), (-1., 1.)].map(|(dx, dy)| [x + 900. * dx, y + 900. * dy]).to_vec();
    let around = serde_json::json!({ "corners": square }).to_string();
    let found: serde_json::Value =
        serde_json::from_slice(&post(&server.address, "/api/map/lasso", &around).body).unwrap();
    let inside = |row: &usize| (f32::from(kept.x[*row]) - x).abs() < 900. && (f32::from(kept.y[*row]) - y).abs() < 900.;
    let rows: Vec<usize> = (0..50).filter(inside).collect();
    assert!(rows.contains(&31));
    assert_eq!(found["count"], rows.len(), "{found}");
    let many = serde_json::json!({ "corners": vec![[0.0, 0.0]; 5001] }).to_string();
    let line = r#"{"corners": [[0, 0], [9, 9]]}"#;
    for wrong in ["", "[]", r#"{"corners": [[1]]}"#, line, r#"{"corners": [[0, 0], [9, 9], [1e300, 0]]}"#, &many] {
        assert_eq!(post(&server.address, "/api/map/lasso", wrong).status, 400);
    }
    for wrong in ["step=0", "step=x", "max=5"] {
        assert_eq!(ask(&server.address, "GET", &format!("/api/map/points?{wrong}")).status, 400, "{wrong}");
    }
}

#[test]
fn the_map_of_every_kind_of_cache_opens_and_its_lasso_selects() {
    let temp = tempfile::tempdir().unwrap();
    for (kind, dir) in every_kind(temp.path()) {
        let server = Served::of(&dir);
        let page = Browser::open(&server.address, "/map");
        assert_eq!((page.failures(), page.alerts()), (String::new(), String::new()), "{kind}");
        let rows = Manifest::read(&dir).unwrap().shards.iter().map(|shard| shard.rows).sum::<usize>();
        let expected = if rows == 0 { "no rows".to_owned() } else { format!("{rows} row") };
        assert!(page.text().contains(&expected), "{kind}: {}", page.text());
        if rows > 0 {
            page.act("mapForTests.lasso([[0, 0], [65535, 0], [65535, 65535], [0, 65535]])");
            assert!(page.text().contains(&format!("{rows} selected")), "{kind}: {}", page.text());
        }
    }
}

#[test]
fn rows_come_in_the_order_of_entropy_distance_and_margins() {
    let temp = tempfile::tempdir().unwrap();
    let dir = labelled(&temp.path().join("cache"), "a", 40);
    let server = Served::of(&dir);
    let (status, answer) = json(&server.address, "GET", "/api/rows?sort=entropy");
    assert!(status == 503 && answer["error"].as_str().unwrap().contains("POST /api/map"), "{answer}");
    survey(&server.address);
    let found = |query: &str| json(&server.address, "GET", &format!("/api/rows?{query}")).1;
    assert_eq!(rows_of(&found("order=down&label=0")), (0..40).rev().filter(|row| row % 3 == 0).collect::<Vec<_>>());
    let kept = Survey::load(&TokenCache::open(&dir).unwrap(), None).unwrap();
    let sorted = |values: &[u16], keep: &dyn Fn(usize) -> bool| {
        let mut rows: Vec<usize> = (0..40).filter(|row| keep(*row)).collect();
        rows.sort_by_key(|row| values[*row]);
        rows
    };
    assert_eq!(rows_of(&found("sort=entropy")), sorted(&kept.entropy, &|_| true));
    assert_eq!(rows_of(&found("sort=distance&label=0,2")), sorted(&kept.class_distance, &|row| row % 3 != 1));
    let down = found("sort=distance&order=down&limit=3");
    let far: Vec<f64> =
        down["items"].as_array().unwrap().iter().map(|item| item["class_distance"].as_f64().unwrap()).collect();
    assert!(far.len() == 3 && far.is_sorted_by(|a, b| a >= b), "{down}");
    // No margins were recorded: all shards are alike, and rows stay in their order.
    assert_eq!(rows_of(&found("sort=margin&limit=5")), [0, 1, 2, 3, 4]);
    assert_eq!(json(&server.address, "GET", "/api/rows?sort=size").0, 400);
    let csv =
        String::from_utf8(ask(&server.address, "GET", "/api/rows?sort=distance&order=down&format=csv").body).unwrap();
    assert_eq!(csv.lines().count(), 41);
    assert!(csv.lines().nth(1).unwrap().contains(&format!("a/{}.jpg", rows_of(&down)[0])), "{csv}");

    let page = Browser::open(&server.address, "/grid?sort=distance&order=down");
    assert!(page.text().contains("of 40 rows") && page.failures().is_empty(), "{}", page.text());
    let first = page.eval("document.querySelectorAll('.cell')[0].dataset.row");
    assert_eq!(first, rows_of(&down)[0].to_string());
}

#[test]
fn margins_that_were_recorded_order_the_shards() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("cache");
    // Row groups of 8 rows, shards of 16: the second shard has a row with many bits near 0.
    let mut job = JobSpec::new(GridSpec { height: 2, width: 2, bits: 18 }, 32, 1);
    (job.rows_per_group, job.groups_per_shard) = (8, 2);
    let mut writer = CacheWriter::open(&dir, job, OpenMode::Resume).unwrap();
    for image in 0..32 {
        let (tokens, key) = ([image as u32; 4], image.to_string());
        let row = Row { tokens: &tokens, label: -1, key: &key, view: 0, crop_x: 0, crop_y: 0, flip: false };
        writer.push_image(image, &[row]).unwrap();
        let mut margins = Margins::default();
        margins.counts[if image == 20 { 0 } else { 7 }] = 72;
        writer.count_margins(&margins);
    }
    writer.finish().unwrap();
    let server = Served::of(&dir);
    let rows = |query: &str| rows_of(&json(&server.address, "GET", &format!("/api/rows?{query}")).1);
    let nearest_first: Vec<usize> = (16..32).chain(0..16).collect();
    assert_eq!(rows("sort=margin&order=down"), nearest_first);
    assert_eq!(rows("sort=margin"), (0..32).collect::<Vec<_>>());
}

#[test]
fn readable_names_are_shown_found_and_kept_beside_the_cache() {
    let temp = tempfile::tempdir().unwrap();
    let dir = labelled(&temp.path().join("cache"), "a", 9);
    let hash = Manifest::read(&dir).unwrap().content_hash;
    let classes = Manifest::read(&dir).unwrap().classes;
    let names = ClassNames::parse("cat Felis catus, moggy\ndog Canis familiaris", &classes).unwrap();
    // Given for once, and kept.
    let given = Served::start(ViewConfig { class_names: Some(names.clone()), ..ViewConfig::new(dir.clone()) });
    assert_eq!(json(&given.address, "GET", "/api/row/0").1["class_name"], "Felis catus, moggy");
    names.store(&dir, &classes).unwrap();
    let server = Served::of(&dir);
    let overview = json(&server.address, "GET", "/api/overview").1;
    assert_eq!(overview["readable_class_names"], serde_json::json!(["Felis catus, moggy", null, "Canis familiaris"]));
    let total = |class: &str| json(&server.address, "GET", &format!("/api/rows?class={class}")).1["total"].as_u64();
    for class in ["cat", "moggy", "felis+catus", "Felis+catus,+moggy+(0)", "cat+(0)", "0"] {
        assert_eq!(total(class), Some(3), "{class}");
    }
    let page = Browser::open(&server.address, "/grid");
    page.act("typed(document.getElementById('filter-class'), 'canis')");
    assert!(page.eval("location.search") == "?label=2" && page.text().contains("Canis familiaris"), "{}", page.text());
    assert_eq!(page.eval("document.getElementById('filter-class').value"), "Canis familiaris (2)");
    let classes_page = Browser::open(&server.address, "/classes");
    assert!(classes_page.text().contains("Felis catus, moggy cat"), "{}", classes_page.text());
    let file = String::from_utf8(ask(&server.address, "GET", "/api/classes?format=csv&sort=name").body).unwrap();
    assert!(
        file.starts_with("class_name,code_entropy_bits,distinct_codes,label,name,rows\r\nCanis familiaris,"),
        "{file}"
    );
    assert_eq!(Manifest::read(&dir).unwrap().content_hash, hash);
    // Without names, nothing changes.
    let plain = Served::of(&written(&temp.path().join("plain"), &[Some(("a", 0))], |_| {}));
    assert_eq!(json(&plain.address, "GET", "/api/overview").1["readable_class_names"], serde_json::Value::Null);
    assert_eq!(json(&plain.address, "GET", "/api/row/0").1["class_name"], serde_json::Value::Null);
}
