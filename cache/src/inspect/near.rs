//! Grids that are nearly those of another image: the same token at most places.
//!
//! Comparing all pairs is out of the question, so only pairs are compared that agree in a *band*: the tokens at three
//! places of the grid, hashed. There are up to 16 bands, which share no place. Two grids that agree at a share p of all
//! places have a band in common with a probability of about 1 - (1 - p^3)^16: 0.88 for p = 0.5, 0.998 for p = 0.7. What
//! is found that way is then compared token by token, so nothing is reported that is not so.

use crate::error::CacheError;
use crate::format::grid::GridSpec;
use crate::parallel;
use crate::permutation::{Permutation, derive_key, mix};
use crate::read::cache::TokenCache;
use crate::unpack::unpack;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering};

/// Positions of a grid that make a band.
const BAND_PLACES: usize = 3;

/// Bands of a grid, where memory and the grid allow them.
const BANDS_MAX: usize = 16;

/// Memory for the bands of all images, in bytes; more images get fewer bands, but not fewer than [`BANDS_MIN`].
const SKETCH_BYTES: usize = 128 << 20;

/// With these a pair of images with half of their tokens equal is found with a probability of 41 %: `1 - (1 - 0.5^3)^4`.
const BANDS_MIN: usize = 4;

/// Images with the same band that are all compared with each other. In a larger crowd (blank corners, white backgrounds)
/// each is compared with the first one and with the two before it.
const CROWD: usize = 32;

/// Pairs that one band may propose: a bound on memory.
const PROPOSALS_MAX: usize = 250_000;

/// Pairs that are listed; all of them are counted.
pub(super) const LISTED_PAIRS: usize = 10_000;

/// Two images whose first views have the same token at half of all positions or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NearPair {
    /// Row of the first view of the earlier image.
    pub first: usize,
    /// Row of the first view of the later image.
    pub row: usize,
    /// Positions of the grid with the same token.
    pub equal_tokens: usize,
    /// Bits of the grid that are equal.
    pub equal_bits: usize,
}

/// What was found: the pairs that agree most, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NearDuplicates {
    /// Pairs that were found.
    pub pairs: usize,
    /// Bands by which pairs were looked for.
    pub bands: usize,
    /// Whether a band proposed more pairs than are compared, so that some may be missing.
    pub is_cut_short: bool,
    /// The pairs that agree most, the best one first.
    pub listed: Vec<NearPair>,
}

/// Makes the bands of a grid.
pub(super) struct Sketcher {
    /// `[bands]` of places in the grid.
    places: Vec<Vec<usize>>,
}

impl Sketcher {
    pub(super) fn new(grid: GridSpec, num_images: usize) -> Sketcher {
        let num_tokens = grid.num_tokens();
        let affordable = SKETCH_BYTES / (4 * num_images.max(1));
        let bands = affordable.clamp(BANDS_MIN, BANDS_MAX).min(num_tokens / BAND_PLACES).max(1);
        // Scattered over the grid: neighbours often agree for the same reason.
        let scattered = Permutation::new(derive_key(0, 0, 0), num_tokens as u64);
        let places: Vec<usize> = (0..num_tokens as u64).map(|i| scattered.apply(i) as usize).collect();
        Sketcher { places: places.chunks(BAND_PLACES).take(bands).map(<[usize]>::to_vec).collect() }
    }

    pub(super) fn bands(&self) -> usize {
        self.places.len()
    }

    /// The hash of each band.
    pub(super) fn bands_of<'a>(&'a self, tokens: &'a [u32]) -> impl Iterator<Item = u32> + 'a {
        const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
        let joined = |places: &[usize]| {
            places.iter().fold(0u64, |sum, place| sum.wrapping_mul(FACTOR).wrapping_add(tokens[*place].into()))
        };
        self.places.iter().map(move |places| (mix(joined(places)) >> 32) as u32)
    }
}

/// Compares what the bands propose. `hashes` are those of the whole grids, by row: rows with equal ones are duplicates,
/// which are reported elsewhere.
pub(super) fn find(
    cache: &TokenCache,
    sketches: &[u32],
    hashes: &[u64],
    threads: usize,
    cancel: &AtomicBool,
) -> Result<NearDuplicates, CacheError> {
    let views = cache.num_views();
    let bands = sketches.len().checked_div(cache.num_images()).unwrap_or(0);
    let proposed = parallel::map(threads, bands, &mut |_| {}, |band, _| {
        if cancel.load(Ordering::Relaxed) {
            return Err(CacheError::Cancelled);
        }
        let of_image = |(image, bands): (usize, &[u32])| u64::from(bands[band]) << 32 | image as u64;
        let mut images: Vec<u64> = sketches.chunks_exact(bands).enumerate().map(of_image).collect();
        images.sort_unstable();
        let is_duplicate = |a: u32, b: u32| hashes[a as usize * views] == hashes[b as usize * views];
        Ok(propose(&images, &is_duplicate))
    })?;
    let is_cut_short = proposed.iter().any(|pairs| pairs.len() >= PROPOSALS_MAX);
    let mut pairs = proposed.concat();
    pairs.sort_unstable();
    pairs.dedup();
    let chunk = pairs.len().div_ceil(4 * threads.max(1)).max(1);
    let chunks: Vec<_> = pairs.chunks(chunk).collect();
    let compared = parallel::map(threads, chunks.len(), &mut |_| {}, |chunk, _| {
        let mut compare = Compare::new(cache);
        let mut near = Vec::new();
        for (a, b) in chunks[chunk] {
            if cancel.load(Ordering::Relaxed) {
                return Err(CacheError::Cancelled);
            }
            near.extend(compare.rows(*a as usize * views, *b as usize * views)?);
        }
        Ok(near)
    })?;
    let mut listed = compared.concat();
    let pairs = listed.len();
    listed.sort_unstable_by_key(|pair| (std::cmp::Reverse(pair.equal_tokens), pair.first, pair.row));
    listed.truncate(LISTED_PAIRS);
    Ok(NearDuplicates { pairs, bands, is_cut_short, listed })
}

/// Pairs of images with the same band: `images` are sorted, the band in the upper half, the image in the lower one.
fn propose(images: &[u64], is_duplicate: &dyn Fn(u32, u32) -> bool) -> Vec<(u32, u32)> {
    let mut pairs = Vec::new();
    for crowd in images.chunk_by(|a, b| a >> 32 == b >> 32) {
        for (i, b) in crowd.iter().enumerate() {
            let with = if crowd.len() <= CROWD { 0..i } else { i.saturating_sub(2)..i };
            let first = (with.start > 0).then(|| &crowd[0]);
            for a in crowd[with].iter().chain(first) {
                let pair = (*a as u32, *b as u32);
                if pairs.len() < PROPOSALS_MAX && !is_duplicate(pair.0, pair.1) {
                    pairs.push(pair);
                }
            }
        }
    }
    pairs
}

/// Compares rows token by token.
struct Compare<'a> {
    cache: &'a TokenCache,
    packed: [Vec<u8>; 2],
    tokens: [Vec<u32>; 2],
}

impl Compare<'_> {
    fn new(cache: &TokenCache) -> Compare<'_> {
        let tokens = || vec![0; cache.grid().num_tokens()];
        Compare { cache, packed: Default::default(), tokens: [tokens(), tokens()] }
    }

    fn rows(&mut self, first: usize, row: usize) -> Result<Option<NearPair>, CacheError> {
        let bits = self.cache.grid().bits;
        for ((row, packed), tokens) in [first, row].into_iter().zip(&mut self.packed).zip(&mut self.tokens) {
            self.cache.read_packed(row..row + 1, packed)?;
            unpack(packed, bits, tokens);
        }
        let [a, b] = &self.tokens;
        let equal_tokens = a.iter().zip(b).filter(|(a, b)| a == b).count();
        let different: u32 = a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum();
        let equal_bits = a.len() * bits as usize - different as usize;
        let is_near = 2 * equal_tokens >= a.len();
        Ok(is_near.then_some(NearPair { first, row, equal_tokens, equal_bits }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_share_no_place_and_there_is_always_one() {
        for (side, images, bands) in [(16, 1000, 16), (4, 1000, 5), (1, 1000, 1), (16, 100_000_000, 4)] {
            let sketcher = Sketcher::new(GridSpec { height: side, width: side, bits: 18 }, images);
            assert_eq!(sketcher.bands(), bands, "{side} x {side}");
            let mut places = sketcher.places.concat();
            places.sort_unstable();
            let count = places.len();
            places.dedup();
            assert_eq!(places.len(), count);
        }
    }

    #[test]
    fn a_crowd_proposes_a_few_pairs_for_each_and_a_group_all() {
        let group: Vec<u64> = (0..10).collect();
        assert_eq!(propose(&group, &|_, _| false).len(), 45);
        let crowd: Vec<u64> = (0..1000).map(|image| 7 << 32 | image).collect();
        assert!(propose(&crowd, &|_, _| false).len() < 3 * 1000);
        assert!(propose(&crowd, &|_, _| true).is_empty());
    }
}
