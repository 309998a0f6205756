//! How fast is it here? Writes a cache of random grids and times writing, verifying and loading.
//!
//! ```text
//! cargo run --release -p tokengrid-cache --example loader_speed -- [IMAGES] [VIEWS] [BATCH_SIZE]
//! ```

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;
use tokengrid_cache::{Access, LoaderBench, TokenCache, inspect, stats, verify, write_synthetic_cache};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let mut next = |default| arguments.next().unwrap_or(Ok(default));
    let (images, views, batch_size) = (next(100_000)?, next(4)? as u32, next(256)?);
    let folder = tempfile::tempdir()?;

    let start = Instant::now();
    write_synthetic_cache(folder.path(), images, views)?;
    let rate = (images * views as usize) as f64 / start.elapsed().as_secs_f64();
    println!("write   {:>8.2} M rows/s, {:.1} bytes per row", rate / 1e6, inspect(folder.path())?.bytes_per_row);

    let start = Instant::now();
    let report = verify(folder.path(), &mut |_, _| {})?;
    println!("verify  {:>8.2} GB/s on all cores", report.bytes as f64 / start.elapsed().as_secs_f64() / 1e9);

    let start = Instant::now();
    let found = stats(&TokenCache::open(folder.path())?)?;
    println!("stats   {:>8.2} s for {} rows on all cores", start.elapsed().as_secs_f64(), found.rows);

    for access in [Access::Map, Access::MapRandom, Access::Preload, Access::Copy] {
        let start = Instant::now();
        let cache = Arc::new(TokenCache::open_with(folder.path(), access)?);
        println!("open    {:>8.2} ms with {access:?}", start.elapsed().as_secs_f64() * 1e3);
        let figures = LoaderBench { batch_size, ..LoaderBench::default() }.run(&cache)?;
        println!(
            "load    {:>8.2} M grids/s/core (median of {} timings, shuffled, i64 batches of {batch_size}, {})",
            figures.grids_per_second / 1e6,
            figures.settings.repeats,
            figures.kernel,
        );
        println!("choose  {:>8.2} M rows/s (the shuffle alone)", figures.rows_chosen_per_second / 1e6);
        println!("unpack  {:>8.2} M grids/s (the kernel alone)", figures.unpack_grids_per_second / 1e6);
    }
    Ok(())
}
