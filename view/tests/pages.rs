//! Every page, its scripts executed, for every kind of cache.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod browser;
mod served;

use browser::Browser;
use served::{Served, Stub, every_kind, labelled, written};
use std::path::{Path, PathBuf};
use tokengrid_cache::Manifest;
use tokengrid_ingest::{Source, SourceOptions};
use tokengrid_view::{Decoder, NamedSource, OpenSource, Picture, ViewConfig};

const PAGES: [(&str, &str); 9] = [
    ("/", "Origin"),
    ("/grid", ""),
    ("/sample", ""),
    ("/codebook", "Codebook"),
    ("/classes", "Classes"),
    ("/duplicates", "Duplicates"),
    ("/quarantine", "Quarantine"),
    ("/selection", "No row is selected"),
    ("/map", "Map"),
];

#[track_caller]
fn is_well(page: &Browser, what: &str) {
    assert_eq!(page.failures(), "", "{what}");
    assert_eq!(page.alerts(), "", "{what}");
    let text = page.text();
    for wrong in ["undefined", "NaN", "null", "[object", "Infinity"] {
        assert!(!text.contains(wrong), "{what} says {wrong}: {text}");
    }
}

#[test]
fn every_page_of_every_kind_of_cache_shows_what_there_is() {
    let temp = tempfile::tempdir().unwrap();
    for (kind, dir) in every_kind(temp.path()) {
        for server in [Served::of(&dir), Served::decoded(&dir)] {
            for (path, expected) in PAGES {
                let page = Browser::open(&server.address, path);
                let what = format!("{kind}: {path}");
                assert!(page.text().contains(expected), "{what}: {}", page.text());
                is_well(&page, &what);
            }
        }
    }
}

#[test]
fn what_is_not_known_is_said_to_be_unknown() {
    let temp = tempfile::tempdir().unwrap();
    let caches = every_kind(temp.path());
    let of = |kind: &str| caches.iter().find(|(name, _)| *name == kind).unwrap().1.as_path();
    let text = |kind: &str, path: &str| Browser::open(&Served::of(of(kind)).address, path).text();
    let imported = text("imported", "/");
    assert!(imported.contains("Recipenot known") && imported.contains("Tokenizernot known"), "{imported}");
    // The column of bits near 0, where nobody counted them.
    assert!(imported.contains("Bits near 0") && imported.contains("not known"), "{imported}");
    assert!(text("sampled", "/").contains("Recipenot known"));
    assert!(text("empty", "/sample").contains("The cache has no rows"));
    assert!(text("empty", "/grid").contains("no rows"));
    assert!(text("quarantine only", "/quarantine").contains("bad/1.jpg"));
    assert!(text("one row", "/").contains("1image") && text("one row", "/").contains("1row"));
}

#[test]
fn splits_are_shown_and_filter_the_grid() {
    let temp = tempfile::tempdir().unwrap();
    let caches = every_kind(temp.path());
    let (_, dir) = caches.iter().find(|(name, _)| *name == "split").unwrap();
    let server = Served::of(dir);
    let overview = Browser::open(&server.address, "/");
    assert!(overview.text().contains("2 splits") && overview.text().contains("val20 to 245"), "{}", overview.text());
    overview.act("clicked(document.querySelectorAll('a').find((a) => a.textContent === 'val'))");
    assert!(overview.text().contains("1 to 5 of 5 rows"), "{}", overview.text());
    is_well(&overview, "the grid of a split");
    let sample = Browser::open(&server.address, "/sample/20");
    assert!(sample.text().contains("split val") && sample.text().contains("val/0.jpg"), "{}", sample.text());
}

#[test]
fn a_part_of_a_class_name_leads_to_its_class_or_to_a_choice() {
    let temp = tempfile::tempdir().unwrap();
    let server = Served::of(&labelled(&temp.path().join("cache"), "a", 20));
    let typed = |text: &str| {
        let page = Browser::open(&server.address, "/grid");
        page.act(&format!("typed(document.getElementById('filter-class'), {text:?})"));
        assert_eq!(page.failures(), "");
        assert!(page.eval("document.getElementById('filter-class') !== null") == "true", "the filters stay");
        page
    };
    let page = typed("do");
    assert!(page.text().contains("of 6 rows") && page.eval("location.search") == "?label=2", "{}", page.text());
    let page = typed("DOG");
    assert!(page.text().contains("of 6 rows"), "{}", page.text());
    let page = typed("ca");
    assert!(
        page.alerts().contains("2 classes have “ca”") && page.alerts().contains("catfish (1)"),
        "{}",
        page.alerts()
    );
    for (shown, rows) in [("dog (2)", "of 6 rows"), ("cat (0)", "of 7 rows"), ("no class", "no rows")] {
        let page = typed(shown);
        assert!(page.text().contains(rows) && page.alerts().is_empty(), "{shown}: {} {}", page.alerts(), page.text());
    }
    let page = typed("unicorn");
    assert!(page.alerts().contains("No class has “unicorn”"), "{}", page.alerts());
    let page = typed("cat");
    assert!(page.text().contains("of 7 rows"), "{}", page.text());
    let page = typed("99999999999");
    assert!(page.alerts().contains("expected a class index"), "{}", page.alerts());
}

#[test]
fn links_to_a_class_go_by_its_index_whatever_it_is_called() {
    let temp = tempfile::tempdir().unwrap();
    // Class 1 is called 10, class 2 is called 2 as a folder of numbers sorts.
    let images = [Some(("a", 0)), Some(("b", 1)), Some(("c", 1)), Some(("d", 2))];
    let dir =
        written(&temp.path().join("cache"), &images, |job| job.classes = ["1", "10", "2"].map(str::to_owned).to_vec());
    let server = Served::of(&dir);
    let page = Browser::open(&server.address, "/sample/0");
    page.act("clicked(document.querySelectorAll('a').find((a) => a.textContent === '1 (0)'))");
    assert!(page.text().contains("1 of 1 row"), "{}", page.text());
    let page = Browser::open(&server.address, "/sample/1");
    page.act("clicked(document.querySelectorAll('a').find((a) => a.textContent === '10 (1)'))");
    assert!(page.text().contains("of 2 rows"), "{}", page.text());
}

/// The shards of a cache.
fn shards(dir: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut shards: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|e| e == "parquet")).collect();
    shards.sort();
    shards
}

#[test]
fn damaged_row_groups_are_marked_on_their_samples() {
    let temp = tempfile::tempdir().unwrap();
    let dir = labelled(&temp.path().join("cache"), "a", 20);
    let shard = &shards(&dir)[0];
    let mut bytes = std::fs::read(shard).unwrap();
    bytes[100] ^= 4;
    std::fs::write(shard, bytes).unwrap();
    let server = Served::decoded(&dir);
    let sample = Browser::open(&server.address, "/sample/3");
    assert!(sample.alerts().contains("Row group 0") && sample.alerts().contains("damaged"), "{}", sample.alerts());
    is_well(&Browser::open(&server.address, "/sample/9"), "a row of another group");
    // After the check of everything, the grid marks all of them.
    let overview = Browser::open(&server.address, "/");
    overview.act("document.querySelectorAll('button').find((b) => b.textContent === 'Verify now').click()");
    assert!(overview.text().contains("1 problem."), "{}", overview.text());
    // The last byte of the row group is the one before the next begins.
    let range = Manifest::read(&dir).unwrap().shards[0].row_groups[0].range.clone();
    let bytes = format!("(bytes {} to {})", range.offset, range.offset + range.bytes - 1);
    assert!(overview.text().contains(&bytes), "{bytes}: {}", overview.text());
    let grid = Browser::open(&server.address, "/grid");
    assert_eq!(grid.eval("document.querySelectorAll('.cell').filter((c) => c.querySelector('.badge')).length"), "8");
}

#[test]
fn a_picture_that_cannot_be_had_says_why_in_its_place() {
    let temp = tempfile::tempdir().unwrap();
    let dir = labelled(&temp.path().join("cache"), "a", 3);
    let server = Served::decoded(&dir);
    let page = Browser::open(&server.address, "/sample/0");
    // As a file that is cut while the page is open.
    let shard = &shards(&dir)[0];
    let whole = std::fs::read(shard).unwrap();
    std::fs::OpenOptions::new().write(true).open(shard).unwrap().set_len(1000).unwrap();
    page.act("brokenPictures()");
    let text = page.text();
    assert!(text.contains("shard-00000-00000.parquet has 1000 bytes, expected"), "{text}");
    let next = Browser::open(&server.address, "/sample/1");
    assert!(next.alerts().contains("has 1000 bytes") && next.text().contains("Next row"), "{}", next.text());
    std::fs::write(shard, whole).unwrap();
}

#[test]
fn a_server_that_was_stopped_is_said_to_be_stopped() {
    let temp = tempfile::tempdir().unwrap();
    let mut server = Served::of(&labelled(&temp.path().join("cache"), "a", 20));
    let page = Browser::open(&server.address, "/grid");
    server.end();
    page.act("clicked(document.querySelectorAll('nav a').find((a) => a.textContent === 'Codebook'))");
    let alerts = page.alerts();
    assert!(
        alerts.contains("was stopped") && alerts.contains("tokengrid view") && !alerts.contains("fetch"),
        "{alerts}"
    );
}

#[test]
fn pages_work_below_the_path_of_a_proxy() {
    let temp = tempfile::tempdir().unwrap();
    let dir = labelled(&temp.path().join("cache"), "a", 20);
    // One that takes its path away, as Jupyter's does, and one that leaves it.
    let taken = Served::of(&dir);
    let left = Served::start(ViewConfig { prefix: "/user/me".into(), ..ViewConfig::new(dir.clone()) });
    for (page, root) in [
        (Browser::open_behind(&taken.address, "/sample/3", "/user/me/proxy/8080"), "/user/me/proxy/8080"),
        (Browser::open(&left.address, "/user/me/sample/3"), "/user/me"),
        (Browser::open(&left.address, "/sample/3"), ""),
    ] {
        assert!(page.text().contains("a/3.jpg"), "{root}: {}", page.text());
        page.act("document.querySelectorAll('button').find((b) => b.textContent.startsWith('Next row')).click()");
        assert_eq!(page.eval("location.pathname"), format!("{root}/sample/4"));
        page.act("clicked(document.querySelectorAll('nav a').find((a) => a.textContent === 'Overview'))");
        assert_eq!(page.eval("location.pathname"), format!("{root}/"));
        page.act("clicked(document.querySelectorAll('nav a').find((a) => a.textContent === 'Codebook'))");
        assert_eq!(page.eval("location.pathname"), format!("{root}/codebook"));
        is_well(&page, root);
    }
}

/// A server with pictures and originals.
fn with_source(dir: &Path, open: OpenSource) -> Served {
    let decoder = Decoder { name: "stub".into(), fingerprint: "5a17".into(), decode: Box::new(Stub) };
    Served::start(ViewConfig { decoder: Some(decoder), source: Some(open), ..ViewConfig::new(dir.to_owned()) })
}

#[test]
fn a_source_that_failed_is_not_called_missing() {
    let temp = tempfile::tempdir().unwrap();
    let dir = labelled(&temp.path().join("cache"), "a", 3);
    let server = with_source(&dir, Box::new(|| Err("the disk is on fire".into())));
    let page = Browser::open(&server.address, "/sample/1");
    let text = page.text();
    assert!(text.contains("the disk is on fire") && !text.contains("--source"), "{text}");
}

#[test]
fn a_row_without_an_original_has_no_words_about_a_difference() {
    let temp = tempfile::tempdir().unwrap();
    let dir = labelled(&temp.path().join("cache"), "a", 3);
    let folder = temp.path().join("source/a");
    std::fs::create_dir_all(&folder).unwrap();
    let picture = Picture { width: 64, height: 64, rgb: vec![9; 64 * 64 * 3] };
    std::fs::write(folder.join("other.png"), picture.to_png()).unwrap();
    let source = Source::open(&temp.path().join("source"), &SourceOptions::default()).unwrap();
    let named = vec![NamedSource { split: String::new(), source }];
    let server = with_source(&dir, Box::new(move || Ok(named)));
    let page = Browser::open(&server.address, "/sample/1");
    page.act("brokenPictures()");
    let text = page.text();
    assert!(text.contains("the source has no image") && !text.contains("Differences times"), "{text}");
}

#[test]
fn nothing_is_counted_as_nothing_and_classes_alike_on_every_page() {
    let temp = tempfile::tempdir().unwrap();
    for (kind, dir) in every_kind(temp.path()) {
        if kind == "empty" || kind == "quarantine only" {
            let text = Browser::open(&Served::of(&dir).address, "/codebook").text();
            assert!(text.contains("0perplexity (2^entropy), in codes"), "{kind}: {text}");
        }
    }
    let images = [("a", 0), ("b", 3), ("c", 1)].map(Some);
    let plain = Served::of(&written(&temp.path().join("plain"), &images, |job| job.classes.clear()));
    // The first page waits until the cache is open.
    let classes = Browser::open(&plain.address, "/classes").text();
    let overview = Browser::open(&plain.address, "/").text();
    assert!(classes.contains("4 classes") && overview.contains("4classes, without names"), "{classes} {overview}");
    let grid = Browser::open(&plain.address, "/grid?key=a").text();
    assert!(grid.contains("1 of 1 row") && !grid.contains("1 rows"), "{grid}");
}
