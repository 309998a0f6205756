//! Caches of random grids.

use crate::error::CacheError;
use crate::format::grid::GridSpec;
use crate::format::job::JobSpec;
use crate::format::row::Row;
use crate::permutation::mix;
use crate::write::writer::{CacheWriter, OpenMode};
use std::path::Path;

pub(super) fn noise(value: u64, bits: u32) -> u32 {
    (mix(value) >> (64 - bits)) as u32
}

/// Writes a cache of `images` images of `views` views of random 16 x 16 grids at 18 bits, with ImageNet-like keys: for
/// benchmarks where there is no cache.
///
/// # Errors
/// As [`CacheWriter::open`].
pub fn write_synthetic_cache(dir: &Path, images: usize, views: u32) -> Result<(), CacheError> {
    write_synthetic_grids(dir, GridSpec { height: 16, width: 16, bits: 18 }, images, views)
}

/// As [`write_synthetic_cache`], of grids of any shape: with small ones, millions of rows take little space.
///
/// # Errors
/// As [`CacheWriter::open`].
pub fn write_synthetic_grids(dir: &Path, grid: GridSpec, images: usize, views: u32) -> Result<(), CacheError> {
    let mut job = JobSpec::new(grid, images, views);
    job.source.kind = "synthetic".into();
    let mut writer = CacheWriter::open(dir, job, OpenMode::Resume)?;
    let mut tokens = vec![0u32; grid.num_tokens() * views as usize];
    for image in writer.next_image()..writer.images().end {
        let first = (image * tokens.len()) as u64;
        tokens.iter_mut().enumerate().for_each(|(i, token)| *token = noise(first + i as u64, grid.bits));
        let key = format!("n{:08}/n{:08}_{}.JPEG", image / 1300, image / 1300, image * 7919 % 20_000);
        let label = (image / 1300) as i32;
        let rows: Vec<_> = tokens
            .chunks_exact(grid.num_tokens())
            .zip(0..)
            .map(|(tokens, view)| Row { tokens, label, key: &key, view, crop_x: 0, crop_y: 0, flip: false })
            .collect();
        writer.push_image(image, &rows)?;
    }
    writer.finish().map(drop)
}
