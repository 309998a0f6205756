//! Shows a cache of random grids in clusters, to measure the map by: `map_points [ROWS] [CLASSES]`.
//!
//! ```sh
//! cargo run --release -p tokengrid-view --example map_points -- 1000000 50
//! ```

use std::error::Error;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use tokengrid_cache::{CacheWriter, GridSpec, JobSpec, OpenMode, Row};
use tokengrid_view::{Server, ViewConfig};

fn main() -> Result<(), Box<dyn Error>> {
    let number =
        |place: usize, otherwise: usize| std::env::args().nth(place).map_or(Ok(otherwise), |text| text.parse());
    let (rows, classes) = (number(1, 1_000_000)?, number(2, 50)?.max(1));
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("cache");
    write(&dir, rows, classes)?;
    let server = Server::bind(ViewConfig { port: 0, ..ViewConfig::new(dir) })?;
    println!("{}", server.url());
    // Until it is interrupted; the folder for temporary files is then the system's to clean.
    server.run(&AtomicBool::new(false));
    Ok(())
}

/// Grids of a class share the tokens of some places with it, more or fewer of them.
fn write(dir: &Path, rows: usize, classes: usize) -> Result<(), Box<dyn Error>> {
    let mut job = JobSpec::new(GridSpec { height: 8, width: 8, bits: 18 }, rows, 1);
    job.classes = (0..classes).map(|class| format!("class {class}")).collect();
    let mut writer = CacheWriter::open(dir, job, OpenMode::Resume)?;
    let mut tokens = [0; 64];
    for image in 0..rows {
        let class = image * classes / rows.max(1);
        let shared = noise(image as u64) % 40;
        for (place, token) in (0..).zip(&mut tokens) {
            let seed = if place < shared { class as u64 } else { 1_000_000 + image as u64 };
            *token = (noise(seed * 64 + place) >> 46) as u32;
        }
        let key = format!("{class}/{image}.jpg");
        let row = Row { tokens: &tokens, label: class as i32, key: &key, view: 0, crop_x: 0, crop_y: 0, flip: false };
        writer.push_image(image, &[row])?;
    }
    writer.finish()?;
    Ok(())
}

/// A number that looks random and is not (SplitMix64).
fn noise(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
