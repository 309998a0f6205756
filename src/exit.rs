//! Exit codes: 0 done, 1 the work failed or a check did not hold, 2 wrong usage, 130 / 143 stopped by a signal.

use crate::printable::printable;
use crate::signals;
use anyhow::Error;
use std::process::ExitCode;

/// A check that did not hold; the findings were printed already.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CheckFailed(pub String);

/// Something typed that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Prints the error as one line with its causes, and picks the exit code.
pub fn report(error: &Error) -> ExitCode {
    if is_cancelled(error) {
        eprintln!("tokengrid: {error}");
        return ExitCode::from(signals::exit_code());
    }
    let causes: Vec<String> = error.chain().map(|cause| cause.to_string()).collect();
    eprintln!("tokengrid: {}", one_line(causes));
    ExitCode::from(if is_usage(error) { 2 } else { 1 })
}

/// Joins an error with its causes; a transparent wrapper repeats its cause's text, which is said once.
fn one_line(mut causes: Vec<String>) -> String {
    causes.dedup();
    printable(&causes.join(": ").replace('\n', " "))
}

#[cfg(not(feature = "torch"))]
fn is_cancelled(_: &Error) -> bool {
    signals::cancelled()
}

#[cfg(feature = "torch")]
fn is_cancelled(error: &Error) -> bool {
    use tokengrid_cache::CacheError;
    use tokengrid_sample::SampleError;
    use tokengrid_tokenize::TokenizeError;
    use tokengrid_train::TrainError;
    error.chain().any(|cause| {
        matches!(cause.downcast_ref(), Some(TokenizeError::Cancelled))
            || matches!(cause.downcast_ref(), Some(CacheError::Cancelled))
            || matches!(cause.downcast_ref(), Some(TrainError::Cancelled))
            || matches!(cause.downcast_ref(), Some(SampleError::Cancelled | SampleError::Stopped))
            || cause.downcast_ref::<signals::Stopped>().is_some()
    })
}

#[cfg(not(feature = "torch"))]
fn is_usage(error: &Error) -> bool {
    error.downcast_ref::<Usage>().is_some()
}

#[cfg(feature = "torch")]
fn is_usage(error: &Error) -> bool {
    use tokengrid_sample::SampleError;
    use tokengrid_tokenize::TokenizeError;
    use tokengrid_train::TrainError;
    error.chain().any(|cause| {
        cause.downcast_ref::<Usage>().is_some()
            || matches!(cause.downcast_ref(), Some(TokenizeError::Setting { .. } | TokenizeError::Size { .. }))
            || matches!(cause.downcast_ref(), Some(TrainError::Config { .. }))
            || matches!(cause.downcast_ref(), Some(SampleError::Setting { .. } | SampleError::Class { .. }))
    })
}

/// A panic is a defect of ours, or memory that ran out inside libtorch. Either way: one line, no backtrace, exit code 1.
pub fn one_line_panics() {
    std::panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
        let text = text.unwrap_or("unknown").lines().next().unwrap_or_default().to_string();
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        if text.contains("failed printing to stdout") {
            // The reader of a pipe has gone: that is its right. Whatever else keeps the answer from being written is not.
            let is_pipe = text.contains("Broken pipe");
            if !is_pipe {
                eprintln!(
                    "tokengrid: {}",
                    text.replace("failed printing to stdout", "cannot write the answer to stdout")
                );
            }
            std::process::exit(i32::from(!is_pipe));
        }
        let advice = if text.contains("alloc") { "try a smaller --batch-size" } else { "please report this" };
        eprintln!("tokengrid: internal error at {place}: {text}; {advice}");
        std::process::exit(1);
    }));
}
