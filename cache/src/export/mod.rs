//! To other programs: arrays of `numpy`, and Parquet with lists of integers.

pub(crate) mod files;
pub(crate) mod folder;
pub(crate) mod list_writer;
pub(crate) mod npz;
pub(crate) mod one_x;
pub(crate) mod rows;
mod segments;
mod tar_writer;
pub(crate) mod webdataset;

use crate::error::CacheError;
use crate::progress::copied;
use crate::read::cache::TokenCache;
use crate::read::columns::VisitImage;

/// As [`TokenCache::visit_images`] of all images, with progress.
fn visit_all(cache: &TokenCache, visit: &mut VisitImage<'_>) -> Result<(), CacheError> {
    let images = cache.num_images();
    cache.visit_images(0..images, &|_| true, &mut |image, rows| {
        visit(image, rows)?;
        copied(image + 1, images);
        Ok(())
    })
}
