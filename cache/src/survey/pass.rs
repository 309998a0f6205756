//! The pass over all rows: class by class, so that the means of a few classes are in memory at a time.
//!
//! The rows of each batch of classes are read twice, for the means and for the distances from them.

use super::Survey;
use super::axes::Axes;
use super::means::{BitCounts, ClassCounts, MeanDistance};
use super::quantized;
use crate::error::CacheError;
use crate::inspect::class_rows::visit_rows;
use crate::inspect::classes::ClassIndex;
use crate::parallel::{self, num_threads};
use crate::read::cache::TokenCache;
use crate::unpack::Kernels;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};

/// Images that a thread takes at a time.
const PART_IMAGES: usize = 1 << 14;

/// Memory for the means of the classes of a batch.
const MEANS_BYTES: usize = 48 << 20;

/// Some images of a class, by their places in the index's list of it.
struct Part {
    label: i32,
    images: std::ops::Range<usize>,
}

/// What all threads share.
struct Shared<'a> {
    cache: &'a TokenCache,
    index: &'a ClassIndex,
    cancel: &'a AtomicBool,
    axes: Axes,
    /// x, y, entropy, distance.
    found: [Vec<AtomicU16>; 4],
    scales: [f32; 2],
}

impl Survey {
    /// Surveys `cache` on all cores, or on as many as `threads` says. `progress` is called with the rows done and all rows;
    /// `cancel` ends the work.
    ///
    /// Memory: 8 bytes per row, about 60 MB for the means of classes, and 2 MB per thread.
    ///
    /// # Errors
    /// [`CacheError::Cancelled`]; as [`TokenCache::read_packed`], where tokens are damaged or cannot be read.
    pub fn of(
        cache: &TokenCache,
        threads: Option<usize>,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Survey, CacheError> {
        let threads = threads.unwrap_or_else(num_threads).max(1);
        let (index, grid) = (ClassIndex::of(cache), cache.grid());
        let numbers = || (0..cache.num_rows()).map(|_| AtomicU16::new(0)).collect();
        let scales = [(grid.num_tokens() as f32).log2().max(1.0), (grid.num_tokens() * grid.bits as usize) as f32];
        let axes = Axes::of(cache, cancel)?;
        let shared = Shared { cache, index: &index, cancel, axes, found: std::array::from_fn(|_| numbers()), scales };
        let (mut done, total) = (0, cache.num_rows() as u64);
        // Each row is read twice.
        let mut report = |rows: u64| {
            done += rows;
            progress(done / 2, total);
        };
        let labels: Vec<i32> = index.labels().collect();
        let batch = (MEANS_BYTES / (32 * grid.row_bytes())).max(1);
        for labels in labels.chunks(batch) {
            shared.batch(labels, threads, &mut report)?;
        }
        let [x, y, entropy, class_distance] =
            shared.found.map(|numbers| numbers.into_iter().map(AtomicU16::into_inner).collect());
        Ok(Survey { manifest: cache.manifest().checksum.clone(), x, y, entropy, class_distance, scales })
    }
}

impl Shared<'_> {
    /// Surveys the rows of some classes, whose labels follow each other.
    fn batch(&self, labels: &[i32], threads: usize, report: &mut dyn FnMut(u64)) -> Result<(), CacheError> {
        let parts = self.parts(labels);
        let counts: Vec<Mutex<ClassCounts>> = labels.iter().map(|_| Mutex::default()).collect();
        let slot = |label: i32| (label - labels[0]) as usize;
        parallel::map(threads, parts.len(), report, |part, report| {
            let part = &parts[part];
            let mut counted = BitCounts::new(self.cache.grid().row_bytes());
            self.visit(part, report, &mut |_, grid| counted.add(grid))?;
            counted.add_to(&mut counts[slot(part.label)].lock().unwrap_or_else(PoisonError::into_inner));
            Ok(())
        })?;
        let counts: Vec<ClassCounts> =
            counts.into_iter().map(|counts| counts.into_inner().unwrap_or_else(PoisonError::into_inner)).collect();
        parallel::map(threads, parts.len(), report, |part, report| {
            let part = &parts[part];
            let distance = counts[slot(part.label)].distance();
            self.measure(part, &distance, report)
        })?;
        Ok(())
    }

    fn parts(&self, labels: &[i32]) -> Vec<Part> {
        let mut parts = Vec::new();
        for label in labels {
            let images = self.index.images(*label).len();
            let starts = (0..images).step_by(PART_IMAGES);
            parts.extend(starts.map(|start| Part { label: *label, images: start..(start + PART_IMAGES).min(images) }));
        }
        parts
    }

    /// Takes the measure of each row of a part.
    fn measure(&self, part: &Part, distance: &MeanDistance, report: &dyn Fn(u64)) -> Result<(), CacheError> {
        let grid = self.cache.grid();
        let kernels = Kernels::best(grid.bits);
        let mut tokens = vec![0; grid.num_tokens()];
        let [x, y, entropy, far] = &self.found;
        self.visit(part, report, &mut |row, packed| {
            let place = self.axes.place(packed);
            kernels.narrow(packed, &mut tokens);
            x[row].store(place[0], Ordering::Relaxed);
            y[row].store(place[1], Ordering::Relaxed);
            entropy[row].store(quantized(entropy_bits(&mut tokens), self.scales[0]), Ordering::Relaxed);
            far[row].store(quantized(distance.of(packed), self.scales[1]), Ordering::Relaxed);
        })
    }

    /// Calls `visit` with the number and the packed grid of each row of a part.
    fn visit(&self, part: &Part, report: &dyn Fn(u64), visit: &mut dyn FnMut(usize, &[u8])) -> Result<(), CacheError> {
        let images = &self.index.images(part.label)[part.images.clone()];
        visit_rows(self.cache, images, self.cancel, report, visit)
    }
}

/// Entropy of the codes of a grid, in bits per token. Leaves the tokens in another order.
pub(super) fn entropy_bits(tokens: &mut [u32]) -> f32 {
    let count = tokens.len() as f32;
    tokens.sort_unstable();
    let each = |run: &[u32]| {
        let share = run.len() as f32 / count;
        -share * share.log2()
    };
    tokens.chunk_by(|a, b| a == b).map(each).sum()
}
