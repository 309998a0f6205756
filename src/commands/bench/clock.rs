//! Wall and processor time of some work, and rates over several rounds.

use serde::Serialize;
use std::time::{Duration, Instant};

/// A measured duration.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Took {
    pub wall: Duration,
    /// Processor time of all threads of this process.
    pub cpu: Duration,
}

/// Times `work`.
pub(crate) fn time<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, Took)> {
    let (wall, cpu) = (Instant::now(), cpu_time());
    let result = work()?;
    Ok((result, Took { wall: wall.elapsed(), cpu: cpu_time().saturating_sub(cpu) }))
}

fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live struct, which the call fills.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A rate over several rounds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Rate {
    /// Median of the rounds, per second of wall time.
    pub per_second: f64,
    /// Median of the rounds, per second of processor time: less affected by other load on the machine.
    pub per_cpu_second: f64,
    /// Every round, per second of wall time.
    pub rounds: Vec<f64>,
}

impl Rate {
    /// The rate of rounds that each process `count` units.
    pub(crate) fn of(count: u64, rounds: &[Took]) -> Rate {
        let per = |time: Duration| count as f64 / time.as_secs_f64().max(1e-9);
        let walls: Vec<f64> = rounds.iter().map(|took| per(took.wall)).collect();
        let cpus: Vec<f64> = rounds.iter().map(|took| per(took.cpu)).collect();
        Rate { per_second: median(&walls), per_cpu_second: median(&cpus), rounds: walls }
    }
}

/// The middle value; of an even number of values, the mean of the middle two.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn rates_are_per_second() {
        let took = |millis| Took { wall: Duration::from_millis(millis), cpu: Duration::from_millis(2 * millis) };
        let rate = Rate::of(100, &[took(100), took(200), took(400)]);
        assert_eq!((rate.per_second, rate.per_cpu_second, rate.rounds.len()), (500.0, 250.0, 3));
    }
}
