//! The demo, from nothing to pictures.
#![cfg(all(feature = "torch", unix))]
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::{fails, json, text};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

#[test]
fn a_demo_goes_from_photographs_to_pictures_and_replaces_an_earlier_one() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("demo");
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("thesis.tex"), "mine").unwrap();
    let refusal = fails(&["demo", "--out", text(&out)], 2);
    assert!(refusal.contains("--out") && out.join("thesis.tex").exists(), "{refusal}");

    std::fs::remove_file(out.join("thesis.tex")).unwrap();
    let report = json(&["demo", "--out", text(&out), "--steps", "1"]);
    let (views, read) = (report["views"].as_u64().unwrap(), report["views_read"].as_u64().unwrap());
    assert!(views > 100 && read > 0 && read < views, "one step reads one batch: {report}");
    assert!(report["encode_seconds"].as_f64().unwrap() > 0.0 && report["train_seconds"].as_f64().unwrap() > 0.0);
    let pictures = report["pictures"].as_array().unwrap();
    assert_eq!(pictures.len(), 5);
    for picture in pictures {
        let bytes = std::fs::read(picture.as_str().unwrap()).unwrap();
        assert!(bytes.starts_with(b"\x89PNG"), "{picture}");
    }

    // The next one begins anew. Stopped in the middle, it ends with everything that it runs.
    let said = folder.path().join("stderr");
    let program = assert_cmd::cargo::cargo_bin("tokengrid");
    let mut demo = Command::new(program)
        .args(["demo", "--out", text(&out), "--no-view"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&said).unwrap())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("$ tokengrid tokenize")));
    assert!(!out.join("samples.png").exists(), "what the earlier demo made is gone");
    // SAFETY: a signal to a child that was started here and has not been waited for.
    assert_eq!(unsafe { libc::kill(demo.id() as i32, libc::SIGTERM) }, 0);
    assert_eq!(demo.wait().unwrap().code(), Some(143));
    // No process holds the other end of stdout any more.
    assert!(lines.all(|line| line.is_ok()));
    // What its commands would say of themselves is not true of the demo.
    let said = std::fs::read_to_string(&said).unwrap();
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("tokengrid: stop")).collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines[0].contains("stopping") && lines[1].contains("the demo starts from the beginning"), "{said}");
}
