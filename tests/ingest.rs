//! `ingest` as a user meets it: bad files, counts that add up, PNGs that can be continued.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::{fails, json, photos, sorted, text, tokengrid};
use std::path::{Path, PathBuf};

/// Two classes of six photographs, and beside them three files that cannot be decoded and one that only looks odd.
fn mixed(into: &Path) -> PathBuf {
    let source = photos(into, 2, 6);
    let class = sorted(&source)[0].clone();
    let whole = std::fs::read(&sorted(&class)[0]).unwrap();
    std::fs::write(class.join("cut.JPEG"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(class.join("page.jpg"), "<html>404</html>").unwrap();
    std::fs::write(class.join("zero.png"), "").unwrap();
    std::fs::write(class.join("longer.JPEG"), [&whole[..], b"what follows the end does not matter"].concat()).unwrap();
    std::fs::write(class.join(".DS_Store"), "x").unwrap();
    source
}

#[test]
fn every_input_is_ok_bad_or_excluded_and_the_report_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let source = mixed(folder.path());
    let (report, skip) = (folder.path().join("report.json"), sorted(&sorted(&source)[1])[0].clone());
    let name = skip.file_name().unwrap().to_str().unwrap();
    let fixed = ["ingest", text(&source), "--size", "64", "--exclude", name, "--report", text(&report)];
    let found = json(&fixed);
    let count = |key: &str| found[key].as_u64().unwrap();
    assert_eq!((count("images"), count("ok"), count("excluded"), count("views")), (15, 12, 1, 12));
    let mut bad: Vec<_> = found["bad"].as_array().unwrap().iter().map(|b| b["key"].as_str().unwrap()).collect();
    bad.sort_unstable();
    let ends: Vec<_> = bad.iter().map(|key| key.rsplit('/').next().unwrap()).collect();
    assert_eq!(ends, ["cut.JPEG", "page.jpg", "zero.png"]);
    assert!(found["bad"].as_array().unwrap().iter().all(|b| b["stage"] == "decode" && b["reason"] != ""));
    assert!(found["slowest_stage"].is_string() && found["stage_seconds"]["decode"].as_f64().unwrap() > 0.0);
    let written: serde_json::Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    assert_eq!(written["bad"], found["bad"]);
    let output = tokengrid().args(fixed).arg("--quiet").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("16 inputs (class folders) = 12 ok + 3 bad + 1 excluded"), "{said}");
}

#[test]
fn names_to_exclude_that_no_image_has_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let source = mixed(folder.path());
    let list = folder.path().join("names.txt");
    let typed = format!("@{}", text(&list));
    let name = sorted(&sorted(&source)[1])[0].file_name().unwrap().to_str().unwrap().to_owned();
    let warned = |lines: &str, more: &[&str]| {
        std::fs::write(&list, lines).unwrap();
        let arguments = ["ingest", text(&source), "--size", "64", "--exclude", &typed];
        let output = tokengrid().args([&arguments[..], more].concat()).output().unwrap();
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let nothing = warned("none.jpg\nnor-this.jpg\n", &[]);
    assert!(nothing.contains("2 of 2 names to exclude: no image has this key or file name ('none.jpg', "), "{nothing}");
    let some = warned(&format!("none.jpg\n{name}\n"), &["--exclude", "typo"]);
    assert!(some.contains("2 of 3 names to exclude") && some.contains("'typo'"), "{some}");
    let all = warned(&format!("{name}\n"), &["--preset", "open-magvit2"]);
    assert!(!all.contains("to exclude"), "neither what has an image nor the preset's: {all}");
    assert!(warned("", &[]).contains("there are no names in it"));
    let stopped = warned("none.jpg\n", &["--limit", "1"]);
    assert!(!stopped.contains("to exclude"), "not all images were listed: {stopped}");
}

#[test]
fn how_many_bad_images_are_too_many_is_the_users_choice() {
    let folder = tempfile::tempdir().unwrap();
    let source = mixed(folder.path());
    let fixed = ["ingest", text(&source), "--size", "64"];
    let message = fails(&[&fixed[..], &["--on-bad", "fail"]].concat(), 1);
    assert!(message.contains("cannot decode `") && message.contains("cut.JPEG"), "{message}");
    let message = fails(&[&fixed[..], &["--max-bad-fraction", "0.15"]].concat(), 1);
    assert!(message.contains("more than 15 %") && message.contains("--max-bad-fraction"), "{message}");
    json(&[&fixed[..], &["--max-bad-fraction", "0.2"]].concat());
    let message = fails(&[&fixed[..], &["--max-bad-fraction", "20"]].concat(), 2);
    assert!(message.contains("from 0 to 1"), "{message}");
    let found = json(&[&fixed[..], &["--max-pixels", "100000"]].concat());
    assert_eq!(found["ok"], 0);
    assert!(found["bad"][0]["reason"].as_str().unwrap().contains("100000"), "{}", found["bad"][0]);
}

#[test]
fn the_reference_leaves_out_one_image_and_so_does_its_preset() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path(), 2, 2);
    let class = sorted(&source)[0].clone();
    std::fs::copy(&sorted(&class)[0], class.join("n06596364_9591.JPEG")).unwrap();
    assert_eq!(json(&["ingest", text(&source), "--size", "64"])["images"], 5);
    let found = json(&["ingest", text(&source), "--size", "64", "--preset", "open-magvit2"]);
    assert_eq!((&found["images"], &found["excluded"]), (&4.into(), &1.into()));
    let message = fails(&["ingest", text(&source), "--preset", "open-magvit2", "--exif-orientation", "apply"], 2);
    assert!(message.contains("--exif-orientation apply"), "{message}");
}

#[test]
fn the_fast_resize_is_gone_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path(), 1, 1);
    for command in ["ingest", "tokenize"] {
        let mut line = vec![command, text(&source), "--resize", "fast"];
        if command == "tokenize" {
            line.extend(["--tokenizer", "tiny", "--out", "nowhere"]);
        }
        let message = fails(&line, 2);
        assert!(message.contains("was removed") && message.contains("exact, the default"), "{message}");
    }
    json(&["ingest", text(&source), "--resize", "exact"]);
}

#[test]
fn views_of_adms_recipe_are_not_mixed_with_others() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (photos(folder.path(), 1, 1), folder.path().join("png"));
    let fixed = ["ingest", text(&source), "--size", "48", "--views", "ten-crop:1.05", "--out", text(&out), "--resize"];
    assert_eq!(json(&[&fixed[..], &["adm"]].concat())["views"], 10);
    let message = fails(&[&fixed[..], &["exact"]].concat(), 1);
    assert!(message.contains("another recipe"), "{message}");
    let message = fails(&[&fixed[..], &["lanczos"]].concat(), 2);
    assert!(message.contains("expected exact or adm"), "{message}");
}

#[test]
fn pngs_are_continued_and_never_mixed() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path(), 2, 2);
    let out = folder.path().join("png");
    let fixed = ["ingest", text(&source), "--size", "64", "--views", "center+flip", "--out", text(&out)];
    assert_eq!(json(&fixed)["skipped"], 0);
    let class = sorted(&out).into_iter().find(|path| path.is_dir()).unwrap();
    let victim = sorted(&class).into_iter().find(|path| text(path).ends_with(".1.png")).unwrap();
    let before = std::fs::read(&victim).unwrap();
    std::fs::remove_file(&victim).unwrap();
    let again = json(&fixed);
    assert_eq!((&again["skipped"], &again["ok"]), (&3.into(), &4.into()));
    assert_eq!(std::fs::read(&victim).unwrap(), before);
    let other = ["ingest", text(&source), "--size", "32", "--out", text(&out)];
    let message = fails(&other, 1);
    assert!(message.contains("another recipe") && message.contains("--overwrite"), "{message}");
    json(&[&other[..], &["--overwrite"]].concat());
    let foreign = folder.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("diary.txt"), "mine").unwrap();
    for more in [vec![], vec!["--overwrite"]] {
        let message = fails(&[&["ingest", text(&source), "--out", text(&foreign)][..], &more].concat(), 1);
        assert!(message.contains("not empty"), "{message}");
    }
    let message = fails(&["ingest", text(&source), "--out", text(&source.join("png"))], 2);
    assert!(message.contains("lies in the source"), "{message}");
    let message = fails(&["ingest", text(&source), "--report", text(&foreign.join("diary.txt"))], 1);
    assert!(message.contains("this program made"), "{message}");
    std::fs::write(foreign.join("mine.json"), "{\"mine\": 1}").unwrap();
    let message = fails(&["ingest", text(&source), "--report", text(&foreign.join("mine.json"))], 1);
    assert!(message.contains("this program made"), "{message}");
    let message = fails(&["ingest", text(&source), "--report", text(&foreign.join("no/r.json"))], 1);
    assert!(message.contains("no folder"), "{message}");
    assert_eq!(std::fs::read_to_string(foreign.join("diary.txt")).unwrap(), "mine");
}

#[test]
fn a_damaged_note_in_an_output_folder_is_said_or_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path(), 2, 1);
    let out = folder.path().join("png");
    std::fs::create_dir(&out).unwrap();
    let note = out.join(".tokengrid-ingest.json");
    let fixed = ["ingest", text(&source), "--size", "64", "--out", text(&out)];
    for damaged in [&b""[..], &[0; 300], b"{\"size\": 6"] {
        std::fs::write(&note, damaged).unwrap();
        assert_eq!(json(&fixed)["ok"], 2, "no PNG is there");
        std::fs::write(&note, damaged).unwrap();
        let message = fails(&fixed, 1);
        assert!(message.contains("damaged .tokengrid-ingest.json") && message.contains("--overwrite"), "{message}");
        std::fs::remove_dir_all(&out).unwrap();
        std::fs::create_dir(&out).unwrap();
    }
}

#[test]
fn pngs_do_not_go_where_links_and_lists_of_the_source_lead() {
    let temp = tempfile::tempdir().unwrap();
    let class = sorted(&photos(temp.path(), 1, 1))[0].clone();
    let linked = temp.path().join("linked");
    std::fs::create_dir(&linked).unwrap();
    std::os::unix::fs::symlink(&class, linked.join("class")).unwrap();
    let list = temp.path().join("list.txt");
    std::fs::write(&list, text(&sorted(&class)[0])).unwrap();
    for source in [linked, list] {
        let message = fails(&["ingest", text(&source), "--size", "64", "--out", text(&class.join("png"))], 2);
        assert!(message.contains("belongs to the source"), "{message}");
        json(&["ingest", text(&source), "--size", "64", "--out", text(&temp.path().join("png"))]);
        std::fs::remove_dir_all(temp.path().join("png")).unwrap();
    }
}

/// A folder of one class with an image of this name.
fn one_image(folder: &Path, name: &str) -> PathBuf {
    let photos = photos(&folder.join("photos"), 1, 1);
    let photo = sorted(&sorted(&photos)[0])[0].clone();
    let class = folder.join("source/cat");
    std::fs::create_dir_all(&class).unwrap();
    std::fs::copy(photo, class.join(name)).unwrap();
    folder.join("source")
}

#[test]
fn names_as_long_as_a_file_system_allows_become_pngs() {
    let folder = tempfile::tempdir().unwrap();
    for length in [240, 246, 247, 250, 251] {
        one_image(folder.path(), &format!("{}.JPEG", "y".repeat(length - 1)));
    }
    let source = one_image(folder.path(), "z.JPEG");
    let out = folder.path().join("png");
    let fixed = ["ingest", text(&source), "--size", "64", "--out", text(&out)];
    let found = json(&fixed);
    assert_eq!((&found["ok"], found["bad"].as_array().unwrap().len()), (&6.into(), 0), "{found}");
    let names = sorted(&out.join("cat"));
    assert_eq!(names.len(), 6);
    assert!(names.iter().all(|name| text(name).ends_with(".0.png")), "{names:?}");
    assert_eq!(json(&fixed)["skipped"], 6, "they are found again");
    assert_eq!(json(&["ingest", text(&out), "--size", "64"])["ok"], 6, "and are a source");
}

#[test]
fn what_systems_and_killed_starts_leave_in_an_output_folder_is_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let source = one_image(folder.path(), "a.JPEG");
    let out = folder.path().join("png");
    std::fs::create_dir_all(out.join("lost+found")).unwrap();
    std::fs::create_dir_all(out.join("cat")).unwrap();
    let message = fails(&["ingest", text(&source), "--size", "64", "--out", text(&out)], 1);
    assert!(message.contains("found cat"), "{message}");
    std::fs::remove_dir(out.join("cat")).unwrap();
    for name in [".DS_Store", ".nfs00000001", ".tokengrid-0123456789abcdef.tmp"] {
        std::fs::write(out.join(name), "{").unwrap();
    }
    assert_eq!(json(&["ingest", text(&source), "--size", "64", "--out", text(&out)])["ok"], 1);
    let left = out.join("cat/.tokengrid-0123456789abcdef.tmp");
    std::fs::write(&left, "half a picture").unwrap();
    assert_eq!(json(&["ingest", text(&source), "--size", "64", "--out", text(&out)])["skipped"], 1);
    assert!(!left.exists() && !out.join(".tokengrid-0123456789abcdef.tmp").exists());
    assert!(out.join("lost+found").is_dir() && out.join(".DS_Store").exists());
}

#[test]
fn what_looks_odd_in_a_source_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let source = one_image(folder.path(), "a.JPEG");
    std::fs::create_dir_all(source.join("empty")).unwrap();
    let output = tokengrid().args(["ingest", text(&source), "--size", "64", "--json"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("1 folder without images ('empty')"), "{said}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["notes"].as_array().unwrap().len(), 1);
    let message = fails(&["ingest", text(&source), "--image-column", "img"], 1);
    assert!(message.contains("class folders") && message.contains("--image-column"), "{message}");
}

#[test]
fn an_answer_that_cannot_be_written_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path(), 1, 1);
    let program = assert_cmd::cargo::cargo_bin("tokengrid");
    let Ok(full) = std::fs::File::create("/dev/full") else { return };
    let status = std::process::Command::new(program)
        .args(["ingest", text(&source), "--size", "64", "--json", "--quiet"])
        .stdout(full)
        .stderr(std::process::Stdio::null())
        .status();
    assert_eq!(status.unwrap().code(), Some(1));
}

#[test]
fn the_benchmark_measures_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path(), 1, 3);
    let found = json(&["bench", "ingest", text(&source), "--size", "64", "--rounds", "2", "--threads", "2"]);
    for rate in ["decode_only", "one_thread", "all_threads"] {
        assert!(found[rate]["per_second"].as_f64().unwrap() > 0.0);
        assert_eq!(found[rate]["rounds"].as_array().unwrap().len(), 2);
    }
    assert_eq!((&found["images"], &found["threads"]), (&3.into(), &2.into()));
    assert!(found["machine"]["cores"].as_u64().unwrap() > 0);
}

#[test]
fn a_decoder_that_panics_costs_its_image() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path(), 2, 3);
    let photo = sorted(&sorted(&source)[0])[1].clone();
    // Bytes behind the end of a JPEG file change nothing but what the variable below finds.
    let faulty = [&std::fs::read(&photo).unwrap()[..], b"FAULT"].concat();
    std::fs::write(&photo, faulty).unwrap();
    let fixed = ["ingest", text(&source), "--size", "64", "--json", "--threads", "2"];
    assert_eq!(json(&fixed[..4])["ok"], 6);
    let output = tokengrid().args(fixed).env("TOKENGRID_PANIC_IN_DECODER", "FAULT").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&found["images"], &found["ok"]), (&6.into(), &5.into()));
    let bad = &found["bad"][0];
    assert!(bad["key"].as_str().unwrap().ends_with(photo.file_name().unwrap().to_str().unwrap()), "{bad}");
    assert!(bad["reason"].as_str().unwrap().contains("internal error"), "{bad}");
}

#[test]
fn memory_for_decoding_has_a_limit_of_any_unit() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path(), 1, 2);
    let with = |size| json(&["ingest", text(&source), "--size", "64", "--memory", size]);
    for size in ["1G", "64MiB", "200000k", "1073741824"] {
        assert_eq!(with(size)["ok"], 2, "{size}");
    }
    let found = with("2K");
    assert_eq!(found["ok"], 0);
    assert!(found["bad"][0]["reason"].as_str().unwrap().contains("--memory"), "{found}");
    for size in ["0", "-1", "G", "1X", "1.5G", "99999999999T"] {
        let option = format!("--memory={size}");
        let message = fails(&["ingest", text(&source), &option], 2);
        assert!(message.contains("512M or 4G"), "{message}");
    }
}
