//! The header of an index of keys, and the table of its blocks.
//!
//! ```text
//! 0          magic | checksum of the manifest, 64 hex digits | images | bytes of the keys | bytes of the labels
//!            BLAKE3 of what is above and of the table
//! 144        keys of block 0 | keys of block 1 | ...
//!            labels of block 0 | ...
//!            signature of block 0 | ...
//!            table: for each block the bytes of its keys and of its labels, and checks of keys, labels and signature
//! ```
//! Integers are little-endian, of 8 bytes but for the two sizes in the table, which have 4.

use crate::format::hash::quick_hash;
use crate::lookup::block::BLOCK_IMAGES;
use crate::lookup::signature::SIGNATURE_BYTES;

const MAGIC: &[u8; 8] = b"tgkeys01";

/// Hex digits of the manifest's checksum.
const CHECKSUM_BYTES: usize = 64;

/// The header, with its hash.
pub(super) const HEADER_BYTES: usize = MAGIC.len() + CHECKSUM_BYTES + 3 * 8 + blake3::OUT_LEN + 16;

/// A block in the table.
pub(super) const ENTRY_BYTES: usize = 2 * 4 + 3 * 8;

/// One block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) keys_bytes: u32,
    pub(super) labels_bytes: u32,
    pub(super) keys_check: u64,
    pub(super) labels_check: u64,
    pub(super) signature_check: u64,
}

impl Entry {
    pub(super) fn of(keys: &[u8], labels: &[u8], signature: &[u8]) -> Entry {
        Entry {
            keys_bytes: keys.len() as u32,
            labels_bytes: labels.len() as u32,
            keys_check: quick_hash(keys),
            labels_check: quick_hash(labels),
            signature_check: quick_hash(signature),
        }
    }

    fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..4].copy_from_slice(&self.keys_bytes.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.labels_bytes.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.keys_check.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.labels_check.to_le_bytes());
        bytes[24..].copy_from_slice(&self.signature_check.to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8; ENTRY_BYTES]) -> Entry {
        let half = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let whole = |at: usize| u64::from(half(at)) | u64::from(half(at + 4)) << 32;
        Entry {
            keys_bytes: half(0),
            labels_bytes: half(4),
            keys_check: whole(8),
            labels_check: whole(16),
            signature_check: whole(24),
        }
    }
}

/// Where everything is.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) images: usize,
    pub(super) entries: Vec<Entry>,
    keys_bytes: u64,
    labels_bytes: u64,
}

impl Table {
    pub(super) fn new(images: usize, entries: Vec<Entry>) -> Table {
        let sum = |bytes: fn(&Entry) -> u32| entries.iter().map(|entry| u64::from(bytes(entry))).sum();
        Table {
            images,
            keys_bytes: sum(|entry| entry.keys_bytes),
            labels_bytes: sum(|entry| entry.labels_bytes),
            entries,
        }
    }

    pub(super) fn entries_to_bytes(&self) -> Vec<u8> {
        self.entries.iter().flat_map(|entry| entry.to_bytes()).collect()
    }

    /// The header for the cache whose manifest has this checksum.
    pub(super) fn header(&self, manifest: &str, table: &[u8]) -> Vec<u8> {
        let mut header = [&MAGIC[..], manifest.as_bytes()].concat();
        header.resize(MAGIC.len() + CHECKSUM_BYTES, 0);
        for number in [self.images as u64, self.keys_bytes, self.labels_bytes] {
            header.extend_from_slice(&number.to_le_bytes());
        }
        let hash = hash(&header, table);
        header.extend_from_slice(hash.as_bytes());
        header.resize(HEADER_BYTES, 0);
        header
    }

    /// The table of an index of `images` images, if header and table are of that cache and whole. `None` otherwise.
    pub(super) fn parse(header: &[u8], table: &[u8], manifest: &str, images: usize) -> Option<Table> {
        let entries = table.as_chunks::<ENTRY_BYTES>().0.iter().map(Entry::parse).collect();
        let found = Table::new(images, entries);
        let is_of_cache = found.entries.len() == images.div_ceil(BLOCK_IMAGES);
        (is_of_cache && found.header(manifest, table) == header).then_some(found)
    }

    /// Bytes of a table for so many images.
    pub(super) fn bytes(images: usize) -> usize {
        images.div_ceil(BLOCK_IMAGES) * ENTRY_BYTES
    }

    /// Images of a block.
    pub(super) fn block_images(&self, block: usize) -> usize {
        BLOCK_IMAGES.min(self.images - block * BLOCK_IMAGES)
    }

    /// Where the labels of the first block begin.
    pub(super) fn labels_start(&self) -> u64 {
        HEADER_BYTES as u64 + self.keys_bytes
    }

    /// Where the signature of a block begins.
    pub(super) fn signature_start(&self, block: usize) -> u64 {
        self.labels_start() + self.labels_bytes + (block * SIGNATURE_BYTES) as u64
    }

    /// Length of the whole file.
    pub(super) fn file_bytes(&self) -> u64 {
        self.signature_start(self.entries.len()) + Self::bytes(self.images) as u64
    }
}

fn hash(header: &[u8], table: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(header).update(table);
    hasher.finalize()
}
