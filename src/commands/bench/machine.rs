//! The machine of a measurement.

use serde::Serialize;

/// The machine and the program.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory_gib: f64,
    pub system: String,
    /// Runnable processes over the last minute, when the measurement began: well
    /// above 0, other processes may have slowed it.
    pub load: f64,
    pub version: &'static str,
}

/// This machine. Values that the system does not report are `unknown` or 0.
pub(crate) fn machine() -> Machine {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_string())
    };
    let kib = field(&read("/proc/meminfo"), "MemTotal").and_then(|t| t.split(' ').next()?.parse::<f64>().ok());
    Machine {
        processor: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".into()),
        cores: std::thread::available_parallelism().map_or(0, |n| n.get()),
        memory_gib: (kib.unwrap_or(0.0) / 1048576.0 * 10.0).round() / 10.0,
        system: format!("{} {}", std::env::consts::OS, read("/proc/sys/kernel/osrelease").trim()),
        load: read("/proc/loadavg").split(' ').next().and_then(|t| t.parse().ok()).unwrap_or(0.0),
        version: env!("TOKENGRID_VERSION"),
    }
}
