//! The only way to write to stdout and stderr. Results go to stdout, everything else to stderr.
//!
//! The macros here replace the standard ones of the same names in this package. They differ in three ways: control
//! characters, which keys of images and names of tensors may hold, are escaped instead of reaching the terminal; failures to
//! write to stderr are ignored, since a job must not end because its log cannot be written; and a failure to write to stdout
//! unwinds to `main` with [`StdoutFailed`].

use crate::printable;
use std::fmt::Arguments;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

/// Prints a line on stdout.
macro_rules! println {
    ($($format:tt)*) => { $crate::output::answer(format_args!($($format)*), "\n") };
}

/// Prints text on stdout.
macro_rules! print {
    ($($format:tt)*) => { $crate::output::answer(format_args!($($format)*), "") };
}

/// Prints a line on stderr.
macro_rules! eprintln {
    ($($format:tt)*) => { $crate::output::say(format_args!($($format)*)) };
}

/// Why writing to stdout failed: payload of the unwinding to `main`, which is not a panic.
#[derive(Debug)]
pub(crate) struct StdoutFailed(pub std::io::Error);

/// Whether a JSON object is promised and not yet printed.
static EXPECTED: AtomicBool = AtomicBool::new(false);

/// Records whether `--json` was given.
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

/// With `--json`: prints the object of a failed command, unless the command has printed its own.
pub(crate) fn print_failure(error: &str, exit_code: u8) {
    if !EXPECTED.swap(false, Ordering::Relaxed) {
        return;
    }
    let object = serde_json::json!({ "error": error, "exit_code": exit_code });
    // If this fails, the exit code still reports the failure.
    let _ = writeln!(std::io::stdout(), "{}", printable::json(&format!("{object:#}")));
}

/// Prints text without escaping control characters: pictures in the terminal.
pub(crate) fn print_raw(text: &str) {
    write_or_unwind(text);
}

/// Implementation of `println!` and `print!`.
pub(crate) fn answer(text: Arguments, end: &str) {
    let text = text.to_string();
    write_or_unwind(&format!("{}{end}", printable::lines(&text)));
}

/// Implementation of `eprintln!`.
pub(crate) fn say(text: Arguments) {
    let text = text.to_string();
    // One write per line: lines of several threads and processes do not mix.
    let _ = std::io::stderr().write_all(format!("{}\n", printable::lines(&text)).as_bytes());
}

fn write_or_unwind(text: &str) {
    let mut stdout = std::io::stdout().lock();
    if let Err(error) = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        drop(stdout);
        std::panic::resume_unwind(Box::new(StdoutFailed(error)));
    }
}

/// A writer for logs: as `eprintln!`, for formatted text.
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
