//! Two caches of the same images, side by side.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod browser;
mod served;

use browser::{Browser, ask, json};
use served::{Served, Stub, labelled, written};
use std::path::Path;
use tokengrid_cache::{CacheWriter, GridSpec, JobSpec, OpenMode, Row};
use tokengrid_view::{Beside, Decoder, ViewConfig};

fn beside(dir: &Path, other: &Path, is_decoded: bool) -> Served {
    let decoder = || Decoder { name: "stub".into(), fingerprint: "5a17".into(), decode: Box::new(Stub) };
    let decoder = is_decoded.then(decoder);
    let beside = Some(Beside { dir: other.to_owned(), decoder });
    Served::start(ViewConfig { beside, ..ViewConfig::new(dir.to_owned()) })
}

#[test]
fn rows_of_one_key_stand_side_by_side_whatever_their_order() {
    let temp = tempfile::tempdir().unwrap();
    let keys: Vec<String> = (0..6).map(|image| format!("a/{image}.jpg")).collect();
    let straight: Vec<_> = keys.iter().map(|key| Some((key.as_str(), 0))).collect();
    // The other cache lacks image 4, and has the rest backwards: what the writer makes of an image depends on its number.
    let backwards: Vec<_> =
        keys.iter().rev().filter(|key| !key.contains('4')).map(|key| Some((key.as_str(), 0))).collect();
    let dir = written(&temp.path().join("a"), &straight, |_| {});
    let other = written(&temp.path().join("b"), &backwards, |_| {});
    for is_decoded in [true, false] {
        let server = beside(&dir, &other, is_decoded);
        let address = &server.address;
        let overview = json(address, "GET", "/api/overview").1;
        assert_eq!(overview["beside"]["info"]["rows"], 5, "{overview}");
        for (row, there) in [(0, Some(4)), (1, Some(3)), (2, Some(2)), (3, Some(1)), (4, None), (5, Some(0))] {
            let found = json(address, "GET", &format!("/api/beside/{row}")).1;
            assert_eq!(found["row"].as_u64(), there, "{row}: {found}");
            if let Some(there) = there {
                assert_eq!(json(address, "GET", &format!("/beside/api/row/{there}")).1["key"], keys[row].as_str());
                let each = found["unequal"]["each"].as_array().unwrap();
                assert_eq!(each.len(), 16);
                // Row 2 is image 2 in both: equal tokens.
                assert_eq!(found["unequal"]["tokens"] == 0, row == 2, "{row}: {found}");
            }
        }
        let listed = json(address, "GET", "/api/rows").1;
        let others: Vec<_> = listed["items"].as_array().unwrap().iter().map(|item| item["beside"].as_u64()).collect();
        assert_eq!(others, [Some(4), Some(3), Some(2), Some(1), None, Some(0)]);
        assert_eq!(ask(address, "GET", "/beside/picture/decoded/1.png").status, if is_decoded { 200 } else { 404 });
        for target in ["/api/beside/6", "/beside/api/row/5", "/beside/api/overview", "/beside/api/rows", "/beside"] {
            assert_eq!(ask(address, "GET", target).status, 404, "{target}");
        }
        for path in ["/grid", "/sample/1", "/sample/2", "/sample/4", "/"] {
            let page = Browser::open(address, path);
            assert_eq!((page.failures(), page.alerts()), (String::new(), String::new()), "{path}");
        }
        let sample = Browser::open(address, "/sample/3").text();
        assert!(sample.contains("row 1, view 0") && sample.contains("of 16 tokens"), "{sample}");
        assert!(Browser::open(address, "/sample/4").text().contains("has no image of this key"));
    }
}

#[test]
fn other_grids_and_views_can_stand_beside() {
    let temp = tempfile::tempdir().unwrap();
    let dir = labelled(&temp.path().join("a"), "a", 3);
    let other = temp.path().join("b");
    let mut job = JobSpec::new(GridSpec { height: 2, width: 2, bits: 10 }, 3, 2);
    job.rows_per_group = 4;
    let mut writer = CacheWriter::open(&other, job, OpenMode::Resume).unwrap();
    for image in 0..3 {
        let key = format!("a/{image}.jpg");
        let row =
            |view| Row { tokens: &[1, 2, 3, 4], label: -1, key: &key, view, crop_x: 0, crop_y: 0, flip: view == 1 };
        writer.push_image(image, &[row(0), row(1)]).unwrap();
    }
    writer.finish().unwrap();
    let server = beside(&dir, &other, false);
    let found = json(&server.address, "GET", "/api/beside/2").1;
    assert_eq!((&found["row"], &found["unequal"]), (&4.into(), &serde_json::Value::Null));
    let page = Browser::open(&server.address, "/sample/2");
    assert!(page.text().contains("grids of different shapes"), "{}", page.text());
    // The other way round: view 1 has no counterpart, and is shown beside view 0.
    let server = beside(&other, &dir, false);
    assert_eq!(json(&server.address, "GET", "/api/beside/5").1["row"], 2);
    // A second cache that is damaged leaves the first one to be looked at.
    let shard = std::fs::read_dir(&dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.extension().is_some_and(|e| e == "parquet"));
    std::fs::write(shard.unwrap(), b"gone").unwrap();
    let server = beside(&other, &dir, false);
    let listed = json(&server.address, "GET", "/api/rows");
    assert_eq!((listed.0, &listed.1["items"][0]["beside"]), (200, &serde_json::Value::Null));
    let (status, answer) = json(&server.address, "GET", "/api/beside/1");
    assert!(status == 503 && answer["error"].as_str().unwrap().contains("shard-"), "{answer}");
    let plain = Served::of(&other);
    assert_eq!(json(&plain.address, "GET", "/api/beside/1").0, 404);
    assert_eq!(json(&plain.address, "GET", "/api/overview").1["beside"], serde_json::Value::Null);
}
