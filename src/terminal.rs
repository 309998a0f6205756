//! What people see while a command works: logs and progress on stderr, answers on stdout.

use crate::args::Global;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use tracing_subscriber::EnvFilter;

/// Between two plain progress lines, where stderr is no terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// Starts the log on stderr: warnings, with `-v` more, with `--quiet` errors only.
pub fn init(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, _) => "debug",
    };
    let filter = EnvFilter::try_from_env("TOKENGRID_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let color = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(color)
        .with_target(false)
        .without_time()
        .init();
}

/// Prints the one JSON object that `--json` promises.
pub fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Progress of something countable: a bar on a terminal, else a line every few seconds.
pub struct Meter {
    bar: ProgressBar,
    what: &'static str,
    plain: bool,
    started: Instant,
    last: Instant,
    first_done: Option<u64>,
}

impl Meter {
    /// `what` is counted, in the plural.
    pub fn new(global: &Global, what: &'static str) -> Meter {
        let terminal = std::io::stderr().is_terminal();
        let target = if global.quiet || !terminal {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr_with_hz(5)
        };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        let template = "{bar:30} {pos}/{len} {prefix} {per_sec:>9} eta {eta} {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(what);
        let plain = !global.quiet && !terminal;
        Meter { bar, what, plain, started: Instant::now(), last: Instant::now(), first_done: None }
    }

    /// `done` of `total`, with a few more words.
    pub fn update(&mut self, done: u64, total: u64, words: &str) {
        let first = *self.first_done.get_or_insert_with(|| {
            self.bar.set_position(done);
            self.bar.reset_eta();
            done
        });
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.bar.set_message(words.to_string());
        if !self.plain || (self.last.elapsed() < PLAIN_EVERY && done < total) {
            return;
        }
        self.last = Instant::now();
        let rate = (done - first.min(done)) as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
        let eta = if rate > 0.0 {
            format!(", {} left", seconds((total - done.min(total)) as f64 / rate))
        } else {
            String::new()
        };
        eprintln!("{done}/{total} {} ({rate:.1}/s{eta}) {words}", self.what);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A duration for people.
pub fn seconds(secs: f64) -> String {
    match secs {
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 100.0 => format!("{s:.0} s"),
        s if s < 6000.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// A number of bytes for people.
pub fn bytes(count: u64) -> String {
    let units = ["B", "KB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", units[unit]) }
}
