//! Writes a cache of random square grids, to measure with: millions of rows of a small grid take little space.
//!
//! ```text
//! cargo run --release -p tokengrid-cache --example make_cache -- DIR IMAGES [VIEWS] [SIDE]
//! ```

use std::error::Error;
use std::path::PathBuf;
use tokengrid_cache::{GridSpec, write_synthetic_grids};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("expected DIR IMAGES [VIEWS] [SIDE]")?);
    let mut numbers = arguments.map(|text| text.parse::<u32>());
    let mut next = |default| numbers.next().unwrap_or(Ok(default));
    let (images, views, side) = (next(100_000)?, next(1)?, next(16)?);
    let grid = GridSpec { height: side, width: side, bits: 18 };
    Ok(write_synthetic_grids(&dir, grid, images as usize, views)?)
}
