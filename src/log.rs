//! The log on stderr. Lines of a job whose log is kept carry the time; those of one of several processes carry its rank.

use crate::args::Global;
use crate::output::Log;
use std::fmt;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, format::DefaultFields};
use tracing_subscriber::registry::LookupSpan;

static WITH_TIME: AtomicBool = AtomicBool::new(false);
/// Which of several processes writes this log: rank and world size, once they are known.
pub(crate) static RANK: OnceLock<(u32, u32)> = OnceLock::new();

/// A library that logs as an error what ends up in an error of ours.
const SAID_BY_US: &str = "rustls_platform_verifier=off";

/// Starts the log on stderr: warnings, with `-v` more, with `--quiet` errors only.
pub(crate) fn init(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, _) => "debug",
    };
    QUIET.store(global.quiet, Ordering::Relaxed);
    WITH_TIME.store(global.verbose > 0 || !std::io::stderr().is_terminal(), Ordering::Relaxed);
    let filter = EnvFilter::try_from_env("TOKENGRID_LOG").unwrap_or_else(|_| EnvFilter::new(format!("{level},{SAID_BY_US}")));
    tracing_subscriber::fmt()
        // Said on stderr, which is what could not be written.
        .log_internal_errors(false)
        .with_env_filter(filter)
        .with_writer(|| Log)
        .with_ansi(false)
        .fmt_fields(DefaultFields::new())
        .event_format(Line)
        .init();
}

/// The first line of a long job whose log is kept: which program, and how it was called.
pub(crate) fn heading(global: &Global) {
    if global.quiet || std::io::stderr().is_terminal() {
        return;
    }
    let typed: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    eprintln!("{}tokengrid {}: {}", stamp(), env!("TOKENGRID_VERSION"), typed.join(" "));
}

static QUIET: AtomicBool = AtomicBool::new(false);
/// When the last line of [`staging`] was printed.
static STAGING: Mutex<Option<Instant>> = Mutex::new(None);
const STAGING_EVERY: Duration = Duration::from_secs(5);

/// Tells that objects are being fetched into the stage folder: a line every few seconds.
pub(crate) fn staging(place: &tokengrid_store::Place, done: u64, total: u64) {
    if QUIET.load(Ordering::Relaxed) {
        return;
    }
    let mut last = STAGING.lock().unwrap_or_else(PoisonError::into_inner);
    // What takes no time needs no line.
    let since = *last.get_or_insert_with(Instant::now);
    if since.elapsed() >= STAGING_EVERY {
        *last = Some(Instant::now());
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        eprintln!("{}staging {place}: {:.0} of {:.0} MB", stamp(), megabytes(done), megabytes(total));
    }
}

/// What a line of the log starts with: `2026-11-29T20:50:01Z rank 1 of 4: `, or less.
pub(crate) fn stamp() -> String {
    let time = if WITH_TIME.load(Ordering::Relaxed) { format!("{} ", now()) } else { String::new() };
    match RANK.get() {
        Some((rank, world_size)) if *world_size > 1 => format!("{time}rank {rank} of {world_size}: "),
        _ => time,
    }
}

/// The time in UTC, to the second.
fn now() -> String {
    let mut text = String::new();
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    let seconds = text.split('.').next().unwrap_or_default();
    format!("{}Z", seconds.trim_end_matches('Z'))
}

/// `STAMP LEVEL message field=value`.
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        write!(writer, "{}{} ", stamp(), event.metadata().level())?;
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_utc_to_the_second() {
        let now = now();
        assert_eq!(now.len(), "2026-11-29T20:50:01Z".len(), "{now}");
        assert!(now.starts_with("20") && now.ends_with('Z') && now.as_bytes()[10] == b'T', "{now}");
    }
}
