//! The only way to stdout and stderr. Answers go to stdout, everything else to stderr.
//!
//! The macros here replace the standard ones of the same names in this package. They differ in three ways: control
//! characters, which keys of images and names of tensors may hold, are made visible instead of reaching the terminal; what
//! stderr does not take is dropped, since a job must not end because its log cannot be written; and what stdout does not
//! take unwinds to `main` with [`StdoutFailed`].

use crate::printable;
use std::fmt::Arguments;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

/// A line on stdout.
macro_rules! println {
    ($($format:tt)*) => { $crate::output::answer(format_args!($($format)*), "\n") };
}

/// Text on stdout.
macro_rules! print {
    ($($format:tt)*) => { $crate::output::answer(format_args!($($format)*), "") };
}

/// A line on stderr.
macro_rules! eprintln {
    ($($format:tt)*) => { $crate::output::say(format_args!($($format)*)) };
}

/// Why stdout took no more. It travels to `main` as the payload of an unwinding that is not a panic.
#[derive(Debug)]
pub(crate) struct StdoutFailed(pub std::io::Error);

/// Whether an answer in JSON is still to come.
static EXPECTED: AtomicBool = AtomicBool::new(false);

/// Says whether `--json` was typed.
pub(crate) fn expect_json(is_expected: bool) {
    EXPECTED.store(is_expected, Ordering::Relaxed);
}

/// Prints the one JSON object that `--json` promises.
pub(crate) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    EXPECTED.store(false, Ordering::Relaxed);
    write_or_unwind(&format!("{}\n", printable::json(&text)));
    Ok(())
}

/// With `--json`: prints the one object of a command that failed, unless it has printed its findings.
pub(crate) fn print_failure(error: &str, exit_code: u8) {
    if !EXPECTED.swap(false, Ordering::Relaxed) {
        return;
    }
    let object = serde_json::json!({ "error": error, "exit_code": exit_code });
    // The exit code tells of the failure even when nobody reads this.
    let _ = writeln!(std::io::stdout(), "{}", printable::json(&format!("{object:#}")));
}

/// Prints text whose control characters are meant for the terminal: pictures.
pub(crate) fn print_raw(text: &str) {
    write_or_unwind(text);
}

/// What `println!` and `print!` do.
pub(crate) fn answer(text: Arguments, end: &str) {
    let text = text.to_string();
    write_or_unwind(&format!("{}{end}", printable::lines(&text)));
}

/// What `eprintln!` does.
pub(crate) fn say(text: Arguments) {
    let text = text.to_string();
    // One write a line: lines of several threads and processes do not mix.
    let _ = std::io::stderr().write_all(format!("{}\n", printable::lines(&text)).as_bytes());
}

fn write_or_unwind(text: &str) {
    let mut stdout = std::io::stdout().lock();
    if let Err(error) = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        drop(stdout);
        std::panic::resume_unwind(Box::new(StdoutFailed(error)));
    }
}

/// A writer for logs: like `eprintln!`, for text that is formatted already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let _ = std::io::stderr().write_all(printable::lines(&text).as_bytes());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
