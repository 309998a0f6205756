//! The log on stderr. Lines start with the time if stderr is not a terminal or with `-v`, and with the rank if there are
//! several processes.

use crate::args::Global;
use crate::environment::LOG;
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
/// Rank and world size of this process, once they are known.
pub(crate) static RANK: OnceLock<(u32, u32)> = OnceLock::new();

/// Filter for a library that logs errors which this program reports itself.
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
    let filter = EnvFilter::try_from_env(LOG).unwrap_or_else(|_| EnvFilter::new(format!("{level},{SAID_BY_US}")));
    tracing_subscriber::fmt()
        // This is about stderr itself, so it cannot be reported.
        .log_internal_errors(false)
        .with_env_filter(filter)
        .with_writer(|| Log)
        .with_ansi(false)
        .fmt_fields(DefaultFields::new())
        .event_format(Line)
        .init();
}

/// Prints the first line of a long job's log: program version and arguments.
pub(crate) fn heading(global: &Global) {
    if global.quiet || std::io::stderr().is_terminal() {
        return;
    }
    let typed: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    eprintln!("{}tokengrid {}: {}", stamp(), env!("TOKENGRID_VERSION"), typed.join(" "));
}

static QUIET: AtomicBool = AtomicBool::new(false);

/// Whether `--quiet` was given.
pub(crate) fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// When the last line of [`staging`] was printed.
static STAGING: Mutex<Option<Instant>> = Mutex::new(None);
const STAGING_EVERY: Duration = Duration::from_secs(5);

/// Reports progress of fetching objects into the stage folder: a line every few seconds.
pub(crate) fn staging(place: &tokengrid_store::Place, done: u64, total: u64) {
    if QUIET.load(Ordering::Relaxed) {
        return;
    }
    let mut last = STAGING.lock().unwrap_or_else(PoisonError::into_inner);
    // A short transfer needs no line.
    let since = *last.get_or_insert_with(Instant::now);
    if since.elapsed() >= STAGING_EVERY {
        *last = Some(Instant::now());
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        eprintln!("{}staging {place}: {:.0} of {:.0} MB", stamp(), megabytes(done), megabytes(total));
    }
}

/// Prefix of a log line: `2026-11-29T20:50:01Z rank 1 of 4: `, or parts of it.
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

/// Formats events as `STAMP LEVEL message field=value`.
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
