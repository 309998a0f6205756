//! Tests that cannot run everywhere: they state the reason, are listed by `make test`, and fail where they must not be skipped.

use std::io::Write;
use std::process::Command;

/// A file to which each skipped test adds a line, for `make test` to show at its end.
const LIST: &str = "TOKENGRID_SKIPPED";

/// Skips a test that needs something which a developer's machine may lack and CI has.
///
/// # Panics
/// Where `CI` is set.
#[track_caller]
pub fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci.is_empty()), "not tested, although CI is set: {reason}");
    skip_anywhere(reason);
}

/// Skips a test that the system or the processor does not support: this is allowed under `CI` too.
///
/// # Panics
/// When the list of skipped tests cannot be written.
#[track_caller]
pub fn skip_anywhere(reason: &str) {
    let line = format!("{}: {}", std::panic::Location::caller(), reason.trim().replace('\n', " "));
    eprintln!("skipped: {line}");
    let Some(list) = std::env::var_os(LIST) else { return };
    let mut file = std::fs::File::options().append(true).create(true).open(&list).expect("the list of skipped tests");
    // One call: several processes write here.
    file.write_all(format!("  {line}\n").as_bytes()).expect("the list of skipped tests");
}

/// The Python of the tests (`TOKENGRID_PYTHON`, which `make test` sets) if it can run `check`, such as an import; otherwise the
/// test is [skipped](skip).
///
/// # Panics
/// Where `CI` is set and there is no such Python.
#[track_caller]
pub fn python_with(check: &str) -> Option<String> {
    let Ok(python) = std::env::var("TOKENGRID_PYTHON") else {
        skip(&format!("TOKENGRID_PYTHON names no Python for `{check}` (`make test` sets it)"));
        return None;
    };
    match Command::new(&python).args(["-c", check]).output() {
        Ok(output) if output.status.success() => Some(python),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            skip(&format!("{python} cannot run `{check}`: {}", said.lines().last().unwrap_or_default()));
            None
        }
        Err(error) => {
            skip(&format!("{python} cannot be run: {error}"));
            None
        }
    }
}
