//! How fast is it here? Writes a cache of random grids and times writing, opening, verifying and loading on one thread.
//!
//! Where the kernel tells (Linux), times are those that this thread was on a core, so a busy machine does not count.
//!
//! ```text
//! cargo run --release -p tokengrid-cache --example loader_speed -- [IMAGES] [VIEWS] [BATCH_SIZE]
//! ```

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use tokengrid_cache::{
    Batch, CacheWriter, GridSpec, JobSpec, Loader, LoaderConfig, OpenMode, Row, TokenCache, inspect, pack, unpack_i64,
    verify,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let mut next = |default| arguments.next().unwrap_or(Ok(default));
    let (images, views, batch_size) = (next(100_000)?, next(4)? as u32, next(256)?);
    let folder = tempfile::tempdir()?;
    let job = JobSpec::new(GridSpec { height: 16, width: 16, bits: 18 }, images, views);
    let rows = images * views as usize;

    let start = Clock::now();
    let mut writer = CacheWriter::open(folder.path(), job, OpenMode::Resume)?;
    let mut tokens = vec![0u32; 256];
    for image in 0..images {
        for (i, token) in tokens.iter_mut().enumerate() {
            *token = (image * 256 + i).wrapping_mul(0x9E37_79B9) as u32 >> 14;
        }
        let key = format!("n{:08}/n{:08}_{}.JPEG", image / 1300, image / 1300, image * 7919 % 20_000);
        let row = |view| Row { tokens: &tokens, label: -1, key: &key, view, crop_x: 0, crop_y: 0, flip: false };
        writer.push_image(image, &(0..views).map(row).collect::<Vec<_>>())?;
    }
    writer.finish()?;
    let secs = start.secs();
    println!(
        "write   {:>8.2} M rows/s, {:.1} bytes a row",
        rows as f64 / secs / 1e6,
        inspect(folder.path())?.bytes_per_row
    );

    let start = Clock::now();
    let report = verify(folder.path(), &mut |_, _| {})?;
    println!("verify  {:>8.2} GB/s", report.bytes as f64 / start.secs() / 1e9);

    let start = Clock::now();
    let cache = Arc::new(TokenCache::open(folder.path())?);
    println!("open    {:>8.2} ms", start.secs() * 1e3);

    let mut loader = Loader::new(cache, LoaderConfig { seed: 1, batch_size, rank: 0, world_size: 1 })?;
    let mut batch = Batch::default();
    for pass in 0..4 {
        let start = Clock::now();
        let batches = (rows / batch_size).max(1);
        (0..batches).for_each(|_| loader.next_batch(&mut batch));
        let rate = (batches * batch_size) as f64 / start.secs();
        println!("load    {:>8.2} M grids/s (pass {pass})", rate / 1e6);
    }
    let start = Clock::now();
    let mut chosen = Vec::new();
    for _ in 0..rows / batch_size {
        loader.next_rows(&mut chosen);
    }
    println!("choose  {:>8.2} M rows/s (the shuffle alone)", rows as f64 / start.secs() / 1e6);

    let (mut packed, mut out) = (vec![0; 576], vec![0i64; 256]);
    pack(&tokens, 18, &mut packed);
    let start = Clock::now();
    (0..2_000_000).for_each(|_| unpack_i64(black_box(&packed), 18, black_box(&mut out)));
    println!("unpack  {:>8.2} M grids/s (one grid, from the first-level cache)", 2.0 / start.secs());
    Ok(())
}

/// Time on a core, or on the wall where the kernel does not say.
struct Clock {
    wall: Instant,
    on_core_ns: Option<u64>,
}

impl Clock {
    fn now() -> Clock {
        Clock { wall: Instant::now(), on_core_ns: Self::on_core_ns() }
    }

    fn on_core_ns() -> Option<u64> {
        std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split(' ').next()?.parse().ok()
    }

    fn secs(&self) -> f64 {
        match (self.on_core_ns, Self::on_core_ns()) {
            (Some(before), Some(after)) if after > before => (after - before) as f64 / 1e9,
            _ => self.wall.elapsed().as_secs_f64(),
        }
    }
}
