//! `tokengrid` without `tokengrid-torch`: which commands work, which report that they need the other program, and how it is
//! found.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::*;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A copy of `tokengrid` in its own folder.
fn alone(folder: &Path) -> PathBuf {
    let program = folder.join("tokengrid");
    std::fs::copy(assert_cmd::cargo::cargo_bin("tokengrid"), &program).unwrap();
    program
}

/// A `.npy` file of one row of tokens.
fn write_npy(path: &Path, tokens: &[i32]) {
    let header = format!("{{'descr': '<i4', 'fortran_order': False, 'shape': (1, {}), }}", tokens.len());
    let header = format!("{header:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    tokens.iter().for_each(|token| bytes.extend(token.to_le_bytes()));
    std::fs::write(path, bytes).unwrap();
}

fn run(program: &Path, arguments: &[&str]) -> Output {
    // Nothing of libtorch is found even if the program should look for it.
    Command::new(program).args(arguments).env_remove("LD_LIBRARY_PATH").output().unwrap()
}

#[test]
fn commands_that_need_no_libtorch_work_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let program = alone(folder.path());
    let linked = std::fs::read(&program).unwrap();
    let names = |name: &[u8]| linked.windows(name.len()).any(|bytes| bytes == name);
    assert!(!names(b"libtorch_cpu.so"), "not linked to libtorch");
    let (tokens, cache) = (folder.path().join("tokens.npy"), folder.path().join("cache"));
    write_npy(&tokens, &[0, 1, 2, 262_143]);
    let import = ["cache", "import", "--tokens", text(&tokens), "--grid", "2x2", "--out", text(&cache)];
    for arguments in [
        &["--version"][..],
        &["--help"],
        &["train", "ar", "--help"],
        &["completions", "bash"],
        &import,
        &["cache", "info", text(&cache)],
        &["cache", "verify", text(&cache)],
        &["cache", "show", text(&cache), "--index", "0"],
        &["ingest", text(&repository("data/unseen"))],
    ] {
        let output = run(&program, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn one_is_not_said_as_many() {
    let folder = tempfile::tempdir().unwrap();
    let program = alone(folder.path());
    let (tokens, cache) = (folder.path().join("tokens.npy"), folder.path().join("cache"));
    write_npy(&tokens, &[0, 1, 2, 262_143]);
    let said = |arguments: &[&str]| String::from_utf8(run(&program, arguments).stdout).unwrap();
    let imported = said(&["cache", "import", "--tokens", text(&tokens), "--grid", "2x2", "--out", text(&cache)]);
    assert!(imported.starts_with("1 row (1 image) in "), "{imported}");
    let info = said(&["cache", "info", text(&cache)]);
    for expected in ["1 (1 image x 1 view, 0 quarantined)", " in 1 shard, ", ": 1 input, 0 excluded"] {
        assert!(info.contains(expected), "{expected}: {info}");
    }
    let verified = said(&["cache", "verify", text(&cache)]);
    assert!(verified.starts_with("ok: 1 row, "), "{verified}");
    let stats = said(&["cache", "stats", text(&cache)]);
    assert!(stats.contains("1 (1 image x 1 view)") && stats.contains("1 row of the label -1"), "{stats}");
}

#[test]
fn other_commands_name_the_program_that_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let program = alone(folder.path());
    for arguments in
        [&["weights", "info", "tiny"][..], &["cache", "show", "x", "--index", "0", "--image", "--tokenizer", "tiny"]]
    {
        let output = run(&program, arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("tokengrid-torch is missing") && said.contains("make install"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    // Wrong arguments are reported before the other program is searched.
    assert_eq!(run(&program, &["weights", "inform", "tiny"]).status.code(), Some(2));
}

#[cfg(unix)]
#[test]
fn the_other_program_takes_over_the_process() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let program = alone(folder.path());
    let other = folder.path().join("tokengrid-torch");
    std::fs::write(&other, "#!/bin/sh\necho \"$$ $*\"\nexit 7\n").unwrap();
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o755)).unwrap();
    let child = Command::new(&program).args(["weights", "info", "a b"]).stdout(std::process::Stdio::piped()).spawn();
    let child = child.unwrap();
    let id = child.id();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{id} weights info a b\n"));
}

#[test]
fn completions_know_every_command() {
    for (shell, mark) in [("bash", "complete -F"), ("zsh", "#compdef tokengrid"), ("fish", "complete -c tokengrid")] {
        let output = tokengrid().args(["completions", shell]).output().unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        assert!(output.contains(mark), "{shell}: {output:.200}");
        for command in ["tokenize", "cache", "train", "sample"] {
            assert!(output.contains(command), "{shell} lacks {command}");
        }
    }
}
