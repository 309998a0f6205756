//! Killed, continued, shared, refused.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::*;
use serde_json::json;
use std::fs;
use std::process::Command;
use tokengrid_cache::{CacheError, CacheWriter, JobSpec, OpenMode, TokenCache, verify};

fn hash_of(dir: &std::path::Path) -> String {
    assert!(verify(dir, &mut |_, _| {}).unwrap().is_ok());
    TokenCache::open(dir).unwrap().content_hash().to_owned()
}

fn expected_hash() -> String {
    let (_temp, dir) = small_cache();
    hash_of(&dir)
}

/// Dropping the writer leaves on disk what a killed process leaves; a torn temporary file is added.
#[test]
fn killed_after_any_image_it_ends_the_same() {
    let expected = expected_hash();
    let job = small_job();
    for kill_after in 0..=37 {
        let temp = tempfile::tempdir().unwrap();
        let mut writer = CacheWriter::open(temp.path(), job.clone(), OpenMode::Resume).unwrap();
        (0..kill_after).for_each(|image| push(&mut writer, &job, image).unwrap());
        let durable = writer.next_image();
        drop(writer);
        fs::write(temp.path().join(".tmp-00000"), b"PAR1 torn").unwrap();
        assert!(matches!(TokenCache::open(temp.path()), Err(CacheError::Unfinished { done: 0, expected: 1, .. })));

        let writer = CacheWriter::open(temp.path(), job.clone(), OpenMode::Resume).unwrap();
        // At most one row group (four images, and those in quarantine among them) is done again.
        assert_eq!(writer.next_image(), durable);
        assert!(kill_after - durable <= 5, "{kill_after} {durable}");
        assert!(!writer.is_complete());
        drop(writer);
        run(temp.path(), &job, OpenMode::Resume).unwrap();
        assert_eq!(hash_of(temp.path()), expected, "killed after {kill_after}");
        assert!(names(temp.path()).iter().all(|name| !name.starts_with('.')), "{:?}", names(temp.path()));
    }
}

/// An overwriting process that died while it removed the old cache says so by a job of no processes.
#[test]
fn an_overwriting_job_that_was_killed_goes_on_without_the_flag() {
    let (temp, dir) = small_cache();
    let expected = hash_of(&dir);
    let job = small_job();
    drop(CacheWriter::open(temp.path().join("begun").as_path(), job.clone(), OpenMode::Resume).unwrap());
    let begun = fs::read_to_string(temp.path().join("begun/.job.json")).unwrap();
    let clearing = begun.replace("\"world_size\": 1", "\"world_size\": 0");
    assert_ne!(clearing, begun);
    fs::write(dir.join(".job.json"), clearing).unwrap();
    fs::remove_file(dir.join("manifest.json")).unwrap();
    let other = JobSpec { num_views: job.num_views + 1, ..job.clone() };
    assert!(matches!(run(&dir, &other, OpenMode::Resume), Err(CacheError::JobDiffers { .. })));
    run(&dir, &job, OpenMode::Resume).unwrap();
    assert_eq!(hash_of(&dir), expected);
}

/// The files themselves are the same as those of an unbroken run: shards are cut where row groups end, not where a
/// process did.
#[test]
fn a_killed_job_leaves_the_same_bytes() {
    let (_temp, unbroken) = small_cache();
    let job = small_job();
    let temp = tempfile::tempdir().unwrap();
    for kill_after in [3, 6, 14, 15, 29] {
        let mut writer = CacheWriter::open(temp.path(), job.clone(), OpenMode::Resume).unwrap();
        (writer.next_image()..kill_after).for_each(|image| push(&mut writer, &job, image).unwrap());
    }
    run(temp.path(), &job, OpenMode::Resume).unwrap();
    for name in names(&unbroken) {
        assert_eq!(fs::read(unbroken.join(&name)).unwrap(), fs::read(temp.path().join(&name)).unwrap(), "{name}");
    }
}

/// The real thing: a process that is killed (SIGKILL) wherever it happens to be, twice, then run to its end; a hundred
/// kills in all.
#[test]
fn a_process_killed_at_random_moments_ends_the_same() {
    const CHILD: &str = "TOKENGRID_TEST_KILLED";
    let job = small_job();
    if let Some(dir) = std::env::var_os(CHILD) {
        let mut writer = CacheWriter::open(dir.as_ref(), job.clone(), OpenMode::Resume).unwrap();
        for image in writer.next_image()..writer.images().end {
            push(&mut writer, &job, image).unwrap();
            std::thread::sleep(std::time::Duration::from_micros(500));
        }
        writer.finish().unwrap();
        return;
    }
    let expected = expected_hash();
    let mut unfinished = 0;
    for round in 0..50u64 {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("cache");
        for kill in 0..2 {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "a_process_killed_at_random_moments_ends_the_same"])
                .env(CHILD, &dir)
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(std::time::Duration::from_micros(scramble(round * 2 + kill) % 60_000));
            child.kill().unwrap();
            child.wait().unwrap();
            unfinished += usize::from(TokenCache::open(&dir).is_err());
        }
        run(&dir, &job, OpenMode::Resume).unwrap();
        assert_eq!(hash_of(&dir), expected, "round {round}");
        assert!(names(&dir).iter().all(|name| !name.starts_with('.')), "{:?}", names(&dir));
    }
    assert!(unfinished > 0, "no process was killed in time");
}

/// Jobs of 1, 2 and 4 processes at once; one of them is killed and started again, and whichever is last publishes.
#[test]
fn processes_that_share_a_job_survive_one_of_them() {
    const CHILD: &str = "TOKENGRID_TEST_RANK";
    if let Ok(text) = std::env::var(CHILD) {
        let mut parts = text.splitn(3, ' ');
        let mut number = || parts.next().unwrap().parse::<u32>().unwrap();
        let job = JobSpec { rank: number(), world_size: number(), ..small_job() };
        let dir = std::path::PathBuf::from(parts.next().unwrap());
        let mut writer = CacheWriter::open(&dir, job.clone(), OpenMode::Resume).unwrap();
        for image in writer.next_image()..writer.images().end {
            push(&mut writer, &job, image).unwrap();
            std::thread::sleep(std::time::Duration::from_micros(800));
        }
        writer.finish().unwrap();
        return;
    }
    let expected = expected_hash();
    for round in 0..12u64 {
        let temp = tempfile::tempdir().unwrap();
        let (dir, world_size) = (temp.path().join("cache"), [1u64, 2, 4][round as usize % 3]);
        let start = |rank: u64| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "processes_that_share_a_job_survive_one_of_them"])
                .env(CHILD, format!("{rank} {world_size} {}", dir.display()))
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        };
        let mut processes: Vec<_> = (0..world_size).map(start).collect();
        let victim = scramble(round) % world_size;
        std::thread::sleep(std::time::Duration::from_micros(scramble(round + 100) % 50_000));
        processes[victim as usize].kill().unwrap();
        processes[victim as usize].wait().unwrap();
        processes[victim as usize] = start(victim);
        for mut process in processes {
            assert!(process.wait().unwrap().success(), "round {round}");
        }
        assert_eq!(hash_of(&dir), expected, "round {round}: {world_size} processes");
        assert!(names(&dir).iter().all(|name| !name.starts_with('.')), "{:?}", names(&dir));
    }
}

/// A small disk of its own (tmpfs) that fills up at every moment of a job, has space freed, and is made read-only. A
/// mount needs a namespace of one's own; where that is not allowed, this is skipped.
#[cfg(target_os = "linux")]
#[test]
fn a_full_and_a_read_only_disk_lose_nothing() {
    const CHILD: &str = "TOKENGRID_TEST_TMPFS";
    let job = JobSpec { grid: tokengrid_cache::GridSpec { height: 50, width: 30, bits: 18 }, ..small_job() };
    if let Some(disk) = std::env::var_os(CHILD) {
        return on_a_small_disk(disk.as_ref(), &job);
    }
    let temp = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=1200k none \"$TOKENGRID_TEST_TMPFS\" || exit 77
        exec \"$0\" --exact a_full_and_a_read_only_disk_lose_nothing --nocapture";
    let output = Command::new("unshare")
        .args(["-Urm", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, temp.path())
        .output();
    match output {
        Err(error) => tokengrid_test_support::skip_anywhere(&format!("there is no unshare ({error})")),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let begun = String::from_utf8_lossy(&output.stdout).contains("running 1 test");
            if !begun {
                tokengrid_test_support::skip_anywhere(&format!("no mount in a namespace of its own: {said}"));
                return;
            }
            assert!(output.status.success(), "{said}");
        }
    }
}

#[cfg(target_os = "linux")]
fn on_a_small_disk(disk: &std::path::Path, job: &JobSpec) {
    let reference = tempfile::tempdir().unwrap();
    let expected = run(reference.path(), job, OpenMode::Resume).unwrap().content_hash;
    let (dir, filler) = (disk.join("cache"), disk.join("filler"));
    let mut full = 0;
    // Each time a little more space is left than the time before, and the disk is full a little later.
    for left_kib in (4..700).step_by(8) {
        let free = 1200usize.saturating_sub(left_kib + used_kib(&dir));
        let _ = fs::write(&filler, vec![0u8; free * 1024]);
        match run(&dir, job, OpenMode::Resume) {
            Ok(done) => assert_eq!(done.content_hash, expected),
            Err(error) => {
                full += 1;
                assert!(matches!(error, CacheError::DiskFull { .. }), "{}", chain(&error));
                assert!(error.to_string().contains("free some space"), "{error}");
            }
        }
        fs::remove_file(&filler).unwrap();
        assert!(names(disk) == ["cache"], "{:?}", names(disk));
        if dir.exists() {
            assert!(names(&dir).iter().all(|name| !name.starts_with(".tmp")), "{:?}", names(&dir));
        }
    }
    assert!(full > 3, "the disk was full {full} times");
    fs::remove_dir_all(&dir).unwrap();

    let mut writer = CacheWriter::open(&dir, job.clone(), OpenMode::Resume).unwrap();
    (0..12).for_each(|image| push(&mut writer, job, image).unwrap());
    let remount = |how: &str| {
        assert!(Command::new("mount").args(["-o", how]).arg(disk).status().unwrap().success(), "{how}");
    };
    let durable = writer.next_image();
    // The lock's file is open for writing, which forbids a remount: the writer is killed first.
    drop(writer);
    remount("remount,ro");
    let error = run(&dir, job, OpenMode::Resume).unwrap_err();
    assert!(matches!(error, CacheError::ReadOnly { .. }), "{}", chain(&error));
    remount("remount,rw");
    let writer = CacheWriter::open(&dir, job.clone(), OpenMode::Resume).unwrap();
    assert_eq!(writer.next_image(), durable, "nothing was lost");
    drop(writer);
    assert_eq!(run(&dir, job, OpenMode::Resume).unwrap().content_hash, expected);
}

#[cfg(target_os = "linux")]
fn used_kib(dir: &std::path::Path) -> usize {
    if !dir.exists() {
        return 0;
    }
    let size = |name: &String| fs::metadata(dir.join(name)).unwrap().len() as usize;
    names(dir).iter().map(|name| size(name).div_ceil(4096) * 4).sum()
}

#[test]
fn a_checkpoint_keeps_everything() {
    let (temp, job) = (tempfile::tempdir().unwrap(), small_job());
    let mut writer = CacheWriter::open(temp.path(), job.clone(), OpenMode::Resume).unwrap();
    writer.checkpoint().unwrap(); // nothing yet: no file
    assert!(names(temp.path()).iter().all(|name| name.starts_with('.')));
    (0..19).for_each(|image| push(&mut writer, &job, image).unwrap());
    writer.checkpoint().unwrap();
    assert_eq!(writer.next_image(), 19);
    drop(writer);
    let mut writer = CacheWriter::open(temp.path(), job.clone(), OpenMode::Resume).unwrap();
    assert_eq!(writer.next_image(), 19);
    (19..21).for_each(|image| push(&mut writer, &job, image).unwrap());
    writer.checkpoint().unwrap(); // and going on with the same writer
    (21..37).for_each(|image| push(&mut writer, &job, image).unwrap());
    writer.finish().unwrap();
    assert_eq!(hash_of(temp.path()), expected_hash());
}

#[test]
fn a_damaged_part_is_done_again() {
    let (temp, job) = (tempfile::tempdir().unwrap(), small_job());
    let mut writer = CacheWriter::open(temp.path(), job.clone(), OpenMode::Resume).unwrap();
    (0..7).for_each(|image| push(&mut writer, &job, image).unwrap());
    assert_eq!(writer.next_image(), 5);
    drop(writer);
    let part = names(temp.path()).into_iter().find(|name| name.starts_with(".part-")).unwrap();
    let mut bytes = fs::read(temp.path().join(&part)).unwrap();
    bytes[100] ^= 1;
    fs::write(temp.path().join(&part), bytes).unwrap();
    let writer = CacheWriter::open(temp.path(), job.clone(), OpenMode::Resume).unwrap();
    assert_eq!(writer.next_image(), 0);
    drop(writer);
    run(temp.path(), &job, OpenMode::Resume).unwrap();
    assert_eq!(hash_of(temp.path()), expected_hash());
}

#[test]
fn a_damaged_shard_stops_the_resumption_by_name() {
    let (temp, job) = (tempfile::tempdir().unwrap(), small_job());
    let mut writer = CacheWriter::open(temp.path(), job.clone(), OpenMode::Resume).unwrap();
    (0..30).for_each(|image| push(&mut writer, &job, image).unwrap());
    drop(writer);
    let path = temp.path().join("shard-00000-00001.parquet");
    let bytes = fs::read(&path).unwrap();
    let mut damaged = bytes.clone();
    damaged[60] ^= 0x10;
    fs::write(&path, damaged).unwrap();
    let error = CacheWriter::open(temp.path(), job.clone(), OpenMode::Resume).unwrap_err().to_string();
    assert!(error.contains("shard-00000-00001.parquet, row group 0") && error.contains("tokens"), "{error}");
    fs::remove_file(&path).unwrap();
    let error = CacheWriter::open(temp.path(), job.clone(), OpenMode::Resume).unwrap_err();
    assert!(matches!(&error, CacheError::ShardGap { missing, .. } if missing == &path), "{error}");
}

#[test]
fn any_number_of_ranks_gives_the_same_content() {
    let expected = expected_hash();
    for world_size in [1, 2, 4, 50] {
        let temp = tempfile::tempdir().unwrap();
        let of = |rank| JobSpec { rank, world_size, ..small_job() };
        // The last rank first, one of them killed and run again at the end.
        let mut killed = CacheWriter::open(temp.path(), of(0), OpenMode::Resume).unwrap();
        if let Some(image) = killed.images().next() {
            push(&mut killed, &of(0), image).unwrap();
        }
        drop(killed);
        for rank in (1..world_size).rev() {
            let done = run(temp.path(), &of(rank), OpenMode::Resume).unwrap();
            assert!(!done.published && done.content_hash.is_none());
        }
        assert!(TokenCache::open(temp.path()).is_err());
        let done = run(temp.path(), &of(0), OpenMode::Resume).unwrap();
        assert_eq!((done.published, done.rows, done.quarantined), (true, 68, 3));
        assert_eq!(hash_of(temp.path()), expected, "{world_size} ranks");
        assert!(names(temp.path()).iter().all(|name| !name.starts_with('.')), "{:?}", names(temp.path()));
        let quarantine = fs::read_to_string(temp.path().join("quarantine.jsonl")).unwrap();
        assert_eq!(quarantine.lines().count(), 3);
    }
}

#[test]
fn ranks_that_run_at_once_publish_once() {
    let expected = expected_hash();
    for _ in 0..20 {
        let temp = tempfile::tempdir().unwrap();
        let published = std::thread::scope(|scope| {
            let start = |rank| {
                let dir = temp.path();
                scope
                    .spawn(move || run(dir, &JobSpec { rank, world_size: 4, ..small_job() }, OpenMode::Resume).unwrap())
            };
            let ranks: Vec<_> = (0..4).map(start).collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).filter(|done| done.published).count()
        });
        assert!(published >= 1);
        assert_eq!(hash_of(temp.path()), expected);
    }
}

#[test]
fn a_finished_cache_of_the_same_job_is_left_alone() {
    let (_temp, dir) = small_cache();
    let before = fs::read(dir.join("manifest.json")).unwrap();
    for (rank, world_size) in [(0, 1), (1, 2)] {
        let job = JobSpec { rank, world_size, rows_per_group: 100, ..small_job() };
        let writer = CacheWriter::open(&dir, job, OpenMode::Resume).unwrap();
        assert!(writer.is_complete());
        assert_eq!(writer.next_image(), writer.images().end);
        let done = writer.finish().unwrap();
        assert_eq!((done.published, done.rows, done.images), (true, 68, 34));
    }
    assert_eq!(before, fs::read(dir.join("manifest.json")).unwrap());
}

#[test]
fn another_job_is_refused_by_the_field_that_differs() {
    let (temp, finished) = small_cache();
    let unfinished = temp.path().join("unfinished");
    drop(CacheWriter::open(&unfinished, small_job(), OpenMode::Resume).unwrap());
    type Change = fn(&mut JobSpec);
    let changes: [(&str, Change); 9] = [
        ("tokenizer.fingerprint is \"0123abcd\" there, \"ffff\" here", |job| job.tokenizer.fingerprint = "ffff".into()),
        ("tokenizer.variant is \"ema\" there, \"raw\" here", |job| job.tokenizer.variant = "raw".into()),
        ("tokenizer.precision", |job| job.tokenizer.precision = "bf16".into()),
        ("recipe.seed is 7 there, 8 here", |job| job.recipe["seed"] = json!(8)),
        ("grid is \"5x3\" there, \"3x5\" here", |job| (job.grid.height, job.grid.width) = (3, 5)),
        ("bits is 18 there, 17 here", |job| job.grid.bits = 17),
        ("views is 2 there, 1 here", |job| job.num_views = 1),
        ("source.images is 37 there, 38 here", |job| job.source.images = 38),
        ("classes[2]", |job| job.classes[2] = "n00000009".into()),
    ];
    for (expected, change) in changes {
        let mut job = small_job();
        change(&mut job);
        for dir in [&finished, &unfinished] {
            let error = CacheWriter::open(dir, job.clone(), OpenMode::Resume).unwrap_err();
            assert!(matches!(error, CacheError::JobDiffers { .. }), "{error}");
            assert!(error.to_string().contains(expected), "{error} should say {expected}");
        }
    }
    let job = JobSpec { world_size: 2, ..small_job() };
    let error = CacheWriter::open(&unfinished, job, OpenMode::Resume).unwrap_err().to_string();
    assert!(error.contains("world_size is 1 there, 2 here"), "{error}");
}

#[test]
fn overwriting_replaces_another_job_and_nothing_else() {
    let (_temp, dir) = small_cache();
    fs::write(dir.join("notes.txt"), "mine").unwrap();
    let mut job = small_job();
    job.tokenizer.fingerprint = "ffff".into();
    run(&dir, &job, OpenMode::Overwrite).unwrap();
    assert_eq!(fs::read_to_string(dir.join("notes.txt")).unwrap(), "mine");
    assert_eq!(TokenCache::open(&dir).unwrap().manifest().tokenizer.fingerprint, "ffff");
    assert!(verify(&dir, &mut |_, _| {}).unwrap().is_ok());
    // Four ranks that all overwrite do not remove each other's work.
    for rank in 0..4 {
        let done = run(&dir, &JobSpec { rank, world_size: 4, ..small_job() }, OpenMode::Overwrite).unwrap();
        assert_eq!(done.published, rank == 3);
    }
    assert_eq!(hash_of(&dir), expected_hash());
}

#[test]
fn a_folder_of_something_else_is_refused_in_both_modes() {
    for mode in [OpenMode::Resume, OpenMode::Overwrite] {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("shard-00000-00000.parquet"), "somebody's").unwrap();
        let error = CacheWriter::open(temp.path(), small_job(), mode).unwrap_err();
        assert!(matches!(error, CacheError::FolderNotEmpty { .. }), "{error}");
        assert_eq!(names(temp.path()), ["shard-00000-00000.parquet"], "nothing was added");
        fs::write(temp.path().join("manifest.json"), r#"{"format": "other"}"#).unwrap();
        assert!(CacheWriter::open(temp.path(), small_job(), mode).is_err());
        assert_eq!(names(temp.path()).len(), 2);
    }
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("file");
    fs::write(&file, "").unwrap();
    let error = CacheWriter::open(&file, small_job(), OpenMode::Resume).unwrap_err();
    assert!(chain(&error).contains("cannot create folder") && chain(&error).contains("file"), "{}", chain(&error));
}

#[test]
fn two_processes_of_one_rank_do_not_write_at_once() {
    let temp = tempfile::tempdir().unwrap();
    let writer = CacheWriter::open(temp.path(), small_job(), OpenMode::Resume).unwrap();
    for mode in [OpenMode::Resume, OpenMode::Overwrite] {
        let error = CacheWriter::open(temp.path(), small_job(), mode).unwrap_err();
        assert!(matches!(error, CacheError::Locked { .. }), "{error}");
    }
    let mut other = small_job();
    other.tokenizer.fingerprint = "ffff".into();
    let error = CacheWriter::open(temp.path(), other, OpenMode::Overwrite).unwrap_err();
    assert!(matches!(error, CacheError::Locked { .. }), "{error}");
    drop(writer);
    run(temp.path(), &small_job(), OpenMode::Resume).unwrap();
    assert_eq!(hash_of(temp.path()), expected_hash());
}

#[test]
fn an_early_finish_is_refused() {
    let (temp, job) = (tempfile::tempdir().unwrap(), small_job());
    let mut writer = CacheWriter::open(temp.path(), job.clone(), OpenMode::Resume).unwrap();
    (0..36).for_each(|image| push(&mut writer, &job, image).unwrap());
    let error = writer.finish().unwrap_err();
    assert!(error.to_string().contains("from image 36 on"), "{error}");
    assert!(TokenCache::open(temp.path()).is_err());
}

/// A file size limit stands in for a full disk: writing fails half way through a file. The limit must hold for a whole
/// process, so this test runs itself in one.
#[cfg(unix)]
#[test]
fn a_failed_write_leaves_finished_shards_and_no_temporary_file() {
    const CHILD: &str = "TOKENGRID_TEST_FULL_DISK";
    let mut job = small_job();
    job.grid.height = 200; // 1350 bytes per row
    job.rows_per_group = 16;
    job.groups_per_shard = 1;
    if let Some(dir) = std::env::var_os(CHILD) {
        job.rows_per_group = 40;
        let error = run(dir.as_ref(), &job, OpenMode::Resume).unwrap_err();
        let text = chain(&error);
        assert!(text.contains("cannot write") && text.contains(".tmp-00000"), "{text}");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let mut writer = CacheWriter::open(temp.path(), job.clone(), OpenMode::Resume).unwrap();
    (0..12).for_each(|image| push(&mut writer, &job, image).unwrap());
    drop(writer);
    let before = names(temp.path());
    assert!(before.contains(&"shard-00000-00000.parquet".to_owned()), "{before:?}");
    // 40 blocks of 1024 (dash: 512) bytes: less than the 54,000 of the next row group.
    let script =
        "trap '' XFSZ; ulimit -f 40; exec \"$0\" --exact a_failed_write_leaves_finished_shards_and_no_temporary_file";
    let status = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, temp.path())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(names(temp.path()), before);
    job.rows_per_group = 16;
    run(temp.path(), &job, OpenMode::Resume).unwrap();
    assert_eq!(TokenCache::open(temp.path()).unwrap().num_rows(), 68);
    assert!(verify(temp.path(), &mut |_, _| {}).unwrap().is_ok());
}
