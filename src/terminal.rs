//! Progress on stderr, and formatting of numbers for display.

use crate::args::Global;
pub(crate) use crate::output::print_json;
use crate::{log, printable};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Interval of progress lines if stderr is not a terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// A count with its noun, in the plural unless the count is 1.
pub(crate) fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// A progress bar on a terminal, else a progress line every few seconds.
pub(crate) struct Meter {
    bar: ProgressBar,
    what: &'static str,
    plain: bool,
    started: Instant,
    last: Instant,
    first_done: Option<u64>,
}

impl Meter {
    /// `what`: the noun of the counted things, in the plural.
    pub(crate) fn new(global: &Global, what: &'static str) -> Meter {
        let terminal = std::io::stderr().is_terminal();
        let target = if global.quiet || !terminal {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr_with_hz(5)
        };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        let template = "{bar:30} {pos}/{len} {prefix} {rate:>9} eta {eta} {msg}";
        let show_rate = |state: &ProgressState, text: &mut dyn std::fmt::Write| {
            let _ = text.write_str(&rate(state.per_sec()));
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.with_key("rate", show_rate));
        }
        bar.set_prefix(what);
        let plain = !global.quiet && !terminal;
        Meter { bar, what, plain, started: Instant::now(), last: Instant::now(), first_done: None }
    }

    /// Starts at `done` of `total`, where an earlier call of the same job ended. Rates are measured from here.
    pub(crate) fn start(&mut self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.begin_at(done);
        if self.plain && done > 0 {
            eprintln!("{}resuming at {done} of {total} {}", log::stamp(), self.what);
        }
    }

    fn begin_at(&mut self, done: u64) -> u64 {
        self.bar.set_position(done);
        self.bar.reset_eta();
        self.first_done = Some(done);
        done
    }

    /// Reports `done` of `total`, followed by `words`.
    pub(crate) fn update(&mut self, done: u64, total: u64, words: &str) {
        let first = self.first_done.unwrap_or_else(|| self.begin_at(done));
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.bar.set_message(printable::lines(words).into_owned());
        if !self.plain || (self.last.elapsed() < PLAIN_EVERY && done < total) {
            return;
        }
        self.last = Instant::now();
        let speed = speed(done, total, first, self.started.elapsed());
        let line = format!("{}{done}/{total} {}{speed} {words}", log::stamp(), self.what);
        eprintln!("{}", line.trim_end());
    }
}

/// Rate since `first` and remaining time. Empty if no progress was observed: the first report may come when all is done.
fn speed(done: u64, total: u64, first: u64, elapsed: Duration) -> String {
    if done <= first {
        return String::new();
    }
    let per_sec = (done - first) as f64 / elapsed.as_secs_f64().max(1e-9);
    let left = total.saturating_sub(done);
    let eta = if left > 0 { format!(", {} left", seconds(left as f64 / per_sec)) } else { String::new() };
    format!(" ({}{eta})", rate(per_sec))
}

/// The meter of rows that are being copied.
static COPYING: Mutex<Option<Meter>> = Mutex::new(None);

/// Shows how far an import, export, merge or subset is, until this is dropped. The command itself says how it ended.
pub(crate) struct Copying;

impl Copying {
    pub(crate) fn shown(global: &Global) -> Copying {
        *lock(&COPYING) = Some(Meter::new(global, "images"));
        tokengrid_cache::on_copy(|done, total| {
            if let Some(meter) = lock(&COPYING).as_mut().filter(|_| done < total) {
                meter.update(done as u64, total as u64, "");
            }
        });
        Copying
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        *lock(&COPYING) = None;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A count of what has no known end: on a terminal a line that changes, else a line every few seconds.
pub(crate) struct Counter {
    /// `None` where nothing is shown.
    bar: Option<ProgressBar>,
    doing: &'static str,
    what: &'static str,
    started: Instant,
    last: Instant,
}

impl Counter {
    /// `doing` and `what`: the work, and the noun of the counted things, in the plural.
    pub(crate) fn new(doing: &'static str, what: &'static str) -> Counter {
        let is_shown = std::io::stderr().is_terminal() && !log::is_quiet();
        let bar = is_shown.then(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5)));
        if let (Some(bar), Ok(style)) = (&bar, ProgressStyle::with_template("{spinner} {msg}")) {
            bar.set_style(style);
        }
        Counter { bar, doing, what, started: Instant::now(), last: Instant::now() }
    }

    /// Shows a number.
    pub(crate) fn update(&mut self, count: u64) {
        let text = || so_many(self.doing, count, self.what, self.started.elapsed());
        if let Some(bar) = &self.bar {
            bar.set_message(text());
            bar.tick();
        } else if !log::is_quiet() && self.last.elapsed() >= PLAIN_EVERY {
            eprintln!("{}{}", log::stamp(), text());
            self.last = Instant::now();
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn so_many(doing: &str, count: u64, what: &str, elapsed: Duration) -> String {
    match count {
        0 => format!("{doing}: {} so far", seconds(elapsed.as_secs_f64())),
        _ => format!("{doing}: {count} {what}{}", speed(count, count, 0, elapsed)),
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A rate with three significant digits, per minute if it is low.
fn rate(per_sec: f64) -> String {
    match per_sec {
        r if r >= 99.95 => format!("{r:.0}/s"),
        r if r >= 9.995 => format!("{r:.1}/s"),
        r if r >= 0.1 || r == 0.0 => format!("{r:.2}/s"),
        r => format!("{:.2}/min", 60.0 * r),
    }
}

/// A duration in seconds, with a suitable unit.
pub(crate) fn seconds(secs: f64) -> String {
    match secs {
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 100.0 => format!("{s:.0} s"),
        s if s < 6000.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// A number of bytes, with a binary unit.
pub(crate) fn bytes(count: u64) -> String {
    let units = ["B", "KB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_printed_if_there_is_one() {
        let in_10_s = |done, total, first| speed(done, total, first, Duration::from_secs(10));
        assert_eq!(in_10_s(1000, 1000, 1000), "", "the first report is the last one");
        assert_eq!(in_10_s(100, 200, 100), "");
        assert_eq!(in_10_s(200, 1000, 0), " (20.0/s, 40 s left)");
        assert_eq!(in_10_s(1000, 1000, 0), " (100/s)");
    }

    #[test]
    fn a_count_without_an_end_has_a_rate_and_no_remaining_time() {
        let after_10_s = |count| so_many("listing", count, "images", Duration::from_secs(10));
        assert_eq!(after_10_s(350_000), "listing: 350000 images (35000/s)");
        assert_eq!(after_10_s(0), "listing: 10 s so far");
    }

    #[test]
    fn rates_are_rounded_to_readable_digits() {
        let shown = [0.0, 0.004_2, 0.771_708_325, 9.994, 12.345, 771.708_325, 98_765.4].map(rate);
        assert_eq!(shown, ["0.00/s", "0.25/min", "0.77/s", "9.99/s", "12.3/s", "772/s", "98765/s"]);
    }
}
