//! Exit codes: 0 success, 1 the work or a check failed, 2 wrong usage, 130 / 143 stopped by a signal.

use crate::output::{self, StdoutFailed};
use crate::{panics, signals, torch};
use anyhow::Error;
use std::any::Any;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A failed check, whose findings were printed already.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct CheckFailed(pub String);

/// Invalid arguments.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub String);

/// Runs a command, prints its error if it fails, and returns the exit code. Uncaught panics end here.
pub(crate) fn code_of(command: impl FnOnce() -> anyhow::Result<()>) -> u8 {
    let ended = match catch_unwind(AssertUnwindSafe(command)) {
        Ok(Ok(())) => return 0,
        Ok(Err(error)) => ended_by_error(&error),
        Err(payload) => ended_by_panic(payload),
    };
    if let Some(message) = &ended.message {
        output::print_failure(message, ended.code);
    }
    ended.code
}

/// Ends the process without running destructors of C++ statics, as an ordinary exit would: threads of libtorch and OpenMP
/// may still use their data, and the process would be killed by a signal instead of returning its code.
pub(crate) fn leave(code: u8) -> ! {
    // All but an incomplete last line was flushed already.
    let _ = std::io::stdout().flush();
    leave_at_once(code)
}

/// Ends the process at once, without waiting for the lock of stdout.
pub(crate) fn leave_at_once(code: u8) -> ! {
    // SAFETY: `_exit` ends the process; it runs no code of this program and takes no lock.
    unsafe { libc::_exit(i32::from(code)) }
}

/// The outcome of a command.
struct Ended {
    code: u8,
    /// The error, if it failed.
    message: Option<String>,
}

/// Prints the error as one line with its causes, and picks the exit code.
fn ended_by_error(error: &Error) -> Ended {
    if is_cancelled(error) {
        if !signals::is_part() {
            eprintln!("tokengrid: {error}");
        }
        // A stopped command owes no JSON object.
        return Ended { code: signals::exit_code(), message: None };
    }
    let causes: Vec<String> = error.chain().map(|cause| cause.to_string()).collect();
    let mut message = one_line(causes);
    // Errors of the cache contain the advice already.
    if let Some((_, advice)) = advice(error).filter(|(mark, _)| !message.contains(mark)) {
        message = format!("{message}; {advice}");
    }
    eprintln!("tokengrid: {message}");
    Ended { code: if is_usage(error) { 2 } else { 1 }, message: Some(message) }
}

/// The hook has printed a panic's line already.
fn ended_by_panic(payload: Box<dyn Any + Send>) -> Ended {
    match payload.downcast::<StdoutFailed>() {
        // A closed pipe is not an error of this program; any other failure to write the answer is.
        Ok(failed) if failed.0.kind() == std::io::ErrorKind::BrokenPipe => Ended { code: 0, message: None },
        Ok(failed) => {
            eprintln!("tokengrid: cannot write the answer to stdout: {}", failed.0);
            Ended { code: 1, message: None }
        }
        Err(payload) => {
            let message = panics::last_message().unwrap_or_else(|| panics::text_of(&*payload));
            Ended { code: 1, message: Some(message) }
        }
    }
}

/// Advice about a file that could not be written, and the words that mark a message that has it already.
fn advice(error: &Error) -> Option<(&'static str, &'static str)> {
    use std::io::ErrorKind;
    match error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>())?.kind() {
        ErrorKind::StorageFull => Some((
            "free some space",
            "free some space and run the same command again: what is finished is kept, and nothing half-written has its name",
        )),
        ErrorKind::QuotaExceeded => {
            Some(("free some space", "your quota there is used up: free some space and run the same command again"))
        }
        ErrorKind::FileTooLarge => {
            Some(("ulimit -f", "the file system, or a limit of this process (`ulimit -f`), allows no larger file"))
        }
        ErrorKind::ReadOnlyFilesystem => Some(("remount", "choose another output, or remount that file system")),
        _ => None,
    }
}

/// Joins an error with its causes; text of a cause that its wrapper repeats appears once.
fn one_line(mut causes: Vec<String>) -> String {
    causes.dedup_by(|cause, before| before.ends_with(cause.as_str()));
    causes.join(": ").replace('\n', " ")
}

fn is_cancelled(error: &Error) -> bool {
    use tokengrid_cache::CacheError;
    use tokengrid_ingest::IngestError;
    error.chain().any(|cause| {
        matches!(cause.downcast_ref(), Some(CacheError::Cancelled))
            || matches!(cause.downcast_ref(), Some(IngestError::Cancelled))
            || matches!(cause.downcast_ref(), Some(tokengrid_store::StoreError::Cancelled))
            || cause.downcast_ref::<signals::Stopped>().is_some()
            || torch::is_cancelled(cause)
    })
}

fn is_usage(error: &Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<Usage>().is_some() || torch::is_usage(cause))
}
