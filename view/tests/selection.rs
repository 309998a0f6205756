//! Looking for rows: similar ones, filters that make lists, and selections with what is made of them.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod browser;
mod served;

use browser::{Browser, ask, json, post};
use served::{Served, labelled, written};
use std::path::Path;
use std::time::Duration;
use tokengrid_cache::{CacheWriter, GridSpec, JobSpec, MergeInput, OpenMode, Row, TokenCache, merge};
use tokengrid_view::ViewConfig;

/// A server that may write below `folder`.
fn exporting(dir: &Path, folder: &Path) -> Served {
    Served::start(ViewConfig { export_dir: Some(folder.to_owned()), ..ViewConfig::new(dir.to_owned()) })
}

fn rows_of(found: &serde_json::Value) -> Vec<u64> {
    found["items"].as_array().unwrap().iter().map(|item| item["row"].as_u64().unwrap()).collect()
}

fn text(answer: browser::Answer) -> String {
    assert_eq!(answer.status, 200, "{}: {}", answer.head, String::from_utf8_lossy(&answer.body));
    String::from_utf8(answer.body).unwrap()
}

/// Waits until the cache of a selection is written, or is not.
fn written_subset(address: &str) -> serde_json::Value {
    loop {
        let state = json(address, "GET", "/api/subset").1;
        if state["state"] != "running" {
            return state;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A cache of two views per image, of which image 5 is image 2 with a few bits changed.
fn with_a_copy(dir: &Path) {
    let mut job = JobSpec::new(GridSpec { height: 4, width: 4, bits: 18 }, 9, 2);
    (job.rows_per_group, job.groups_per_shard) = (4, 2);
    let mut writer = CacheWriter::open(dir, job, OpenMode::Resume).unwrap();
    for image in 0..9usize {
        let noise = |view: usize, i: usize| {
            let seed = (if image == 5 { 2 } else { image } * 2 + view) as u64;
            (((seed * 16 + i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)) >> 40) as u32 & 0x3FFFF
        };
        let mut tokens: Vec<Vec<u32>> = (0..2).map(|view| (0..16).map(|i| noise(view, i)).collect()).collect();
        if image == 5 {
            tokens[0][3] ^= 0b101;
        }
        let key = format!("k/{image}.jpg");
        let row = |(view, tokens)| Row { tokens, label: -1, key: &key, view, crop_x: 0, crop_y: 0, flip: false };
        let rows: Vec<Row> = (0..).zip(tokens.iter().map(Vec::as_slice)).map(row).collect();
        writer.push_image(image, &rows).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn the_nearest_rows_of_a_row_are_named_with_their_distances() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("cache");
    with_a_copy(&dir);
    let server = Served::of(&dir);
    let (status, found) = json(&server.address, "GET", "/api/similar/4");
    assert_eq!((status, &found["total"], &found["bits"]), (200, &17.into(), &288.into()), "{found}");
    // Row 10 is the first view of image 5.
    assert_eq!((&found["items"][0]["row"], &found["items"][0]["distance"]), (&10.into(), &2.into()), "{found}");
    assert_eq!(json(&server.address, "GET", "/api/similar/5").1["items"][0]["distance"], 0);
    let cache = TokenCache::open(&dir).unwrap();
    let distances: Vec<u64> =
        found["items"].as_array().unwrap().iter().map(|item| item["distance"].as_u64().unwrap()).collect();
    for (row, distance) in rows_of(&found).into_iter().zip(&distances) {
        let bits = cache.packed_row(4).iter().zip(cache.packed_row(row as usize)).map(|(a, b)| (a ^ b).count_ones());
        assert_eq!(u64::from(bits.sum::<u32>()), *distance);
    }
    assert!(distances.is_sorted());
    let csv = text(ask(&server.address, "GET", "/api/similar/4?format=csv"));
    assert!(
        csv.starts_with("class,class_distance,class_name,crop_x,crop_y,damage,distance,entropy,flip,key,"),
        "{csv}"
    );
    assert_eq!((csv.lines().count(), csv.lines().nth(1)), (18, Some(",,,0,0,,2,,false,k/5.jpg,-1,10,0")));
    let part = json(&server.address, "GET", "/api/similar/4?offset=3&limit=2").1;
    assert_eq!(rows_of(&part), rows_of(&found)[3..5]);
    assert_eq!(json(&server.address, "GET", "/api/similar/18").0, 404);

    let page = Browser::open(&server.address, "/sample/4");
    page.act("clicked(document.querySelectorAll('a').find((a) => a.textContent === 'Similar to this'))");
    assert!(page.text().contains("Similar to row 4") && page.text().contains("k/2.jpg"), "{}", page.text());
    page.act("document.getElementById('within').value = '2'; document.getElementById('select-similar').click()");
    assert!(page.text().contains("1 similar row and the row itself selected"), "{}", page.text());
    assert_eq!((page.failures(), page.alerts()), (String::new(), String::new()));
    assert!(page.eval("document.getElementById('nav').textContent").contains("Selection2"));
}

#[test]
fn several_classes_a_code_and_rows_by_number_filter_together() {
    let temp = tempfile::tempdir().unwrap();
    let dir = labelled(&temp.path().join("cache"), "a", 20);
    let server = Served::of(&dir);
    let rows = |query: &str| rows_of(&json(&server.address, "GET", &format!("/api/rows?{query}")).1);
    let all: Vec<u64> = (0..20).collect();
    let of = |keep: &dyn Fn(u64) -> bool| all.iter().copied().filter(|row| keep(*row)).collect::<Vec<_>>();
    assert_eq!(rows("label=0,2"), of(&|row| row % 3 != 1));
    assert_eq!(rows("label=2"), of(&|row| row % 3 == 2));
    assert_eq!(rows("label=0,2&rows=3-5,7,2&key=a"), [2, 3, 5]);
    assert_eq!(rows("rows=19,0&offset=1"), [19]);
    let cache = TokenCache::open(&dir).unwrap();
    let mut tokens = [0; 16];
    cache.tokens_into(13, &mut tokens);
    let code = tokens[9];
    let expected = of(&|row| {
        let mut tokens = [0; 16];
        cache.tokens_into(row as usize, &mut tokens);
        tokens.contains(&code)
    });
    assert!(expected.contains(&13));
    assert_eq!(rows(&format!("code={code}")), expected);
    assert_eq!(rows(&format!("code={code}&label=0")), of(&|row| row % 3 == 0 && expected.contains(&row)));
    for wrong in ["label=0,x", "code=262144", "rows=20", "rows=3-1", "format=xml", "class=cat&label=1,2"] {
        assert_eq!(json(&server.address, "GET", &format!("/api/rows?{wrong}")).0, 400, "{wrong}");
    }
    assert_eq!(rows("rows="), [0; 0], "no row is no missing filter");
    // What separates classes, rows and parameters is a comma, and an ampersand.
    for (wrong, words) in [
        ("class=cat;dog", "`label=0,2`"),
        ("class=0,2", "`label=0,2`"),
        ("label=0;2", "whole number"),
        ("rows=0;5", "0-5,9"),
        ("label=0;limit=1", "whole number"),
        ("format=csv&limit=2", "leave out `limit`"),
        ("format=csv&offset=x", "leave out `offset`"),
    ] {
        let (status, answer) = json(&server.address, "GET", &format!("/api/rows?{wrong}"));
        assert!(status == 400 && answer["error"].as_str().unwrap().contains(words), "{wrong}: {answer}");
    }
    let csv = text(ask(&server.address, "GET", "/api/rows?label=0,2&format=csv"));
    assert_eq!((csv.lines().count(), csv.lines().nth(2)), (14, Some("dog,,,0,0,,,false,a/2.jpg,2,2,0")), "{csv}");
    let numbers = json(&server.address, "GET", "/api/row-numbers?label=0,2").1;
    assert_eq!((&numbers["rows"], &numbers["count"]), (&"0,2-3,5-6,8-9,11-12,14-15,17-18".into(), &13.into()));
    assert_eq!(json(&server.address, "GET", "/api/row-numbers?label=0,2&offset=1&limit=2").1["rows"], "2-3");

    let page = Browser::open(&server.address, "/grid");
    page.act("typed(document.getElementById('filter-class'), 'dog; 1')");
    assert!(page.eval("location.search") == "?label=2%2C1" && page.text().contains("of 13 rows"), "{}", page.text());
    assert_eq!(page.eval("document.getElementById('filter-class').value"), "dog (2); catfish (1)");
    page.act("typed(document.getElementById('filter-class'), 'dog; unicorn')");
    assert!(page.alerts().contains("No class has “unicorn”"), "{}", page.alerts());
    page.act(&format!("typed(document.getElementById('filter-code'), '{code}')"));
    assert!(page.text().contains(&format!("of {} row", expected.len())), "{}", page.text());
}

#[test]
fn rows_are_chosen_by_hand_and_by_filter_and_stay_chosen() {
    let temp = tempfile::tempdir().unwrap();
    let server = Served::of(&labelled(&temp.path().join("cache"), "a", 20));
    let page = Browser::open(&server.address, "/grid?label=1");
    let tick = |place: usize, keys: &str| {
        page.act(&format!("clicked(document.querySelectorAll('.cell')[{place}].querySelector('.tick'), {keys})"));
    };
    let chosen = || page.eval("Object.values(sessionStorageKept())[0]");
    page.act("globalThis.sessionStorageKept = () => kept");
    tick(1, "{}");
    assert_eq!((chosen(), page.eval("location.pathname")), ("4".into(), "/grid".into()), "no link is followed");
    // Those between, of the rows that are shown.
    tick(3, "{ shiftKey: true }");
    assert_eq!(chosen(), "4,7,10");
    tick(2, "{}");
    assert_eq!(chosen(), "4,10");
    page.act("clicked(document.querySelectorAll('.cell')[0], { ctrlKey: true })");
    assert_eq!(chosen(), "1,4,10");
    page.act("document.getElementById('select-all').click()");
    assert_eq!(chosen(), "1,4,7,10,13,16,19");
    assert!(page.text().contains("7 selected"), "{}", page.text());
    page.act("clicked(document.querySelectorAll('a').find((a) => a.textContent === 'Show these alone'))");
    assert!(page.text().contains("1 to 7 of 7 rows"), "{}", page.text());
    tick(0, "{}");
    assert!(page.text().contains("6 selected") && page.text().contains("of 7 rows"), "{}", page.text());
    page.act("clicked(document.querySelectorAll('nav a').find((a) => a.textContent.startsWith('Selection')))");
    assert!(page.text().contains("6 rows.") && page.text().contains("--export-dir"), "{}", page.text());
    assert_eq!(page.eval("location.search"), "?rows=4%2C7%2C10%2C13%2C16%2C19".replace("%2C", ","));
    assert_eq!((page.failures(), page.alerts()), (String::new(), String::new()));
    // The address alone carries a selection to another browser.
    let other = Browser::open(&server.address, "/selection?rows=2-4,99");
    assert!(other.text().contains("3 rows."), "{}", other.text());
    other.act("document.querySelectorAll('button').find((b) => b.textContent === 'keys.txt').click()");
    assert_eq!(other.eval("JSON.stringify(saved)"), r#"[["keys.txt","a/2.jpg\na/3.jpg\na/4.jpg\n"]]"#);
    other.act("document.getElementById('clear').click()");
    assert!(other.text().contains("No row is selected"), "{}", other.text());
}

#[test]
fn a_selection_becomes_lists_and_a_cache_of_its_images() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, folder) = (temp.path().join("cache"), temp.path().join("out"));
    std::fs::create_dir(&folder).unwrap();
    with_a_copy(&dir);
    let server = exporting(&dir, &folder);
    let address = &server.address;
    // Both rows of image 1, one of image 2, one of image 8.
    let rows = "2-4,17";
    assert_eq!(text(post(address, "/api/selection/keys", rows)), "k/1.jpg\nk/2.jpg\nk/8.jpg\n");
    assert!(post(address, "/api/selection/keys?name=exclude", rows).head.contains("exclude.txt"));
    assert_eq!(text(post(address, "/api/selection/rows", rows)).lines().count(), 5);
    for (target, body) in
        [("/api/selection/keys", "18"), ("/api/selection/rows", "a"), ("/api/selection/keys", "\u{fffd}")]
    {
        assert_eq!(post(address, target, body).status, 400, "{target} {body}");
    }
    assert_eq!(post(address, "/api/selection/keys?name=/etc/passwd", rows).status, 400);

    let ask_for =
        |name: &str, rows: &str| post(address, "/api/subset", &format!(r#"{{"rows":"{rows}","name":"{name}"}}"#));
    assert_eq!(ask_for("part", rows).status, 200);
    let state = written_subset(address);
    assert_eq!((&state["state"], &state["images"], &state["rows"]), (&"done".into(), &3.into(), &6.into()), "{state}");
    let part = TokenCache::open(&folder.join("part")).unwrap();
    let whole = TokenCache::open(&dir).unwrap();
    for (row, of) in (0..6).zip([2, 3, 4, 5, 16, 17]) {
        assert_eq!(part.packed_row(row), whole.packed_row(of), "row {row}");
        assert_eq!(part.meta(row).unwrap().key, whole.meta(of).unwrap().key);
    }
    // The same again is done already; another selection under that name is refused, and leaves the cache as it is.
    ask_for("part", "2,4,16");
    assert_eq!(written_subset(address)["content_hash"], part.content_hash());
    ask_for("part", "0");
    let state = written_subset(address);
    assert!(state["error"].as_str().unwrap().contains("another job"), "{state}");
    assert_eq!(TokenCache::open(&folder.join("part")).unwrap().content_hash(), part.content_hash());
    // A folder that is somebody else's stays so.
    std::fs::create_dir(folder.join("mine")).unwrap();
    std::fs::write(folder.join("mine/notes.txt"), "mine").unwrap();
    ask_for("mine", "0");
    assert!(written_subset(address)["error"].as_str().unwrap().contains("notes.txt"));
    for (name, rows) in [("../x", "0"), ("", "0"), ("/tmp/x", "0"), ("x", ""), ("x", "99"), (".x", "0")] {
        assert_eq!(ask_for(name, rows).status, 400, "{name} {rows}");
    }
    assert_eq!(post(address, "/api/subset", "x").status, 400);
    let beside = exporting(&dir, temp.path());
    let itself = post(&beside.address, "/api/subset", r#"{"rows":"0","name":"cache"}"#);
    assert!(itself.status == 400 && String::from_utf8(itself.body).unwrap().contains("the cache that is shown"));

    let page = Browser::open(address, "/selection?rows=2-4,17");
    page.act(
        "document.getElementById('subset-name').value = 'by page'; document.getElementById('write-subset').click()",
    );
    assert!(page.text().contains("3 images, 6 rows in ") && page.text().contains("out/by page."), "{}", page.text());
    let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn nothing_is_written_where_that_was_not_allowed_or_by_another_page() {
    let temp = tempfile::tempdir().unwrap();
    let dir = labelled(&temp.path().join("cache"), "a", 5);
    let body = r#"{"rows":"0","name":"x"}"#;
    let answer = post(&Served::of(&dir).address, "/api/subset", body);
    assert!(answer.status == 404 && String::from_utf8(answer.body).unwrap().contains("--export-dir"));
    let server = exporting(&dir, temp.path());
    let (host, length) = (&server.address, body.len());
    let foreign = format!(
        "POST /api/subset HTTP/1.1\r\nHost: {host}\r\nOrigin: http://evil.example\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    assert_eq!(browser::send(host, &foreign).status, 403);
    assert_eq!(json(host, "GET", "/api/subset").1["state"], "idle");
    let long = "1,".repeat(17 << 20);
    assert!(matches!(post(host, "/api/selection/keys", &long).status, 413 | 0));
    assert_eq!(ask(host, "GET", "/api/overview").status, 200);
}

#[test]
fn splits_and_keys_that_fit_no_line_are_minded() {
    let temp = tempfile::tempdir().unwrap();
    let images = [Some(("a\nb", 0)), Some(("c", 1))];
    let server = Served::of(&written(&temp.path().join("cache"), &images, |_| {}));
    let answer = post(&server.address, "/api/selection/keys", "0-1");
    assert!(answer.status == 503 && String::from_utf8(answer.body).unwrap().contains("row 0 has a line break"));
    assert_eq!(text(post(&server.address, "/api/selection/keys", "1")), "c\n");

    let (train, val) =
        (labelled(&temp.path().join("train"), "train", 20), labelled(&temp.path().join("val"), "val", 5));
    let split = |dir: &Path, name: &str| MergeInput { dir: dir.to_owned(), split: Some(name.to_owned()) };
    let dir = temp.path().join("split");
    merge(&dir, &[split(&train, "train"), split(&val, "val")], OpenMode::Resume).unwrap();
    let server = exporting(&dir, temp.path());
    let found = json(&server.address, "GET", "/api/rows?split=val&label=0,1").1;
    assert_eq!(rows_of(&found), [20, 21, 23, 24]);
    assert_eq!(post(&server.address, "/api/subset", r#"{"rows":"18-20,24","name":"few"}"#).status, 200);
    assert_eq!(written_subset(&server.address)["rows"], 4);
    let few = TokenCache::open(&temp.path().join("few")).unwrap();
    assert_eq!(few.splits(), [("train", 0..2), ("val", 2..4)]);
}
