//! Decoded pages, so that a page is decoded once and not once for each of its images.

use crate::memory::memory_budget;
use parquet::data_type::ByteArray;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Pages kept, and bytes of pages kept: no more than a part of the memory budget. What threads are busy with comes on top: a
/// page each.
const MAX_PAGES: usize = 64;
const MAX_BYTES: u64 = 256 << 20;
const MAX_BUDGET_SHARE: u64 = 4;

/// Which page: file, row group, page.
pub(super) type PageId = (u32, u32, u32);

/// The images of a page, `None` where a row has none.
pub(super) type Images = Result<Vec<Option<ByteArray>>, String>;

/// The pages used last.
#[derive(Debug, Default)]
pub(super) struct PageCache {
    /// The page used last is at the end. Held for a look, never while a page is decoded.
    pages: Mutex<VecDeque<(PageId, Arc<Slot>)>>,
}

/// A page, or a slot for it: the first thread fills it while others wait.
#[derive(Debug)]
pub(super) struct Slot {
    bytes: usize,
    images: OnceLock<Images>,
}

impl Slot {
    /// The page's images, decoded by `decode` on first use.
    pub(super) fn images(&self, decode: impl FnOnce() -> Images) -> &Images {
        self.images.get_or_init(decode)
    }
}

impl PageCache {
    /// The place of a page that takes `bytes` when it is decoded. `None` if it is not kept and `is_needed` says no.
    pub(super) fn slot(&self, id: PageId, bytes: usize, is_needed: impl FnOnce() -> bool) -> Option<Arc<Slot>> {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let known = pages.iter().position(|(known, _)| *known == id).and_then(|at| pages.remove(at));
        if known.is_none() && !is_needed() {
            return None;
        }
        let (_, slot) = known.unwrap_or_else(|| (id, Arc::new(Slot { bytes, images: OnceLock::new() })));
        pages.push_back((id, Arc::clone(&slot)));
        let max_bytes = MAX_BYTES.min(memory_budget() / MAX_BUDGET_SHARE) as usize;
        let mut held: usize = pages.iter().map(|(_, slot)| slot.bytes).sum();
        while pages.len() > 1 && (held > max_bytes || pages.len() > MAX_PAGES) {
            held -= pages.pop_front().map_or(0, |(_, slot)| slot.bytes);
        }
        Some(slot)
    }
}
