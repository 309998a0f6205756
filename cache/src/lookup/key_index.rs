//! The index of keys and labels that lies beside a large cache: looks keys up without reading all of them.
//!
//! It is made of the cache and can be made again at any time, so it is no part of the format's promises: a file that is
//! damaged, of another manifest or not there at all only costs time.

use crate::error::CacheError;
use crate::format::hash::quick_hash;
use crate::format::manifest::Manifest;
use crate::lookup::block::{BLOCK_IMAGES, visit_keys_with, visit_runs};
use crate::lookup::signature::{SIGNATURE_BYTES, Wanted};
use crate::lookup::table::{HEADER_BYTES, Table};
use crate::parallel;
use crate::parallel::num_threads;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Name of the file in the cache's folder.
pub const KEY_INDEX_FILE: &str = "keys.index";

/// Blocks that a thread takes at a time.
const SPAN_BLOCKS: usize = 128;

#[derive(Debug)]
pub(crate) struct KeyIndex {
    path: PathBuf,
    file: File,
    table: Table,
    /// Where the keys and the labels of each block begin.
    starts: Vec<[u64; 2]>,
}

impl KeyIndex {
    /// The index in `dir`, if there is one of the cache with this manifest.
    pub(crate) fn load(dir: &Path, manifest: &Manifest) -> Option<KeyIndex> {
        let path = dir.join(KEY_INDEX_FILE);
        let file = File::open(&path).ok()?;
        let length = file.metadata().ok()?.len();
        let mut table = vec![0; Table::bytes(manifest.images)];
        let mut header = vec![0; HEADER_BYTES];
        read_exact_at(&path, &file, &mut header, 0).ok()?;
        let table_start = length.checked_sub(table.len() as u64)?;
        read_exact_at(&path, &file, &mut table, table_start).ok()?;
        let table = Table::parse(&header, &table, &manifest.checksum, manifest.images)?;
        if table.file_bytes() != length {
            return None;
        }
        let (mut starts, mut next) = (Vec::new(), [HEADER_BYTES as u64, table.labels_start()]);
        for entry in &table.entries {
            starts.push(next);
            next = [next[0] + u64::from(entry.keys_bytes), next[1] + u64::from(entry.labels_bytes)];
        }
        Some(KeyIndex { path, file, table, starts })
    }

    /// Those of `images` that have the label and whose key has `text` as a part, as far as these are given, in order.
    /// `None` where the index turns out to be damaged.
    ///
    /// # Errors
    /// [`CacheError::Cancelled`].
    pub(crate) fn find(
        &self,
        images: Range<usize>,
        label: Option<i32>,
        text: Option<&str>,
        cancel: &AtomicBool,
    ) -> Result<Option<Vec<u32>>, CacheError> {
        let text = text.map(|text| (text.as_bytes(), Wanted::new(text.as_bytes())));
        let search = Search { index: self, images, label, text };
        let spans = self.table.entries.len().div_ceil(SPAN_BLOCKS);
        let found = parallel::map(num_threads(), spans, &mut |_| {}, |span, _| {
            if cancel.load(Ordering::Relaxed) {
                return Err(CacheError::Cancelled);
            }
            Ok(search.span(span * SPAN_BLOCKS..((span + 1) * SPAN_BLOCKS).min(self.table.entries.len())))
        })?;
        Ok(found.into_iter().collect::<Option<Vec<_>>>().map(|parts| parts.concat()))
    }

    /// Removes the file.
    pub(crate) fn remove(&self) {
        // It may be gone already, and where it cannot be removed it is not believed either.
        let _ = std::fs::remove_file(&self.path);
    }

    /// Bytes that have this hash.
    fn read(&self, start: u64, bytes: usize, check: u64, out: &mut Vec<u8>) -> Option<()> {
        out.resize(bytes, 0);
        read_exact_at(&self.path, &self.file, out, start).ok()?;
        (quick_hash(out) == check).then_some(())
    }
}

struct Search<'a> {
    index: &'a KeyIndex,
    images: Range<usize>,
    label: Option<i32>,
    text: Option<(&'a [u8], Wanted)>,
}

impl Search<'_> {
    /// Images of some blocks.
    fn span(&self, blocks: Range<usize>) -> Option<Vec<u32>> {
        let table = &self.index.table;
        let mut signatures = Vec::new();
        let with_signature = self.text.as_ref().filter(|(_, wanted)| !wanted.is_anywhere());
        if with_signature.is_some() {
            signatures.resize(blocks.len() * SIGNATURE_BYTES, 0);
            let start = table.signature_start(blocks.start);
            read_exact_at(&self.index.path, &self.index.file, &mut signatures, start).ok()?;
        }
        let mut labels = Vec::new();
        let bytes: usize = table.entries[blocks.clone()].iter().map(|entry| entry.labels_bytes as usize).sum();
        if self.label.is_some() {
            labels.resize(bytes, 0);
            let start = self.index.starts[blocks.start][1];
            read_exact_at(&self.index.path, &self.index.file, &mut labels, start).ok()?;
        }
        let (mut found, mut buffer, mut rest) = (Vec::new(), Vec::new(), labels.as_slice());
        for block in blocks.clone() {
            let of_block = rest.get(..table.entries[block].labels_bytes as usize).unwrap_or_default();
            rest = &rest[of_block.len()..];
            if let Some((_, wanted)) = with_signature {
                let signature = &signatures[(block - blocks.start) * SIGNATURE_BYTES..][..SIGNATURE_BYTES];
                if quick_hash(signature) != table.entries[block].signature_check {
                    return None;
                }
                if !wanted.may_be_in(signature) {
                    continue;
                }
            }
            let first = block * BLOCK_IMAGES;
            if first < self.images.end && first + BLOCK_IMAGES > self.images.start {
                self.block(block, of_block, &mut buffer, &mut found)?;
            }
        }
        Some(found)
    }

    fn block(&self, block: usize, labels: &[u8], buffer: &mut Vec<u8>, found: &mut Vec<u32>) -> Option<()> {
        let (table, first) = (&self.index.table, block * BLOCK_IMAGES);
        let (entry, images, start) = (table.entries[block], table.block_images(block), self.index.starts[block][0]);
        let mut is_wanted = [true; BLOCK_IMAGES];
        if let Some(label) = self.label {
            if quick_hash(labels) != entry.labels_check {
                return None;
            }
            let mut next = 0;
            visit_runs(labels, images, &mut |of_run, run| {
                is_wanted[next..next + run].fill(of_run == label);
                next += run;
            })?;
        }
        let mut push = |place: usize| {
            if is_wanted[place] && self.images.contains(&(first + place)) {
                found.push((first + place) as u32);
            }
        };
        let Some((text, _)) = &self.text else {
            (0..images).for_each(push);
            return Some(());
        };
        if is_wanted[..images].contains(&true) {
            self.index.read(start, entry.keys_bytes as usize, entry.keys_check, buffer)?;
            visit_keys_with(buffer, images, text, &mut push)?;
        }
        Some(())
    }
}

/// Fills `out` from byte `offset` of the file, from any thread.
fn read_exact_at(path: &Path, file: &File, out: &mut [u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    {
        let _ = path;
        std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
    }
    #[cfg(not(unix))]
    {
        use std::io::{Read, Seek, SeekFrom};
        // A file of its own, since threads would move each other's position.
        let _ = file;
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(out)
    }
}
