//! The one pass over all grids: what is counted and kept of each row.
//!
//! Rows are visited class by class, so that the codes of one class are counted at a time: a table of all classes would be
//! a gigabyte. Most of the time goes into counters that lie scattered over a table of all codes, so that table is kept small
//! enough for a core's own cache. Grids are read by position into a buffer of the thread's own. A mapped file would count as this program's
//! memory as far as it was touched, which here is all of it.

use crate::error::CacheError;
use crate::format::hash::quick_hash;
use crate::inspect::class_rows::{BLOCK_ROWS, visit_rows};
use crate::inspect::classes::ClassIndex;
use crate::inspect::figures::distinct_and_entropy;
use crate::inspect::near::Sketcher;
use crate::inspect::tally::Tally;
use crate::parallel;
use crate::read::cache::TokenCache;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

/// Rows of a class that one thread takes at a time, at most.
const PART_ROWS_MAX: usize = 1 << 18;

/// What the pass finds.
pub(super) struct Passed {
    /// How often each code occurs.
    pub counts: Vec<u64>,
    /// Where each code occurs first: `row * tokens + position`; [`NOWHERE`](super::tally::NOWHERE) where it does not.
    pub first: Vec<u64>,
    /// For every label of the index, from -1 on: distinct codes, and their entropy in bits.
    pub classes: Vec<(u64, f64)>,
    /// 32 bits of the hash of each row's grid.
    pub hashes: Vec<AtomicU32>,
    /// `[bands, images]`: the first bands of every image, see [`Sketcher`].
    pub sketches: Vec<AtomicU32>,
}

/// Some images of one class, by their places in the index's list of it.
struct Part {
    label: i32,
    images: std::ops::Range<usize>,
    /// Whether these are all that the class has.
    is_whole: bool,
}

/// What all threads share.
struct Shared<'a> {
    cache: &'a TokenCache,
    index: &'a ClassIndex,
    sketcher: &'a Sketcher,
    parts: Vec<Part>,
    next: AtomicUsize,
    cancel: &'a AtomicBool,
    hashes: Vec<AtomicU32>,
    sketches: Vec<AtomicU32>,
    /// By label + 1. Of classes in several parts: what was counted so far.
    split: Vec<Mutex<Vec<u64>>>,
    entropies: Vec<Mutex<(u64, f64)>>,
}

/// Visits every row once, on `threads` threads. `progress` is called with numbers of rows.
pub(super) fn run(
    cache: &TokenCache,
    index: &ClassIndex,
    sketcher: &Sketcher,
    threads: usize,
    cancel: &AtomicBool,
    progress: &mut dyn FnMut(u64),
) -> Result<Passed, CacheError> {
    let labels = index.labels().count();
    let zeros = |count: usize| (0..count).map(|_| AtomicU32::new(0)).collect();
    let shared = Shared {
        cache,
        index,
        sketcher,
        parts: parts(cache, index, threads),
        next: AtomicUsize::new(0),
        cancel,
        hashes: zeros(cache.num_rows()),
        sketches: zeros(cache.num_images() * sketcher.first_bands()),
        split: (0..labels).map(|_| Mutex::default()).collect(),
        entropies: (0..labels).map(|_| Mutex::default()).collect(),
    };
    let threads = threads.min(shared.parts.len()).max(1);
    let tallies = parallel::map(threads, threads, progress, |_, report| shared.count_parts(report))?;
    let mut tallies = tallies.into_iter();
    let mut total = tallies.next().unwrap_or_else(|| Tally::new(cache));
    tallies.for_each(|tally| total.add(&tally));
    let unlock = |mutex: Mutex<(u64, f64)>| mutex.into_inner().unwrap_or_default();
    let mut classes: Vec<(u64, f64)> = shared.entropies.into_iter().map(unlock).collect();
    for (class, counts) in classes.iter_mut().zip(shared.split) {
        let counts = counts.into_inner().unwrap_or_default();
        if !counts.is_empty() {
            *class = distinct_and_entropy(counts.iter().copied());
        }
    }
    Ok(Passed { counts: total.counts, first: total.first, classes, hashes: shared.hashes, sketches: shared.sketches })
}

/// Cuts the classes so that no thread is left with a large one at the end.
fn parts(cache: &TokenCache, index: &ClassIndex, threads: usize) -> Vec<Part> {
    // The tokens of a part are counted in 32 bits.
    let countable = u32::MAX as usize / cache.grid().num_tokens();
    let rows_max = (cache.num_rows() / (4 * threads).max(1)).clamp(BLOCK_ROWS, PART_ROWS_MAX).min(countable);
    let images_max = (rows_max / cache.num_views().max(1)).max(1);
    let mut parts = Vec::new();
    for label in index.labels() {
        let images = index.images(label).len();
        for start in (0..images).step_by(images_max) {
            let end = (start + images_max).min(images);
            parts.push(Part { label, images: start..end, is_whole: end - start == images });
        }
    }
    parts
}

impl Shared<'_> {
    /// One thread's work.
    fn count_parts(&self, report: &dyn Fn(u64)) -> Result<Tally, CacheError> {
        let mut tally = Tally::new(self.cache);
        while let Some(part) = self.parts.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let rows = part.images.len() * self.cache.num_views();
            tally.begin_part(rows, self.index.images(part.label)[part.images.start] as usize * self.cache.num_views());
            self.count_part(part, &mut tally, report)?;
            let slot = (part.label + 1) as usize;
            if !part.is_whole {
                let mut counts = self.split[slot].lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                counts.resize(tally.counts.len(), 0);
                tally.part.add_to(&mut counts);
            }
            let found = tally.end_part();
            if part.is_whole {
                *self.entropies[slot].lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = found;
            }
        }
        Ok(tally)
    }

    fn count_part(&self, part: &Part, tally: &mut Tally, report: &dyn Fn(u64)) -> Result<(), CacheError> {
        let images = &self.index.images(part.label)[part.images.clone()];
        visit_rows(self.cache, images, self.cancel, report, &mut |row, grid| self.count_row(row, grid, tally))
    }

    fn count_row(&self, row: usize, packed: &[u8], tally: &mut Tally) {
        self.hashes[row].store(quick_hash(packed) as u32, Ordering::Relaxed);
        tally.unpack(packed);
        let views = self.cache.num_views();
        if row.is_multiple_of(views) {
            let slots = self.sketches[row / views..].iter().step_by(self.cache.num_images());
            let bands = self.sketcher.bands_of(0..self.sketcher.first_bands(), &tally.tokens);
            slots.zip(bands).for_each(|(slot, band)| slot.store(band, Ordering::Relaxed));
        }
        tally.count(row);
    }
}
