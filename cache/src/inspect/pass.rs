//! The one pass over all grids: what is counted and kept of each row.
//!
//! Rows are visited class by class, so that the codes of one class are counted at a time: a table of all classes would be
//! a gigabyte. Grids are read by position into a buffer of the thread's own. A mapped file would count as this program's
//! memory as far as it was touched, which here is all of it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::classes::ClassIndex;
use super::figures::entropy_bits;
use super::near::Sketcher;
use crate::error::CacheError;
use crate::parallel;
use crate::reader::TokenCache;
use crate::unpack::Kernels;

/// Rows that are read at a time.
const BLOCK_ROWS: usize = 1024;

/// Rows of a class that one thread takes at a time, at most.
const PART_ROWS_MAX: usize = 1 << 18;

/// What the pass finds.
pub(super) struct Passed {
    /// How often each code occurs.
    pub counts: Vec<u64>,
    /// Where each code occurs first: `row * tokens + position`; [`NOWHERE`] where it does not.
    pub first: Vec<u64>,
    /// For every label of the index, from -1 on: distinct codes, and their entropy in bits.
    pub classes: Vec<(u64, f64)>,
    /// 64 bits of the hash of each row's grid.
    pub hashes: Vec<u64>,
    /// `[images][bands]`: see [`Sketcher`].
    pub sketches: Vec<u32>,
}

/// The place of a code that does not occur.
pub(super) const NOWHERE: u64 = u64::MAX;

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
    hashes: Vec<AtomicU64>,
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
    let zeros = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
    let shared = Shared {
        cache,
        index,
        sketcher,
        parts: parts(cache, index, threads),
        next: AtomicUsize::new(0),
        cancel,
        hashes: zeros(cache.num_rows()),
        sketches: (0..cache.num_images() * sketcher.bands()).map(|_| AtomicU32::new(0)).collect(),
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
    Ok(Passed {
        counts: total.counts,
        first: total.first,
        classes,
        hashes: shared.hashes.into_iter().map(AtomicU64::into_inner).collect(),
        sketches: shared.sketches.into_iter().map(AtomicU32::into_inner).collect(),
    })
}

/// Cuts the classes so that no thread is left with a large one at the end.
fn parts(cache: &TokenCache, index: &ClassIndex, threads: usize) -> Vec<Part> {
    let rows_max = (cache.num_rows() / (4 * threads).max(1)).clamp(BLOCK_ROWS, PART_ROWS_MAX);
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
            self.count_part(part, &mut tally, report)?;
            let slot = (part.label + 1) as usize;
            if !part.is_whole {
                let mut counts = self.split[slot].lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                counts.resize(tally.counts.len(), 0);
                let ClassCounts { counts: part, touched } = &tally.class;
                touched.iter().for_each(|(code, _)| counts[*code as usize] += part[*code as usize]);
            }
            let found = tally.end_class();
            if part.is_whole {
                *self.entropies[slot].lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = found;
            }
        }
        Ok(tally)
    }

    fn count_part(&self, part: &Part, tally: &mut Tally, report: &dyn Fn(u64)) -> Result<(), CacheError> {
        let views = self.cache.num_views();
        let images = &self.index.images(part.label)[part.images.clone()];
        let mut packed = Vec::new();
        // Images that follow each other in the cache are read together.
        for run in images.chunk_by(|a, b| a + 1 == *b) {
            for block in run.chunks((BLOCK_ROWS / views).max(1)) {
                if self.cancel.load(Ordering::Relaxed) {
                    return Err(CacheError::Cancelled);
                }
                let first = block[0] as usize * views;
                let rows = first..first + block.len() * views;
                self.cache.read_packed(rows.clone(), &mut packed)?;
                for (row, grid) in rows.clone().zip(packed.chunks_exact(self.cache.grid().row_bytes())) {
                    self.count_row(row, grid, tally);
                }
                report(rows.len() as u64);
            }
        }
        Ok(())
    }

    fn count_row(&self, row: usize, packed: &[u8], tally: &mut Tally) {
        self.hashes[row].store(short_hash(packed), Ordering::Relaxed);
        tally.unpack(packed);
        let views = self.cache.num_views();
        if row.is_multiple_of(views) {
            let sketch = &self.sketches[row / views * self.sketcher.bands()..][..self.sketcher.bands()];
            let bands = self.sketcher.bands_of(&tally.tokens);
            sketch.iter().zip(bands).for_each(|(slot, band)| slot.store(band, Ordering::Relaxed));
        }
        tally.count(row);
    }
}

fn short_hash(bytes: &[u8]) -> u64 {
    let hash = blake3::hash(bytes);
    let (words, _) = hash.as_bytes().as_chunks::<8>();
    u64::from_le_bytes(words[0])
}

fn distinct_and_entropy(counts: impl Iterator<Item = u64> + Clone) -> (u64, f64) {
    let distinct = counts.clone().filter(|count| *count > 0).count() as u64;
    (distinct, entropy_bits(counts))
}

/// What one thread counts.
struct Tally {
    kernels: Kernels,
    tokens: Vec<u32>,
    counts: Vec<u64>,
    first: Vec<u64>,
    class: ClassCounts,
}

/// How often each code occurs in the current class, and which codes do: far fewer than there are, as a rule.
struct ClassCounts {
    counts: Vec<u64>,
    /// Codes, with their first places.
    touched: Vec<(u32, u64)>,
}

impl Tally {
    fn new(cache: &TokenCache) -> Tally {
        let grid = cache.grid();
        let codes = 1usize << grid.bits;
        Tally {
            kernels: Kernels::best(grid.bits),
            tokens: vec![0; grid.num_tokens()],
            counts: vec![0; codes],
            first: vec![NOWHERE; codes],
            class: ClassCounts { counts: vec![0; codes], touched: Vec::new() },
        }
    }

    fn unpack(&mut self, packed: &[u8]) {
        self.kernels.narrow(packed, &mut self.tokens);
    }

    /// Counts the tokens of a row for the current class.
    fn count(&mut self, row: usize) {
        let place = (row * self.tokens.len()) as u64;
        for (token, place) in self.tokens.iter().zip(place..) {
            let count = &mut self.class.counts[*token as usize];
            if *count == 0 {
                self.class.touched.push((*token, place));
            }
            *count += 1;
        }
    }

    /// Adds the current class to the whole, and begins another one. Returns its distinct codes and their entropy.
    fn end_class(&mut self) -> (u64, f64) {
        let ClassCounts { counts, touched } = &mut self.class;
        let found = distinct_and_entropy(touched.iter().map(|(code, _)| counts[*code as usize]));
        for (code, place) in touched.drain(..) {
            let code = code as usize;
            self.counts[code] += std::mem::take(&mut counts[code]);
            self.first[code] = self.first[code].min(place);
        }
        found
    }

    fn add(&mut self, other: &Tally) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
        self.first.iter_mut().zip(&other.first).for_each(|(first, place)| *first = (*first).min(*place));
    }
}
