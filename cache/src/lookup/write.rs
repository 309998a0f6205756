//! Writing the index of keys and labels of a finished cache.

use crate::error::{CacheError, io_error};
use crate::files::atomic::AtomicFile;
use crate::format::manifest::Manifest;
use crate::lookup::block::{BLOCK_IMAGES, BlockWriter};
use crate::lookup::key_index::KEY_INDEX_FILE;
use crate::lookup::signature::SIGNATURE_BYTES;
use crate::lookup::table::{Entry, HEADER_BYTES, Table};
use crate::read::cache::TokenCache;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Caches of fewer images have no index: reading their keys takes no longer.
pub(crate) const INDEX_IMAGES_MIN: usize = 50_000;

/// Whether a cache is so large that an index is worth a file.
pub(crate) fn is_worth_it(manifest: &Manifest) -> bool {
    manifest.images >= INDEX_IMAGES_MIN
}

/// Writes the index of the cache in `dir`, if it is large and has none: for a cache that was just published. That it
/// cannot be written is no error, since it is made again when it is needed.
pub(crate) fn write_for_new(dir: &Path, manifest: &Manifest) {
    if is_worth_it(manifest)
        && let Ok(cache) = TokenCache::open(dir)
        && cache.key_index().is_none()
    {
        let _ = write(&cache, &AtomicBool::new(false), &mut |_, _| {});
    }
}

/// Writes the index beside the cache. `progress` is called with the images that are done, and all of them. Memory: three bytes
/// per image.
///
/// # Errors
/// The keys are damaged; the folder cannot be written to; [`CacheError::Cancelled`].
pub(crate) fn write(
    cache: &TokenCache,
    cancel: &AtomicBool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), CacheError> {
    let path = cache.local_dir().join(KEY_INDEX_FILE);
    let failed = |error| io_error("write", &path)(error);
    let mut file = AtomicFile::create(&path).map_err(failed)?;
    file.write_all(&[0; HEADER_BYTES]).map_err(failed)?;
    let mut index = IndexWriter::default();
    cache.visit_keys(0..cache.num_images(), &mut |image, key| {
        index.push(key, cache.image_label(image));
        if index.block.images == BLOCK_IMAGES {
            if cancel.load(Ordering::Relaxed) {
                return Err(CacheError::Cancelled);
            }
            index.end_block(&mut file).map_err(failed)?;
            progress(image as u64 + 1, cache.num_images() as u64);
        }
        Ok(())
    })?;
    index.end_block(&mut file).map_err(failed)?;
    let table = Table::new(cache.num_images(), index.entries);
    let entries = table.entries_to_bytes();
    for part in [&index.labels, &index.signatures, &entries] {
        file.write_all(part).map_err(failed)?;
    }
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    file.write_all(&table.header(&cache.manifest().checksum, &entries)).map_err(failed)?;
    file.publish().map_err(failed)
}

/// What is written behind the keys.
#[derive(Default)]
struct IndexWriter {
    block: BlockWriter,
    entries: Vec<Entry>,
    labels: Vec<u8>,
    signatures: Vec<u8>,
}

impl IndexWriter {
    fn push(&mut self, key: &str, label: i32) {
        if self.block.images == 0 {
            self.signatures.resize(self.signatures.len() + SIGNATURE_BYTES, 0);
        }
        let start = self.signatures.len() - SIGNATURE_BYTES;
        self.block.push(key, label, &mut self.signatures[start..]);
    }

    fn end_block(&mut self, file: &mut AtomicFile) -> std::io::Result<()> {
        if self.block.images == 0 {
            return Ok(());
        }
        self.block.end_run();
        let signature = &self.signatures[self.signatures.len() - SIGNATURE_BYTES..];
        self.entries.push(Entry::of(&self.block.keys, &self.block.labels, signature));
        file.write_all(&self.block.keys)?;
        self.labels.extend_from_slice(&self.block.labels);
        self.block.clear();
        Ok(())
    }
}
