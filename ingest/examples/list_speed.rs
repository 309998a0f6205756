//! Lists a source and reads no image: seconds, images per second, and peak memory per image.
//!
//! ```text
//! cargo run --release -p tokengrid-ingest --example list_speed -- SOURCE
//! ```

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;
use tokengrid_ingest::{Source, SourceOptions};

/// Memory of this process in bytes, as the system names it: `VmRSS` now, `VmHWM` at most.
fn memory(name: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name));
    let kibibytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<usize>().ok());
    kibibytes.unwrap_or(0) << 10
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = PathBuf::from(std::env::args_os().nth(1).ok_or("expected SOURCE")?);
    let before = memory("VmRSS");
    let started = Instant::now();
    let source = Source::open(&path, &SourceOptions::default())?;
    let seconds = started.elapsed().as_secs_f64();
    let images = source.len();
    let key_bytes: usize = (0..images).map(|image| source.key(image).len()).sum();
    let per_image = |bytes: usize| bytes as f64 / images.max(1) as f64;
    println!("{}", source.describe());
    println!("{seconds:.2} s, {:.0} images per second", images as f64 / seconds);
    println!(
        "bytes per image: {:.1} held, {:.1} at most, of which {:.1} are its key",
        per_image(memory("VmRSS").saturating_sub(before)),
        per_image(memory("VmHWM").saturating_sub(before)),
        per_image(key_bytes)
    );
    Ok(())
}
