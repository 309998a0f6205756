//! How long do the statistics take here, and how much memory? Writes a cache of random grids and inspects it.
//!
//! ```text
//! cargo run --release -p tokengrid-cache --example inspect_speed -- [IMAGES] [VIEWS] [DIR]
//! ```
//! With DIR, the cache stays there, and is used again the next time.

use std::error::Error;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use tokengrid_cache::{Inspection, TokenCache, write_synthetic_cache};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |place: usize, default| arguments.get(place).map_or(Ok(default), |text| text.parse::<usize>());
    let (images, views) = (number(0, 1_000_000)?, number(1, 1)? as u32);
    let temporary = tempfile::tempdir()?;
    let dir = arguments.get(2).map_or(temporary.path().join("cache"), PathBuf::from);
    if !dir.join("manifest.json").exists() {
        // In a process of its own, so that its memory does not count below.
        let itself = std::env::current_exe()?;
        let is_writer = std::env::var_os("INSPECT_SPEED_WRITE").is_some();
        if is_writer {
            return Ok(write_synthetic_cache(&dir, images, views)?);
        }
        let mut writer = std::process::Command::new(itself);
        writer.args([images.to_string(), views.to_string()]).arg(&dir).env("INSPECT_SPEED_WRITE", "1").status()?;
    }
    let start = Instant::now();
    let cache = TokenCache::open(&dir)?;
    println!("open      {:>8.2} s", start.elapsed().as_secs_f64());
    for round in 1..=3 {
        let start = Instant::now();
        let found = Inspection::of(&cache, None, &AtomicBool::new(false), &mut |_, _| {})?;
        let seconds = start.elapsed().as_secs_f64();
        println!("inspect   {seconds:>8.2} s for {} rows (round {round})", found.stats.rows);
    }
    #[cfg(target_os = "linux")]
    for line in std::fs::read_to_string("/proc/self/status")?.lines().filter(|line| line.starts_with("VmHWM")) {
        println!("{line} (the most memory at a time, mapped files included)");
    }
    Ok(())
}
