//! The process seen from outside: what happens when output cannot be written, when it is stopped, and when it fails.
#![cfg(target_os = "linux")] // /dev/full
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::{photos, text, tokengrid};
use serde_json::Value;
use std::fs::File;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

fn program() -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("tokengrid"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

fn terminate(child: &Child) {
    // SAFETY: a signal to a child that was started here and has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGTERM) }, 0);
}

/// How the process ends, which must be soon.
fn wait_at_most(mut child: Child, patience: Duration) -> ExitStatus {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if started.elapsed() > patience {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("still running after {patience:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_log_that_cannot_be_written_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path(), 1, 2);
    std::fs::write(source.join("n01616086/broken.jpg"), b"no picture").unwrap();
    let status = program().args(["ingest", text(&source), "-vv"]).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(0));
    let status = program().args(["ingest", text(&folder.path().join("gone"))]).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(1));
    let status = program().args(["ingest", "--no-such-flag"]).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(2));
}

#[test]
fn a_signal_is_obeyed_although_the_log_cannot_be_written() {
    let child = program().args(["bench", "loader", "--rounds", "1000"]).stderr(full()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1000));
    terminate(&child);
    assert_eq!(wait_at_most(child, Duration::from_secs(10)).code(), Some(143));
}

#[test]
fn an_answer_that_cannot_be_written_is_an_error_unless_the_reader_has_gone() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path(), 1, 1);
    for more in [&[][..], &["--json"]] {
        let ingest = [&["ingest", text(&source), "--quiet"][..], more].concat();
        let output = program().args(&ingest).stdout(full()).stderr(Stdio::piped()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.starts_with("tokengrid: cannot write the answer to stdout: "), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");

        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = program().args(&ingest).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*stderr), (Some(0), ""));
    }
}

#[test]
fn a_failure_with_json_is_one_object_on_stdout() {
    let folder = tempfile::tempdir().unwrap();
    let gone = folder.path().join("gone");
    for (arguments, code, words) in [
        (vec!["cache", "info", text(&gone), "--json"], 1, "gone"),
        (vec!["ingest", "--json", text(&gone), "--no-such-flag"], 2, "--no-such-flag"),
        (vec!["ingest", text(&gone), "--views", "middle", "--json"], 2, "middle"),
    ] {
        let output = tokengrid().args(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        let answer: Value = serde_json::from_slice(&output.stdout).expect("stdout is one JSON object");
        assert_eq!(answer["exit_code"], code, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(words), "{answer}");
    }
    let output = tokengrid().args(["cache", "info", text(&gone)]).output().unwrap();
    assert!(output.stdout.is_empty(), "without --json the error is on stderr alone");
}

#[test]
fn control_characters_in_names_do_not_reach_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    std::fs::create_dir_all(source.join("class")).unwrap();
    let name = "class/a\x1b]0;title\x07\x1b[31m\u{9b}2J\u{202e}.jpg";
    std::fs::write(source.join(name), b"no picture").unwrap();
    for more in [&[][..], &["-vv"], &["--json"], &["--on-bad", "fail"]] {
        let output = tokengrid().args([&["ingest", text(&source)][..], more].concat()).output().unwrap();
        let shown = [output.stdout.clone(), output.stderr].concat();
        let shown = String::from_utf8(shown).unwrap();
        assert!(shown.contains("title"), "the name is shown: {shown}");
        let obeyed = |c: &char| (c.is_control() && !matches!(c, '\n' | '\t')) || *c == '\u{202e}';
        assert_eq!(shown.chars().find(obeyed), None, "{more:?}: {shown:?}");
        if more == ["--json"] {
            let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
            let key = answer["bad"][0]["key"].as_str().unwrap();
            assert!(key.starts_with("class/a") && key.ends_with("2J\u{202e}.jpg"), "{key}");
        }
    }
}

#[test]
fn the_log_of_a_long_job_says_when_and_what() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path(), 1, 1);
    let output = tokengrid().args(["ingest", text(&source), "--size", "64"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let first = stderr.lines().next().unwrap();
    let (time, rest) = first.split_once(' ').unwrap();
    assert!(time.starts_with("20") && time.ends_with('Z') && time.contains('T'), "{first}");
    assert!(rest.starts_with(&format!("tokengrid {}", env!("CARGO_PKG_VERSION"))), "{first}");
    assert!(rest.ends_with("--size 64"), "{first}");
}

#[cfg(feature = "torch")]
#[test]
fn a_job_that_goes_on_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path(), 1, 6);
    let names = common::sorted(&source.join("n01616086"));
    let (whole, out) = (std::fs::read(&names[4]).unwrap(), folder.path().join("cache"));
    std::fs::write(&names[4], b"no picture").unwrap();
    let fixed = ["tokenize", text(&source), "--tokenizer", "tiny", "--size", "32", "--out", text(&out)];
    let tokenize = || {
        let more = ["--on-bad", "fail", "--rows-per-group", "2", "--batch-size", "1"];
        tokengrid().args([&fixed[..], &more].concat()).output().unwrap()
    };
    assert_eq!(tokenize().status.code(), Some(1));
    std::fs::write(&names[4], whole).unwrap();
    let output = tokenize();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("Z resuming at 4 of 6 images\n"), "{stderr}");
}

#[test]
fn absurd_numbers_of_threads_are_bounded_with_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path(), 1, 1);
    let output = tokengrid().args(["ingest", text(&source), "--threads", "65535"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("--threads 65535") && stderr.contains("are used"), "{stderr}");
}

#[test]
fn a_working_folder_that_was_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path(), 1, 1);
    let run = |arguments: &str| {
        let program = assert_cmd::cargo::cargo_bin("tokengrid");
        let script = format!("mkdir gone && cd gone && rmdir ../gone && exec {} {arguments}", text(&program));
        Command::new("sh").args(["-c", &script]).current_dir(folder.path()).output().unwrap()
    };
    let output = run(&format!("ingest {}", text(&source)));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    #[cfg(feature = "torch")]
    {
        let cache = folder.path().join("cache");
        let tokenize = |out: &std::path::Path| {
            run(&format!("tokenize {} --tokenizer tiny --size 32 --quiet --out {}", text(&source), text(out)))
        };
        let output = tokenize(&cache);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(cache.join("manifest.json").is_file());
        let output = tokenize(std::path::Path::new("relative"));
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[cfg(feature = "torch")]
#[test]
fn openmp_threads_wait_briefly_unless_the_user_says_otherwise() {
    let libtorch_program = || Command::new(assert_cmd::cargo::cargo_bin("tokengrid-torch"));
    // The OpenMP library says, while it is loaded, which settings it found.
    let spins = |name: &str, value: &str| {
        let mut command = libtorch_program();
        let output = command.arg("--version").env("OMP_DISPLAY_ENV", "verbose").env(name, value).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = stderr.lines().find(|line| line.contains("GOMP_SPINCOUNT")).expect("GNU's OpenMP library is used");
        line.split('\'').nth(1).unwrap().to_owned()
    };
    assert_eq!(spins("UNRELATED", "1"), "1000");
    assert_eq!(spins("GOMP_SPINCOUNT", "77"), "77");
    assert_eq!(spins("OMP_WAIT_POLICY", "passive"), "0");
    assert_ne!(spins("OMP_WAIT_POLICY", "active"), "1000");
}
