//! Exit codes: 0 done, 1 the work failed or a check did not hold, 2 wrong usage, 130 / 143 stopped by a signal.

use crate::output::{self, StdoutFailed};
use crate::{panics, signals, torch};
use anyhow::Error;
use std::any::Any;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A check that did not hold; the findings were printed already.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct CheckFailed(pub String);

/// Something typed that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub String);

/// Runs a command, reports how it failed if it did, and gives the exit code. A panic that nobody else caught ends here.
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

/// Ends the process. libtorch's and OpenMP's threads may be at work: destructors of C++ statics, which an ordinary exit
/// runs, would pull their data from under them, and the process would end by a signal instead of with its code.
pub(crate) fn leave(code: u8) -> ! {
    // What was printed is on its way already, but for the rest of a line.
    let _ = std::io::stdout().flush();
    leave_at_once(code)
}

/// Ends the process without waiting for anybody, not even for who is printing.
pub(crate) fn leave_at_once(code: u8) -> ! {
    // SAFETY: `_exit` ends the process; it runs no code of this program and takes no lock.
    unsafe { libc::_exit(i32::from(code)) }
}

/// How a command ended.
struct Ended {
    code: u8,
    /// What failed, if anything did.
    message: Option<String>,
}

/// Prints the error as one line with its causes, and picks the exit code.
fn ended_by_error(error: &Error) -> Ended {
    if is_cancelled(error) {
        eprintln!("tokengrid: {error}");
        // Who stops a command asks for no answer.
        return Ended { code: signals::exit_code(), message: None };
    }
    let causes: Vec<String> = error.chain().map(|cause| cause.to_string()).collect();
    let mut message = one_line(causes);
    // Errors of the cache say it themselves.
    if let Some((_, advice)) = advice(error).filter(|(mark, _)| !message.contains(mark)) {
        message = format!("{message}; {advice}");
    }
    eprintln!("tokengrid: {message}");
    Ended { code: if is_usage(error) { 2 } else { 1 }, message: Some(message) }
}

/// The hook has printed a panic's line already.
fn ended_by_panic(payload: Box<dyn Any + Send>) -> Ended {
    match payload.downcast::<StdoutFailed>() {
        // The reader of a pipe has gone: that is its right. Whatever else keeps the answer from being written is not.
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

/// What to do about a file that could not be written, and the words by which a message is known that says so already.
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

/// Joins an error with its causes; a wrapper that repeats its cause's text, alone or with more words, says it once.
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
