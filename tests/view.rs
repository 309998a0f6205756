//! The inspector as seen by a browser: the real program on a free port, requested over HTTP.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;
#[path = "common/viewer.rs"]
mod viewer;

use common::{fails, json, photos, sorted, text};
use std::path::{Path, PathBuf};
#[cfg(unix)]
use viewer::stopped;
use viewer::{Viewer, made_cache};

/// 40 rows with a dead bit 7, row 20 equal to row 3, row 30 nearly so, and rows 9 and 10 with the labels of other classes.
fn odd_cache(dir: &Path) {
    let first_tokens = std::cell::RefCell::new(vec![]);
    made_cache(dir, 40, |image, tokens, label| {
        tokens.iter_mut().for_each(|token| *token |= 1 << 7);
        match image {
            3 => *first_tokens.borrow_mut() = tokens.to_vec(),
            20 => tokens.copy_from_slice(&first_tokens.borrow()),
            30 => tokens[..12].copy_from_slice(&first_tokens.borrow()[..12]),
            9 => *label = 2,
            10 => *label = 0,
            _ => {}
        }
    });
}

#[test]
fn a_real_cache_with_pictures_and_originals() {
    let temp = tempfile::tempdir().unwrap();
    let source = photos(temp.path(), 3, 4);
    std::fs::write(sorted(&source)[1].join("broken.jpg"), "<html>").unwrap();
    let cache = temp.path().join("cache");
    let fixed = ["tokenize", text(&source), "--tokenizer", "tiny", "--size", "32", "--views", "center+flip"];
    json(&[&fixed[..], &["--out", text(&cache)]].concat());
    let viewer = Viewer::start(&cache, &["--tokenizer", "tiny", "--source", text(&source)]);

    // The pages are one document, whose parts are all here.
    let (status, head, page) = viewer.get("/sample/3?x=y");
    assert!(status == 200 && head.contains("text/html") && head.contains("default-src 'self'"), "{head}");
    let page = String::from_utf8(page).unwrap();
    assert!(!page.contains("://"), "nothing is fetched from elsewhere");
    for asset in ["style.css", "app.js", "dom.js", "grid.js", "icon.svg"] {
        let (status, _, body) = viewer.get(&format!("/assets/{asset}"));
        assert!(status == 200 && body.len() > 100, "{asset}");
    }

    let overview = viewer.json("/api/overview");
    assert_eq!((&overview["info"]["rows"], &overview["info"]["quarantined"]), (&24.into(), &1.into()));
    assert_eq!((&overview["pictures"], &overview["class_names"].as_array().unwrap().len()), (&"tiny".into(), &3));

    let rows = viewer.json("/api/rows?class=1&view=1&offset=1&limit=2");
    assert_eq!((&rows["total"], rows["items"].as_array().unwrap().len()), (&4.into(), 2));
    assert!(rows["items"].as_array().unwrap().iter().all(|row| row["label"] == 1 && row["view"] == 1));
    assert_eq!(viewer.json("/api/rows?key=_1.JPEG")["total"], 6);
    let first = rows["items"][0]["row"].as_u64().unwrap();
    let shown = json(&["cache", "show", text(&cache), "--index", &first.to_string()]);
    let row = viewer.json(&format!("/api/row/{first}"));
    assert_eq!((&row["tokens"], &row["key"]), (&shown["tokens"], &shown["key"]));
    assert_eq!((&row["origin"]["label"], &row["origin"]["size"]), (&1.into(), &32.into()));
    let resized = [0, 1].map(|side| row["origin"]["resized"][side].as_u64().unwrap());
    assert!(resized[0].min(resized[1]) == 32 && resized[0].max(resized[1]) < 100, "{resized:?}");

    for picture in
        ["decoded/5.png", "original/5.png", "difference/5.png", "resized/5.png", "patch/5/3.png", "class/1.png"]
    {
        let (status, head, body) = viewer.get(&format!("/picture/{picture}"));
        assert!(status == 200 && head.contains("image/png") && body.starts_with(b"\x89PNG"), "{picture}: {head}");
    }
    // The pictures are those of `ingest` and of the tokenizer: alike, and not equal.
    let psnr = viewer.json("/picture/compare/5")["psnr"].as_f64().unwrap();
    assert!(psnr > 12.0 && psnr < 60.0, "{psnr}");

    let found = viewer.counted();
    assert_eq!(found["figures"]["rows"], 24);
    assert!(cache.join("inspect.json").is_file());
    let codes = viewer.json("/api/codes?limit=3");
    assert!(codes["items"][0]["count"].as_u64() >= codes["items"][2]["count"].as_u64());
    assert_eq!(viewer.json(&format!("/api/code/{}", codes["items"][0]["code"]))["count"], codes["items"][0]["count"]);
    assert_eq!(viewer.json("/api/classes?sort=entropy")["total"], 3);
    let quarantined = viewer.json("/api/quarantine");
    assert!(
        quarantined["total"] == 1 && quarantined["items"][0]["key"].as_str().unwrap().contains("broken"),
        "{quarantined}"
    );
    // The file comes in parts, which the older version of the protocol does not mark.
    let file = format!("GET /api/codes?format=csv HTTP/1.0\r\nHost: {}\r\n\r\n", viewer.address);
    let (_, head, table) = viewer.send(&file);
    assert!(head.contains("codes.csv") && table.starts_with(b"code,count,position,row\r\n"), "{head}");
    assert_eq!(viewer.verified()["ok"], true);

    #[cfg(unix)]
    {
        let (code, said) = stopped(viewer);
        assert_eq!(code, Some(130));
        assert!(said.contains("the inspector has stopped") && !said.contains("go on"), "{said}");
    }
}

#[test]
fn faults_show_up_where_a_user_would_look() {
    let temp = tempfile::tempdir().unwrap();
    let folder = |name: &str| temp.path().join(name);
    odd_cache(&folder("odd"));
    let viewer = Viewer::start(&folder("odd"), &[]);
    let figures = viewer.counted()["figures"].clone();
    assert_eq!(figures["dead_bits"], serde_json::json!([7]));
    let duplicates = viewer.json("/api/duplicates");
    assert_eq!(
        (&duplicates["rows"], &duplicates["items"][0]["first"]["row"], &duplicates["items"][0]["row"]["row"]),
        (&1.into(), &3.into(), &20.into())
    );
    let near = viewer.json("/api/near-duplicates?least=12");
    let pairs: Vec<_> = near["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pair| (pair["first"]["row"].as_u64(), pair["row"]["row"].as_u64()))
        .collect();
    assert!(pairs.contains(&(Some(3), Some(30))) && pairs.iter().all(|(_, row)| *row == Some(30)), "{near}");
    assert_eq!(viewer.json("/api/near-duplicates?least=16")["total"], 0);
    let conflicts = viewer.json("/api/label-conflicts");
    let rows: Vec<_> =
        conflicts["items"].as_array().unwrap().iter().map(|item| item["row"].as_u64().unwrap()).collect();
    assert_eq!((rows, &conflicts["items"][0]["folder_class"]), (vec![9, 10], &"cat".into()));
    let row = viewer.json("/api/row/20");
    assert_eq!((&row["related"]["same"][0], row["counts"].as_array().unwrap().len()), (&3.into(), 16));
    assert_eq!(viewer.json("/api/row/9")["related"]["folder"], 0);

    // A flipped bit in a shard: found by the check, with its row group.
    let damage = |cache: &Path, at: fn(usize) -> usize| -> PathBuf {
        let shard = sorted(cache).into_iter().rfind(|path| path.extension().is_some_and(|e| e == "parquet")).unwrap();
        let mut bytes = std::fs::read(&shard).unwrap();
        let place = at(bytes.len());
        bytes[place] ^= 4;
        std::fs::write(&shard, bytes).unwrap();
        shard
    };
    made_cache(&folder("flipped"), 40, |_, _, _| {});
    let shard = damage(&folder("flipped"), |_| 100);
    let viewer = Viewer::start(&folder("flipped"), &[]);
    let health = viewer.verified();
    let problem = &health["problems"][0];
    assert_eq!((&health["ok"], &problem["row_group"]), (&false.into(), &0.into()));
    assert_eq!(problem["shard"], shard.file_name().unwrap().to_str().unwrap());

    // A damaged footer: the cache cannot be opened, the page can, and says why.
    made_cache(&folder("footer"), 40, |_, _, _| {});
    let shard = damage(&folder("footer"), |length| length - 20);
    let viewer = Viewer::start(&folder("footer"), &[]);
    let (status, answer) = viewer.ask("/api/rows");
    let name = shard.file_name().unwrap().to_str().unwrap();
    assert!(status == 503 && answer["error"].as_str().unwrap().contains(name), "{answer}");
    let overview = viewer.json("/api/overview");
    assert!(
        overview["cache"]["error"].as_str().unwrap().contains(name) && overview["info"]["rows"] == 40,
        "{overview}"
    );
    assert_eq!(viewer.verified()["ok"], false);
}

#[test]
fn what_cannot_be_served_is_said_at_once() {
    let temp = tempfile::tempdir().unwrap();
    let (cache, none) = (temp.path().join("cache"), temp.path().join("none"));
    made_cache(&cache, 4, |_, _, _| {});
    let viewer = Viewer::start(&cache, &[]);
    let port = viewer.address.rsplit(':').next().unwrap();
    let message = fails(&["view", text(&cache), "--port", port], 1);
    assert!(message.contains("taken") && message.contains("--port"), "{message}");
    std::fs::create_dir(&none).unwrap();
    let message = fails(&["view", text(&none), "--port", "0"], 1);
    assert!(message.contains("manifest.json"), "{message}");
    let message = fails(&["view", text(&cache), "--port", "0", "--host", "256.256.256.256"], 1);
    assert!(message.contains("--host"), "{message}");
    assert!(fails(&["view", text(&cache), "--port", "65536"], 2).contains("65536"));
    let message = fails(&["view", text(&cache), "--port", "0", "--source", text(&temp.path().join("gone"))], 1);
    assert!(message.contains("gone"), "{message}");
    let message = fails(&["view", text(&cache), "--port", "0", "--prefix", "a b"], 1);
    assert!(message.contains("--prefix"), "{message}");
}

/// One event is one line in the terminal, however many rows it concerns.
#[cfg(unix)]
#[test]
fn a_shard_that_is_cut_is_named_once() {
    let temp = tempfile::tempdir().unwrap();
    made_cache(temp.path(), 40, |_, _, _| {});
    let viewer = Viewer::start(temp.path(), &[]);
    viewer.json("/api/row/0");
    let shards: Vec<PathBuf> =
        sorted(temp.path()).into_iter().filter(|path| path.extension().is_some_and(|e| e == "parquet")).collect();
    for (shard, rows) in shards.iter().zip([0..16, 16..32]) {
        std::fs::OpenOptions::new().write(true).open(shard).unwrap().set_len(10).unwrap();
        for row in rows {
            assert_eq!(viewer.ask(&format!("/api/row/{row}")).0, 503);
        }
    }
    let (_, said) = stopped(viewer);
    for shard in &shards[..2] {
        let name = shard.file_name().unwrap().to_str().unwrap();
        assert_eq!(said.matches(&format!("{name} has 10 bytes")).count(), 1, "{said}");
    }
}
