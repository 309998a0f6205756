//! Grids that are nearly those of another image: the same token at most places.
//!
//! Comparing all pairs is out of the question, so only pairs are compared that agree in a *band*: the tokens at three
//! places of the grid, hashed. There are up to 16 bands, which share no place. Two grids that agree at a share p of all
//! places have a band in common with a probability of about 1 - (1 - p^3)^16: 0.88 for p = 0.5, 0.998 for p = 0.7. What
//! is found that way is then compared token by token, so nothing is reported that is not so.
//!
//! Fewer tokens that differ than there are bands leave a band in which they agree: such pairs are found for sure, as long as
//! no crowd of images with the same band is thinned. [`crate::leak()`] finds pairs up to any distance.

use crate::distance::nearest::Nearest;
use crate::error::CacheError;
use crate::format::grid::GridSpec;
use crate::parallel;
use crate::permutation::{Permutation, derive_key, mix};
use crate::read::cache::TokenCache;
use crate::unpack::unpack;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Positions of a grid that make a band.
const BAND_PLACES: usize = 3;

/// Bands of a grid, where memory and the grid allow them.
const BANDS_MAX: usize = 16;

/// Memory for the bands of all images, in bytes; more images get fewer bands, but not fewer than [`BANDS_MIN`].
const SKETCH_BYTES: usize = 128 << 20;

/// With these a pair of images with half of their tokens equal is found with a probability of 41 %: `1 - (1 - 0.5^3)^4`.
const BANDS_MIN: usize = 4;

/// Memory for the bands that are held at a time. Of more images fewer bands are held, and the others made in further
/// passes over the first views.
const HELD_BYTES: usize = 104 << 20;

/// The same in the pass over all rows, which holds other things as well.
const HELD_BYTES_FIRST: usize = 52 << 20;

/// Images of one band that are sorted at a time.
const PART_IMAGES: usize = 1 << 20;

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
    /// Pairs of first views that differ in at most so many bits were found for sure. `None` where so many images have a band
    /// in common that not all of them were compared.
    pub guaranteed_distance: Option<usize>,
    /// The pairs that agree most, the best one first.
    pub listed: Vec<NearPair>,
}

/// Makes the bands of a grid.
pub(super) struct Sketcher {
    /// `[bands]` of places in the grid.
    places: Vec<Vec<usize>>,
    first_bands: usize,
    held_bands: usize,
}

impl Sketcher {
    pub(super) fn new(grid: GridSpec, num_images: usize) -> Sketcher {
        let num_tokens = grid.num_tokens();
        let affordable = SKETCH_BYTES / (4 * num_images.max(1));
        let bands = affordable.clamp(BANDS_MIN, BANDS_MAX).min(num_tokens / BAND_PLACES).max(1);
        // Scattered over the grid: neighbours often agree for the same reason.
        let scattered = Permutation::new(derive_key(0, 0, 0), num_tokens as u64);
        let places: Vec<usize> = (0..num_tokens as u64).map(|i| scattered.apply(i) as usize).collect();
        let held = |bytes: usize| (bytes / (4 * num_images.max(1))).clamp(1, bands);
        let places = places.chunks(BAND_PLACES).take(bands).map(<[usize]>::to_vec).collect();
        Sketcher { places, first_bands: held(HELD_BYTES_FIRST), held_bands: held(HELD_BYTES) }
    }

    pub(super) fn bands(&self) -> usize {
        self.places.len()
    }

    /// Bands that the pass over all rows makes, the first ones.
    pub(super) fn first_bands(&self) -> usize {
        self.first_bands
    }

    /// Passes over the rows that make all bands.
    pub(super) fn passes(&self) -> usize {
        self.held().count()
    }

    /// The bands that are held together, in order.
    fn held(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let (first, all) = (self.first_bands, self.bands());
        let more = (first..all).step_by(self.held_bands).map(move |start| start..(start + self.held_bands).min(all));
        std::iter::once(0..first).chain(more)
    }

    /// The hash of each of these bands.
    pub(super) fn bands_of<'a>(&'a self, bands: Range<usize>, tokens: &'a [u32]) -> impl Iterator<Item = u32> + 'a {
        const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
        let joined = |places: &[usize]| {
            places.iter().fold(0u64, |sum, place| sum.wrapping_mul(FACTOR).wrapping_add(tokens[*place].into()))
        };
        self.places[bands].iter().map(move |places| (mix(joined(places)) >> 32) as u32)
    }

    /// `[bands, images]`: these bands of every image's first view.
    fn sketch(
        &self,
        cache: &TokenCache,
        bands: Range<usize>,
        (threads, cancel): (usize, &AtomicBool),
        progress: &mut dyn FnMut(u64),
    ) -> Result<Vec<AtomicU32>, CacheError> {
        let num_images = cache.num_images();
        let sketches: Vec<AtomicU32> = (0..bands.len() * num_images).map(|_| AtomicU32::new(0)).collect();
        let groups = cache.group_rows();
        parallel::map(threads, groups.len(), progress, |group, report| {
            let mut tokens = vec![0; cache.grid().num_tokens()];
            visit_first_views(cache, groups[group].clone(), cancel, &mut |image, packed| {
                unpack(packed, cache.grid().bits, &mut tokens);
                let slots = sketches[image..].iter().step_by(num_images);
                let found = self.bands_of(bands.clone(), &tokens);
                slots.zip(found).for_each(|(slot, band)| slot.store(band, Ordering::Relaxed));
            })?;
            report(groups[group].len() as u64);
            Ok(())
        })?;
        Ok(sketches)
    }
}

/// Calls `visit` with each image that has `rows` and the packed grid of its first view.
fn visit_first_views(
    cache: &TokenCache,
    rows: Range<usize>,
    cancel: &AtomicBool,
    visit: &mut dyn FnMut(usize, &[u8]),
) -> Result<(), CacheError> {
    const BLOCK_ROWS: usize = 1024;
    let (views, row_bytes) = (cache.num_views(), cache.grid().row_bytes());
    // Where an image has many views, the others are not worth reading.
    let block_rows = if views <= 4 { BLOCK_ROWS.next_multiple_of(views) } else { views };
    let mut packed = Vec::new();
    for start in rows.clone().step_by(block_rows) {
        if cancel.load(Ordering::Relaxed) {
            return Err(CacheError::Cancelled);
        }
        let end = if views <= 4 { (start + block_rows).min(rows.end) } else { start + 1 };
        cache.read_packed(start..end, &mut packed)?;
        let first_views = packed.chunks_exact(row_bytes).step_by(views);
        (start / views..).zip(first_views).for_each(|(image, packed)| visit(image, packed));
    }
    Ok(())
}

/// Compares what the bands propose. `sketches` are the first bands of all images; `hashes` are those of the whole grids,
/// by row: rows with equal ones are duplicates, which are reported elsewhere. `progress` is called with numbers of rows.
pub(super) fn find(
    cache: &TokenCache,
    sketcher: &Sketcher,
    sketches: Vec<AtomicU32>,
    hashes: &[AtomicU32],
    (threads, cancel): (usize, &AtomicBool),
    progress: &mut dyn FnMut(u64),
) -> Result<NearDuplicates, CacheError> {
    let mut proposed = Proposed::default();
    let mut sketches = sketches;
    for bands in sketcher.held() {
        if bands.start > 0 {
            // Before the next ones are made.
            drop(std::mem::take(&mut sketches));
            sketches = sketcher.sketch(cache, bands, (threads, cancel), progress)?;
        }
        proposed.add_bands(cache, &sketches, hashes, threads, cancel)?;
    }
    drop(sketches);
    let Proposed { mut pairs, is_cut_short, is_thinned } = proposed;
    pairs.sort_unstable();
    pairs.dedup();
    let (pairs, listed) = compare_all(cache, &pairs, threads, cancel)?;
    let bands = if cache.num_images() == 0 { 0 } else { sketcher.bands() };
    let guaranteed_distance = (!is_cut_short && !is_thinned).then(|| sketcher.bands() - 1);
    Ok(NearDuplicates { pairs, bands, is_cut_short, guaranteed_distance, listed })
}

/// How many of the proposed pairs are near each other, and the nearest of them.
fn compare_all(
    cache: &TokenCache,
    pairs: &[(u32, u32)],
    threads: usize,
    cancel: &AtomicBool,
) -> Result<(usize, Vec<NearPair>), CacheError> {
    let views = cache.num_views();
    let chunk = pairs.len().div_ceil(4 * threads.max(1)).max(1);
    let chunks: Vec<_> = pairs.chunks(chunk).collect();
    let compared = parallel::map(threads, chunks.len(), &mut |_| {}, |chunk, _| {
        let mut compare = Compare::new(cache);
        let mut near = Nearest::new(LISTED_PAIRS);
        for (a, b) in chunks[chunk] {
            if cancel.load(Ordering::Relaxed) {
                return Err(CacheError::Cancelled);
            }
            if let Some(pair) = compare.rows(*a as usize * views, *b as usize * views)? {
                near.push((Reverse(pair.equal_tokens), pair.first, pair.row, pair.equal_bits));
            }
        }
        Ok(near)
    })?;
    let mut near = Nearest::new(LISTED_PAIRS);
    compared.into_iter().for_each(|part| near.add(part));
    let count = near.count as usize;
    let pair = |(Reverse(equal_tokens), first, row, equal_bits)| NearPair { first, row, equal_tokens, equal_bits };
    Ok((count, near.into_sorted().into_iter().map(pair).collect()))
}

/// Pairs of images that have a band in common.
#[derive(Debug, Default)]
struct Proposed {
    pairs: Vec<(u32, u32)>,
    /// Whether a band proposed as many as it may.
    is_cut_short: bool,
    /// Whether of some images with the same band not every two are a pair.
    is_thinned: bool,
}

impl Proposed {
    /// Adds what some bands propose.
    fn add_bands(
        &mut self,
        cache: &TokenCache,
        sketches: &[AtomicU32],
        hashes: &[AtomicU32],
        threads: usize,
        cancel: &AtomicBool,
    ) -> Result<(), CacheError> {
        let (views, num_images) = (cache.num_views(), cache.num_images());
        let bands: Vec<&[AtomicU32]> = sketches.chunks(num_images.max(1)).collect();
        let parts = num_images.div_ceil(PART_IMAGES).max(1);
        let limit = PROPOSALS_MAX / parts;
        let hash = |image: u32| hashes[image as usize * views].load(Ordering::Relaxed);
        let is_duplicate = |a: u32, b: u32| hash(a) == hash(b);
        let found = parallel::map(threads, bands.len() * parts, &mut |_| {}, |item, _| {
            if cancel.load(Ordering::Relaxed) {
                return Err(CacheError::Cancelled);
            }
            let part = (item % parts) as u64;
            // Hashes are spread evenly over the parts.
            let is_of_part = |band: u32| (u64::from(band) * parts as u64) >> 32 == part;
            let with_image = bands[item / parts].iter().map(|band| band.load(Ordering::Relaxed)).zip(0u64..);
            let of_part = with_image.filter(|(band, _)| is_of_part(*band));
            let mut images: Vec<u64> = of_part.map(|(band, image)| u64::from(band) << 32 | image).collect();
            images.sort_unstable();
            let mut proposed = Proposed::default();
            proposed.propose(&images, limit, &is_duplicate);
            Ok(proposed)
        })?;
        for part in found {
            self.pairs.extend(part.pairs);
            self.is_cut_short |= part.is_cut_short;
            self.is_thinned |= part.is_thinned;
        }
        Ok(())
    }

    /// Pairs of images with the same band, at most `limit`: `images` are sorted, the band in the upper half, the image in the
    /// lower one.
    fn propose(&mut self, images: &[u64], limit: usize, is_duplicate: &dyn Fn(u32, u32) -> bool) {
        for crowd in images.chunk_by(|a, b| a >> 32 == b >> 32) {
            self.is_thinned |= crowd.len() > CROWD;
            for (i, b) in crowd.iter().enumerate() {
                let with = if crowd.len() <= CROWD { 0..i } else { i.saturating_sub(2)..i };
                let first = (with.start > 0).then(|| &crowd[0]);
                for a in crowd[with].iter().chain(first) {
                    let pair = (*a as u32, *b as u32);
                    if self.pairs.len() < limit && !is_duplicate(pair.0, pair.1) {
                        self.pairs.push(pair);
                    }
                }
            }
        }
        self.is_cut_short |= self.pairs.len() >= limit;
    }
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
        for (side, images, bands, ends) in [
            (16, 1000, 16, vec![16]),
            (4, 1000, 5, vec![5]),
            (1, 1000, 1, vec![1]),
            (16, 12_800_000, 4, vec![1, 3, 4]),
            (16, 100_000_000, 4, vec![1, 2, 3, 4]),
        ] {
            let sketcher = Sketcher::new(GridSpec { height: side, width: side, bits: 18 }, images);
            let held: Vec<Range<usize>> = sketcher.held().collect();
            let held_ends: Vec<usize> = held.iter().map(|bands| bands.end).collect();
            assert_eq!((sketcher.bands(), sketcher.first_bands()), (bands, ends[0]), "{side} x {side}");
            assert_eq!(held_ends, ends, "{side} x {side}");
            assert!(held[0].start == 0 && held.is_sorted_by(|before, after| before.end == after.start));
            let mut places = sketcher.places.concat();
            places.sort_unstable();
            let count = places.len();
            places.dedup();
            assert_eq!(places.len(), count);
        }
    }

    #[test]
    fn a_crowd_proposes_a_few_pairs_for_each_and_a_group_all() {
        let propose = |images: &[u64], limit, is_duplicate| {
            let mut proposed = Proposed::default();
            proposed.propose(images, limit, &|_, _| is_duplicate);
            (proposed.pairs.len(), proposed.is_thinned, proposed.is_cut_short)
        };
        let group: Vec<u64> = (0..10).collect();
        assert_eq!(propose(&group, 100, false), (45, false, false));
        assert_eq!(propose(&group, 40, false), (40, false, true));
        let crowd: Vec<u64> = (0..1000).map(|image| 7 << 32 | image).collect();
        let (pairs, is_thinned, is_cut_short) = propose(&crowd, 10_000, false);
        assert!(pairs < 3 * 1000 && is_thinned && !is_cut_short);
        assert_eq!(propose(&crowd, 10_000, true).0, 0);
    }
}
