//! Jobs from bucket to bucket give the same cache as a local job, against a real S3 server.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;
#[path = "common/buckets.rs"]
mod world;

use common::{PARQUET, json, many_photos, photos, sorted, tar, text};
use std::path::Path;
use std::process::Command;
use tokengrid_test_support::buckets::{Fate, Proxy, web_server};
use world::{World, local_hash, shards, tokenize};

/// Bytes of all files below a folder.
fn bytes_below(folder: &Path) -> u64 {
    let bytes =
        |path: &std::path::PathBuf| if path.is_dir() { bytes_below(path) } else { path.metadata().unwrap().len() };
    sorted(folder).iter().map(bytes).sum()
}

fn has_shards(folder: &Path) -> bool {
    let is_shard =
        |path: &std::path::PathBuf| path.extension().is_some_and(|name| name == "parquet") || has_shards(path);
    folder.is_dir() && sorted(folder).iter().any(is_shard)
}

#[test]
fn every_kind_of_source_gives_the_local_content_hash_and_is_fetched_once() {
    let Some(world) = World::new() else { return };
    let source = photos(world.folder.path(), 2, 3);
    let expected = local_hash(&source, &world.path("local"));
    let (wds, nested) = (world.path("wds"), world.path("nested"));
    shards(&source, &wds);
    std::fs::create_dir_all(nested.join("classes")).unwrap();
    for class in sorted(&source) {
        tar(&class, &nested.join("classes").join(format!("{}.tar", class.file_name().unwrap().to_str().unwrap())));
    }
    tar(&nested.join("classes"), &nested.join("ILSVRC2012_img_train.tar"));
    std::fs::remove_dir_all(nested.join("classes")).unwrap();
    let images: Vec<_> = sorted(&source).iter().flat_map(|class| sorted(class)).collect();
    let line = |label: usize, image: &Path| {
        let key = image.strip_prefix(&source).unwrap();
        format!("s3://bucket/photos/{}\t{label}\n", key.display())
    };
    let classes = sorted(&source);
    let label = |image: &Path| classes.iter().position(|class| image.starts_with(class)).unwrap();
    let list: String = images.iter().map(|image| line(label(image), image)).collect();
    std::fs::write(world.path("list.txt"), &list).unwrap();
    let relative = list.replace("s3://bucket/photos/", "");
    for (folder, prefix) in [(&source, "photos"), (&wds, "wds"), (&nested, "nested")] {
        world.server.put_folder(folder, prefix);
    }
    world.server.put("photos/list.txt", relative.as_bytes());
    let list = world.path("list.txt");
    let (photos_bytes, wds_bytes, nested_bytes) = (bytes_below(&source), bytes_below(&wds), bytes_below(&nested));
    let list_bytes = photos_bytes + relative.len() as u64;
    for (number, (url, needed)) in [
        ("s3://bucket/photos/", photos_bytes),
        ("s3://bucket/wds/{000..001}.tar", wds_bytes),
        ("s3://bucket/wds", wds_bytes),
        ("s3://bucket/nested/ILSVRC2012_img_train.tar", nested_bytes),
        (text(&list), photos_bytes),
        ("s3://bucket/photos/list.txt", list_bytes),
    ]
    .into_iter()
    .enumerate()
    {
        let (out, stage) = (world.path(&format!("out-{number}")), format!("stage-{number}"));
        let command = world.command(world.server.address(), &stage);
        let made = world.json_by(command, &tokenize(url, text(&out)));
        assert_eq!(made["content_hash"], expected.as_str(), "{url}");
        let fetched = made["bytes_fetched"].as_u64().unwrap();
        assert!(fetched >= needed && fetched as f64 <= 1.02 * needed as f64, "{url}: {fetched} of {needed} bytes");
    }
}

#[test]
fn a_part_of_tars_is_read_by_ranges_and_ranks_share_the_work() {
    let Some(world) = World::new() else { return };
    let source = photos(world.folder.path(), 2, 4);
    let expected = local_hash(&source, &world.path("local"));
    shards(&source, &world.path("wds"));
    world.server.put_folder(&world.path("wds"), "wds");
    let url = "s3://bucket/wds/{000..001}.tar";
    let few = world.json(&["ingest", url, "--limit", "1"]);
    let whole = bytes_below(&world.path("wds"));
    assert_eq!((&few["ok"], few["bytes_fetched"].as_u64().unwrap() < whole / 2), (&1.into(), true), "{few}");
    let fewer = world.json(&["ingest", "s3://bucket/wds/000.tar", "--stage-size", "1K"]);
    assert_eq!((&fewer["ok"], &fewer["bad"]), (&4.into(), &serde_json::json!([])));
    // One look for the object, and one for what it is; one request for each image, and one for the headers behind it, with which
    // label files come; one for the first header, and two where many label files lie side by side.
    assert!(fewer["requests"].as_u64().unwrap() <= 2 + 2 * 4 + 3, "{fewer}");
    for rank in ["0", "1"] {
        let ranks = ["--rank", rank, "--world-size", "2"];
        // A separate machine for each: no shared folder.
        let command = world.command(world.server.address(), &format!("machine-{rank}"));
        let made = world.json_by(command, &[&tokenize(url, "s3://bucket/cache")[..], &ranks].concat());
        assert_eq!(made["published"], rank == "1", "the last one publishes");
    }
    assert_eq!(world.json(&["cache", "info", "s3://bucket/cache"])["content_hash"], expected.as_str());
    let keys = world.server.keys("cache/");
    assert!(keys.iter().all(|key| !key.contains("/.")), "nothing but the cache is left: {keys:?}");
}

#[test]
fn images_that_are_read_ahead_count_into_the_memory() {
    let Some(world) = World::new() else { return };
    let source = many_photos(world.folder.path(), 60);
    world.server.put_folder(&source, "photos");
    let files = sorted(&source).into_iter().flat_map(|class| sorted(&class));
    let smallest = files.map(|file| file.metadata().unwrap().len()).min().unwrap();
    let most_in_flight = |memory: &str| {
        let proxy = Proxy::start(world.server.address(), |_, _| Fate::Slow(std::time::Duration::from_millis(50)));
        let command = world.command(proxy.address(), "stage");
        let report = world.json_by(command, &["ingest", "s3://bucket/photos", "--threads", "1", "--memory", memory]);
        assert_eq!(report["ok"], 60, "{report}");
        proxy.most_in_flight() as u64
    };
    // An eighth of the memory holds so many; one more may be on its way to the decoder, and one goes beyond.
    let (few, many) = (most_in_flight("4M"), most_in_flight("1G"));
    assert!(few <= (4 << 20) / 8 / smallest + 2 && few < many, "{few} and {many} at once");
}

#[test]
fn no_more_reads_are_in_flight_than_were_allowed() {
    let Some(world) = World::new() else { return };
    let source = photos(world.folder.path(), 1, 8);
    world.server.put_folder(&source, "photos");
    // Each read takes long enough for the others to come, were they allowed to.
    let proxy = Proxy::start(world.server.address(), |_, _| Fate::Slow(std::time::Duration::from_millis(50)));
    let read = ["ingest", "s3://bucket/photos", "--requests", "2"];
    assert_eq!(world.json_by(world.command(proxy.address(), "stage"), &read)["ok"], 8);
    assert!(proxy.most_in_flight() <= 2, "{} at once", proxy.most_in_flight());
}

#[test]
fn a_cache_in_a_bucket_is_read_like_a_local_one() {
    let Some(world) = World::new() else { return };
    let source = photos(world.folder.path(), 2, 5);
    let local = world.path("local");
    let expected = local_hash(&source, &local);
    let made = world.json(&tokenize(text(&source), "s3://bucket/a/cache"));
    assert_eq!(made["content_hash"], expected.as_str());
    let again = world.json(&tokenize(text(&source), "s3://bucket/a/cache"));
    assert_eq!((&again["images_now"], &again["content_hash"]), (&0.into(), &expected.as_str().into()));
    let url = "s3://bucket/a/cache";
    let before = std::fs::read_dir(world.path("stage")).map_or(0, Iterator::count);
    let (info, own) = (world.json(&["cache", "info", url]), json(&["cache", "info", text(&local)]));
    for field in ["rows", "images", "grid", "bytes_per_row", "content_hash"] {
        assert_eq!(info[field], own[field], "{field}");
    }
    assert_eq!(std::fs::read_dir(world.path("stage")).map_or(0, Iterator::count), before, "info stages nothing");
    let is_equal = |arguments: &[&str]| {
        let ours = world.json(&[&["cache", arguments[0], url], &arguments[1..]].concat());
        let theirs = json(&[&["cache", arguments[0], text(&local)], &arguments[1..]].concat());
        assert_eq!(ours, theirs, "{arguments:?}");
    };
    is_equal(&["show", "--index", "3"]);
    is_equal(&["head", "-n", "4"]);
    is_equal(&["find", "--view", "0", "--limit", "3"]);
    is_equal(&["find", "--class", "1"]);
    is_equal(&["find", "--key", "3"]);
    is_equal(&["find", "--class", "0", "--key", "no such key"]);
    let printed = |dir: &str| {
        let mut command = world.command(world.server.address(), "stage");
        let output = command.args(["cache", "find", dir, "--key", "0", "--view", "0"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(printed(url), printed(text(&local)));
    assert!(!has_shards(&world.path("stage")), "commands about some rows read ranges");
    is_equal(&["stats"]);
    assert!(has_shards(&world.path("stage")));
    is_equal(&["show", "--index", "3"]);
    assert_eq!(world.json(&["cache", "verify", url])["ok"], true);
    assert_eq!(world.json(&["cache", "diff", url, text(&local)])["same"], true);
    // A damaged shard is named; what was staged before it was damaged is not looked at by `verify`. A single grid has no checksum;
    // columns and footer do.
    let fails = |arguments: &[&str]| world.fails_by(world.command(world.server.address(), "new"), arguments);
    let shard = world.server.keys("a/cache/shard").remove(0);
    let mut bytes = world.server.get(&shard).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    world.server.put(&shard, &bytes);
    let said = world.fails_by(world.command(world.server.address(), "stage"), &["cache", "verify", url]);
    assert!(said.contains("1 problem"), "{said}");
    let said = fails(&["cache", "stats", url]);
    assert!(said.contains(&format!("s3://bucket/{shard}")) && said.contains("checksum"), "{said}");
    bytes[middle] ^= 1;
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(local.join("manifest.json")).unwrap()).unwrap();
    let footer = manifest["shards"][0]["footer"]["offset"].as_u64().unwrap() as usize;
    let readers = [&["head", "-n", "100"][..], &["show", "--index", "0"], &["find", "--key", "3"]];
    // In the last column of the last row group; in the footer.
    for (place, readers) in [(footer - 1, &readers[..1]), (footer + 9, &readers)] {
        bytes[place] ^= 1;
        world.server.put(&shard, &bytes);
        for arguments in readers {
            let said = fails(&[&["cache", arguments[0], url], &arguments[1..]].concat());
            assert!(said.contains(&format!("s3://bucket/{shard}")), "byte {place}, {arguments:?}: {said}");
        }
        bytes[place] ^= 1;
    }
}

#[test]
fn a_job_goes_on_where_another_machine_stopped_in_spite_of_faults() {
    let Some(world) = World::new() else { return };
    let source = photos(world.folder.path(), 3, 5);
    let expected = local_hash(&source, &world.path("local"));
    world.server.put_folder(&source, "photos");
    // Some requests fail, some answers are lost, some are cut short.
    let proxy = Proxy::start(world.server.address(), |number, request| match number % 11 {
        2 => Fate::Answer(tokengrid_test_support::buckets::Answer::status_only("503 Slow Down")),
        5 => Fate::Answer(tokengrid_test_support::buckets::Answer::status_only("500 Internal Server Error")),
        7 if request.method() == "GET" => Fate::Tear,
        9 => Fate::Lose,
        _ => Fate::Pass,
    });
    let arguments = tokenize("s3://bucket/photos", "s3://bucket/cache");
    // A bad image limit stops nothing here; the first machine is told to make a part of the work and is killed.
    let mut first = std::process::Command::new(assert_cmd::cargo::cargo_bin("tokengrid"));
    first.args(&arguments).env("TOKENGRID_STAGE_DIR", world.path("first"));
    first.envs(tokengrid_test_support::buckets::s3_variables(proxy.address()));
    let mut child = first.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let has_part = || world.server.keys("cache/").iter().any(|key| key.contains("/.part-"));
    while !has_part() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(has_part(), "{}", String::from_utf8_lossy(&output.stderr));
    let made = world.json_by(world.command(proxy.address(), "second"), &arguments);
    assert_eq!(made["content_hash"], expected.as_str());
    assert!(made["images_now"].as_u64().unwrap() < 15, "what the first one had finished is not done again: {made}");
    let keys = world.server.keys("cache/");
    assert!(keys.iter().all(|key| !key.contains("/.")), "{keys:?}");
}

#[test]
fn of_two_jobs_one_publishes_and_the_other_says_so() {
    let Some(world) = World::new() else { return };
    let (one, two) = (photos(world.folder.path(), 2, 3), world.path("two"));
    std::fs::create_dir(&two).unwrap();
    let other = photos(&two, 3, 3);
    world.json(&tokenize(text(&one), "s3://bucket/cache"));
    let address = world.server.address();
    let said = world.fails_by(world.command(address, "stage"), &tokenize(text(&other), "s3://bucket/cache"));
    assert!(said.contains("another job") && said.contains("--overwrite"), "{said}");
    let expected = local_hash(&other, &world.path("local"));
    let made = world.json(&[&tokenize(text(&other), "s3://bucket/cache")[..], &["--overwrite"]].concat());
    assert_eq!(made["content_hash"], expected.as_str());
    assert_eq!(world.json(&["cache", "verify", "s3://bucket/cache"])["ok"], true);
    // Nothing is written into a folder with foreign files.
    world.server.put("foreign/file", b"x");
    let said = world.fails_by(world.command(address, "stage"), &tokenize(text(&one), "s3://bucket/foreign"));
    assert!(said.contains("not empty") && said.contains("file"), "{said}");
}

#[test]
fn leftovers_are_removed_and_an_unfinished_job_only_when_asked_to() {
    let Some(world) = World::new() else { return };
    let source = photos(world.folder.path(), 2, 2);
    world.json(&tokenize(text(&source), "s3://bucket/cache"));
    world.server.put("cache/.part-00000-0000000000", b"left");
    world.server.put("cache/shard-00007-00000.parquet", b"left");
    world.server.begin_upload("cache/shard-00000-00009.parquet");
    world.server.begin_upload("elsewhere/file");
    let cleaned = world.json(&["cache", "clean", "s3://bucket/cache"]);
    assert_eq!((&cleaned["objects"], &cleaned["uploads"]), (&2.into(), &1.into()), "{cleaned}");
    assert_eq!(world.server.num_uploads(), 1, "that of another prefix stays");
    assert_eq!(world.json(&["cache", "verify", "s3://bucket/cache"])["ok"], true);
    world.server.put("job/.job.json", b"{}");
    world.server.put("job/.part-00000-0000000000", b"begun");
    assert_eq!(world.json(&["cache", "clean", "s3://bucket/job"])["objects"], 0);
    assert_eq!(world.json(&["cache", "clean", "s3://bucket/job", "--unfinished"])["objects"], 2);
    assert!(world.server.keys("job/").is_empty());
}

#[test]
fn files_on_a_web_server_are_a_source() {
    let temp = tempfile::tempdir().unwrap();
    let source = photos(temp.path(), 2, 3);
    let expected = local_hash(&source, &temp.path().join("local"));
    shards(&source, &temp.path().join("wds"));
    let file = |path: &std::path::PathBuf| {
        (format!("data/{}", path.file_name().unwrap().to_str().unwrap()), std::fs::read(path).unwrap())
    };
    let server = web_server(sorted(&temp.path().join("wds")).iter().map(file).collect());
    let url = format!("http://{}/data/{{000..001}}.tar", server.address());
    let out = temp.path().join("out");
    let mut command = common::tokengrid();
    command.env("TOKENGRID_STAGE_DIR", temp.path().join("stage"));
    let output = command.args(tokenize(&url, text(&out))).arg("--json").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(made["content_hash"], expected.as_str());
}

#[test]
fn parquet_in_a_bucket_is_staged_or_read_by_pages() {
    let Some(python) = tokengrid_test_support::python_with("import pyarrow") else { return };
    let Some(world) = World::new() else { return };
    let source = photos(world.folder.path(), 2, 3);
    let parquet = world.path("train.parquet");
    assert!(Command::new(python).args(["-c", PARQUET, text(&source), text(&parquet)]).status().unwrap().success());
    world.server.put("data/train.parquet", &std::fs::read(&parquet).unwrap());
    let expected = local_hash(&parquet, &world.path("local"));
    let url = "s3://bucket/data/train.parquet";
    for (number, more) in [&[][..], &["--stage-size", "1K"]].into_iter().enumerate() {
        let out = world.path(&format!("out-{number}"));
        let command = world.command(world.server.address(), &format!("stage-{number}"));
        let made = world.json_by(command, &[&tokenize(url, text(&out))[..], more].concat());
        assert_eq!(made["content_hash"], expected.as_str(), "{more:?}");
    }
}
