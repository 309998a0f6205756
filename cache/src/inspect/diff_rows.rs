//! Pairs of images of two caches, row by row.

use crate::cancel;
use crate::error::CacheError;
use crate::format::row::Crop;
use crate::inspect::differences::{CacheDiff, RowDiff};
use crate::read::cache::TokenCache;
use crate::unpack::unpack;
use std::collections::BTreeMap;
use std::ops::Range;

pub(super) struct Compare<'a> {
    caches: [&'a TokenCache; 2],
    listed_max: usize,
    is_comparable: bool,
    packed: [Vec<u8>; 2],
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
            packed: Default::default(),
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
        mut pairs: Vec<[usize; 2]>,
    ) -> Result<(), CacheError> {
        let [a, b] = self.caches;
        let first_row = images.start * a.num_views();
        let crops_a = a.crops(first_row..images.end * a.num_views())?;
        // In the order of the second cache, so that each of its row groups is read once.
        pairs.sort_unstable_by_key(|[_, other]| *other);
        let mut differing = BTreeMap::new();
        let mut read = RowsRead::default();
        for [image, other] in pairs {
            cancel::check()?;
            let crops_b = read.image(b, other)?;
            for row_a in a.image_rows(image) {
                let view = a.manifest().first_view as usize + row_a % a.num_views();
                let place_b = view.checked_sub(b.manifest().first_view as usize).filter(|place| *place < b.num_views());
                let Some(place_b) = place_b else {
                    found.only_in[0] += 1;
                    continue;
                };
                found.common_rows += 1;
                let rows = [row_a, other * b.num_views() + place_b];
                let row = self.row(found, rows, [crops_a[row_a - first_row], crops_b[place_b]])?;
                if let Some(row) = row {
                    differing.insert(row_a, row);
                }
                // The first ones by the first cache's order, which is not that of the comparison.
                if differing.len() > self.listed_max.saturating_sub(found.listed.len()) {
                    differing.pop_last();
                }
            }
        }
        for (row, mut differing) in differing {
            differing.key = a.meta(row)?.key;
            found.listed.push(differing);
        }
        Ok(())
    }

    /// Counts how two rows differ; what is listed of them, if they do.
    fn row(
        &mut self,
        found: &mut CacheDiff,
        rows: [usize; 2],
        crops: [Crop; 2],
    ) -> Result<Option<RowDiff>, CacheError> {
        let labels = [0, 1].map(|i| self.caches[i].label(rows[i]));
        let (unequal_tokens, unequal_bits) = if self.is_comparable { self.tokens(found, rows)? } else { (0, 0) };
        let (labels_differ, crops_differ) = (labels[0] != labels[1], crops[0] != crops[1]);
        found.labels_differ += usize::from(labels_differ);
        found.crops_differ += usize::from(crops_differ);
        found.tokens_differ += usize::from(unequal_tokens > 0);
        let differs = labels_differ || crops_differ || unequal_tokens > 0;
        Ok(differs.then(|| RowDiff {
            key: String::new(),
            view: self.caches[0].manifest().first_view + (rows[0] % self.caches[0].num_views()) as u32,
            rows,
            labels: labels_differ.then_some(labels),
            crops: crops_differ.then_some(crops),
            unequal_tokens,
            unequal_bits,
        }))
    }

    /// Tokens and bits that differ.
    fn tokens(&mut self, found: &mut CacheDiff, rows: [usize; 2]) -> Result<(usize, usize), CacheError> {
        let bits = self.unequal_by_bit.len();
        for ((cache, row), packed) in self.caches.into_iter().zip(rows).zip(&mut self.packed) {
            cache.read_packed(row..row + 1, packed)?;
        }
        let num_tokens = self.tokens[0].len();
        found.tokens += num_tokens as u64;
        found.bits += (num_tokens * bits) as u64;
        let (mut unequal_tokens, mut unequal_bits) = (0, 0);
        if self.packed[0] != self.packed[1] {
            for (packed, tokens) in self.packed.iter().zip(&mut self.tokens) {
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
        Ok((unequal_tokens, unequal_bits))
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
