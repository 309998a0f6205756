//! Pairs of images of two caches, row by row.

use crate::cancel;
use crate::error::CacheError;
use crate::format::row::Crop;
use crate::inspect::differences::{CacheDiff, RowDiff};
use crate::read::cache::TokenCache;
use crate::unpack::unpack;
use std::collections::BTreeMap;
use std::ops::Range;

/// Rows of a cache that are read together, where images follow each other in both caches.
const RUN_ROWS: usize = 1024;

/// The numbers of an image in either cache.
#[derive(Clone, Copy)]
pub(super) struct Pair([u32; 2]);

impl Pair {
    /// # Panics
    /// When a number is 2^32 or more.
    pub(super) fn new(image: usize, other: usize) -> Pair {
        Pair([image, other].map(|image| u32::try_from(image).expect("fewer than 2^32 images")))
    }

    fn images(self) -> [usize; 2] {
        self.0.map(|image| image as usize)
    }

    fn is_followed_by(self, next: Pair) -> bool {
        self.images().map(|image| image + 1) == next.images()
    }
}

pub(super) struct Compare<'a> {
    caches: [&'a TokenCache; 2],
    listed_max: usize,
    is_comparable: bool,
    /// Grids of rows that follow each other: of which rows, and their bytes.
    packed: [(Range<usize>, Vec<u8>); 2],
    tokens: [Vec<u32>; 2],
    unequal_by_bit: Vec<u64>,
}

impl<'a> Compare<'a> {
    pub(super) fn new(caches: [&'a TokenCache; 2], listed_max: usize) -> Compare<'a> {
        let [grid, other] = caches.map(TokenCache::grid);
        Compare {
            caches,
            listed_max,
            is_comparable: grid == other,
            packed: [(0..0, Vec::new()), (0..0, Vec::new())],
            tokens: [grid, other].map(|grid| vec![0; grid.num_tokens()]),
            unequal_by_bit: vec![0; grid.bits as usize],
        }
    }

    pub(super) fn into_unequal_by_bit(self) -> Vec<u64> {
        self.unequal_by_bit
    }

    /// Compares pairs of images, the first ones of which are among `images` of the first cache.
    pub(super) fn images(
        &mut self,
        found: &mut CacheDiff,
        images: Range<usize>,
        mut pairs: Vec<Pair>,
    ) -> Result<(), CacheError> {
        let [a, b] = self.caches;
        let first_row = images.start * a.num_views();
        let crops_a = a.crops(first_row..images.end * a.num_views())?;
        // In the order of the second cache, so that each of its row groups is read once.
        pairs.sort_unstable_by_key(|Pair([_, other])| *other);
        let run_images = (RUN_ROWS / a.num_views().max(b.num_views())).max(1);
        let runs = pairs.chunk_by(|pair, next| pair.is_followed_by(*next)).flat_map(|run| run.chunks(run_images));
        let mut differing = BTreeMap::new();
        let mut read = RowsRead::default();
        for run in runs {
            cancel::check()?;
            self.read_run(run)?;
            for pair in run {
                let [image, other] = pair.images();
                let crops_b = read.image(b, other)?;
                for row_a in a.image_rows(image) {
                    let Some(view_b) = self.view_of_second(row_a) else {
                        found.only_in[0] += 1;
                        continue;
                    };
                    found.common_rows += 1;
                    let rows = [row_a, other * b.num_views() + view_b];
                    if let Some(row) = self.row(found, rows, [crops_a[row_a - first_row], crops_b[view_b]]) {
                        differing.insert(row_a, row);
                    }
                    // The first ones by the first cache's order, which is not that of the comparison.
                    if differing.len() > self.listed_max.saturating_sub(found.listed.len()) {
                        differing.pop_last();
                    }
                }
            }
        }
        for (row, mut differing) in differing {
            differing.key = a.meta(row)?.key;
            found.listed.push(differing);
        }
        Ok(())
    }

    /// Reads the grids of images that follow each other in both caches.
    fn read_run(&mut self, run: &[Pair]) -> Result<(), CacheError> {
        let Some(first) = run.first().filter(|_| self.is_comparable) else { return Ok(()) };
        for ((cache, image), (rows, packed)) in self.caches.into_iter().zip(first.images()).zip(&mut self.packed) {
            let views = cache.num_views();
            *rows = image * views..(image + run.len()) * views;
            cache.read_packed(rows.clone(), packed)?;
        }
        Ok(())
    }

    /// The place among the views of the second cache's images of a row's view; `None` where it does not have that view.
    fn view_of_second(&self, row_a: usize) -> Option<usize> {
        let [a, b] = self.caches;
        let view = a.manifest().first_view as usize + row_a % a.num_views();
        view.checked_sub(b.manifest().first_view as usize).filter(|place| *place < b.num_views())
    }

    /// Counts how two rows differ; what is listed of them, if they do.
    fn row(&mut self, found: &mut CacheDiff, rows: [usize; 2], crops: [Crop; 2]) -> Option<RowDiff> {
        let labels = [0, 1].map(|i| self.caches[i].label(rows[i]));
        let (unequal_tokens, unequal_bits) = if self.is_comparable { self.tokens(found, rows) } else { (0, 0) };
        let (labels_differ, crops_differ) = (labels[0] != labels[1], crops[0] != crops[1]);
        found.labels_differ += usize::from(labels_differ);
        found.crops_differ += usize::from(crops_differ);
        found.tokens_differ += usize::from(unequal_tokens > 0);
        let differs = labels_differ || crops_differ || unequal_tokens > 0;
        differs.then(|| RowDiff {
            key: String::new(),
            view: self.caches[0].manifest().first_view + (rows[0] % self.caches[0].num_views()) as u32,
            rows,
            labels: labels_differ.then_some(labels),
            crops: crops_differ.then_some(crops),
            unequal_tokens,
            unequal_bits,
        })
    }

    /// Tokens and bits that differ, in rows that [`Compare::read_run`] has read.
    fn tokens(&mut self, found: &mut CacheDiff, rows: [usize; 2]) -> (usize, usize) {
        let bits = self.unequal_by_bit.len();
        let row_bytes = self.caches[0].grid().row_bytes();
        let grid = |i: usize| {
            let (read, packed) = &self.packed[i];
            &packed[(rows[i] - read.start) * row_bytes..][..row_bytes]
        };
        let grids = [grid(0), grid(1)];
        let num_tokens = self.tokens[0].len();
        found.tokens += num_tokens as u64;
        found.bits += (num_tokens * bits) as u64;
        let (mut unequal_tokens, mut unequal_bits) = (0, 0);
        if grids[0] != grids[1] {
            for (packed, tokens) in grids.into_iter().zip(&mut self.tokens) {
                unpack(packed, bits as u32, tokens);
            }
            for (a, b) in self.tokens[0].iter().zip(&self.tokens[1]) {
                let different = a ^ b;
                if different == 0 {
                    continue;
                }
                unequal_tokens += 1;
                unequal_bits += different.count_ones() as usize;
                for (bit, unequal) in self.unequal_by_bit.iter_mut().enumerate() {
                    *unequal += u64::from(different >> bit & 1);
                }
            }
        }
        found.equal_tokens += (num_tokens - unequal_tokens) as u64;
        found.equal_bits += (num_tokens * bits - unequal_bits) as u64;
        (unequal_tokens, unequal_bits)
    }
}

/// The crops of the most recently requested row group.
#[derive(Default)]
struct RowsRead {
    rows: Range<usize>,
    crops: Vec<Crop>,
}

impl RowsRead {
    /// Those of an image's rows.
    fn image(&mut self, cache: &TokenCache, image: usize) -> Result<&[Crop], CacheError> {
        let wanted = cache.image_rows(image);
        if !self.rows.contains(&wanted.start) {
            self.rows = cache.group_rows_around(wanted.start);
            self.crops = cache.crops(self.rows.clone())?;
        }
        Ok(&self.crops[wanted.start - self.rows.start..wanted.end - self.rows.start])
    }
}
