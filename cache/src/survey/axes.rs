//! The two directions in which the bits of a sample of rows are spread most, by orthogonal iteration: the first principal
//! components, without a matrix of all pairs of bits.

use super::byte_sums::{ByteSums, for_each_set_bit};
use crate::error::CacheError;
use crate::permutation::mix;
use crate::read::cache::TokenCache;
use std::sync::atomic::{AtomicBool, Ordering};

/// Rows of the sample, evenly over the cache.
const SAMPLE_ROWS: usize = 8192;

/// Directions that are followed; more than are wanted, so that those converge soon.
const FOLLOWED: usize = 4;

const ITERATIONS: usize = 12;

/// How far the map reaches beyond the sample, as a share of the sample's spread.
const MARGIN: f32 = 0.055;

/// Where rows lie on the map.
pub(super) struct Axes {
    sums: ByteSums<2>,
    /// What the sums of the sample span, and a little more: from the first to the second.
    spans: [[f32; 2]; 2],
}

impl Axes {
    /// From a sample of the rows of `cache`.
    pub(super) fn of(cache: &TokenCache, cancel: &AtomicBool) -> Result<Axes, CacheError> {
        let row_bytes = cache.grid().row_bytes();
        let step = cache.num_rows().div_ceil(SAMPLE_ROWS).max(1);
        let (mut sample, mut packed) = (Vec::new(), Vec::new());
        for row in (0..cache.num_rows()).step_by(step) {
            cache.read_unchecked(row..row + 1, &mut packed)?;
            sample.extend_from_slice(&packed);
        }
        let directions = principal_directions(&sample, row_bytes, cancel)?;
        let two: Vec<[f32; 2]> = directions.iter().map(|weights| [weights[0], weights[1]]).collect();
        let sums = ByteSums::new(&two);
        let mut spans = [[f32::MAX, f32::MIN]; 2];
        for grid in sample.chunks_exact(row_bytes) {
            for (span, value) in spans.iter_mut().zip(sums.of(grid)) {
                *span = [span[0].min(value), span[1].max(value)];
            }
        }
        Ok(Axes { sums, spans: spans.map(widened) })
    }

    /// The place of a packed grid, 0 to 65535 each. Rows that lie outside, since none of the sample lies so far away, lie at the
    /// edge.
    pub(super) fn place(&self, grid: &[u8]) -> [u16; 2] {
        let sums = self.sums.of(grid);
        std::array::from_fn(|i| super::quantized(sums[i] - self.spans[i][0], self.spans[i][1] - self.spans[i][0]))
    }
}

fn widened([start, end]: [f32; 2]) -> [f32; 2] {
    let spread = end - start;
    // All rows at one place, or none at all: that place is the middle.
    if spread > 0.0 { [start - MARGIN * spread, end + MARGIN * spread] } else { [start - 0.5, start + 0.5] }
}

type Directions = Vec<[f32; FOLLOWED]>;

/// Unit vectors `[bits][direction]`, the one of the largest spread first.
fn principal_directions(sample: &[u8], row_bytes: usize, cancel: &AtomicBool) -> Result<Directions, CacheError> {
    let bits = 8 * row_bytes;
    let noise = |bit: usize, i: usize| (mix((FOLLOWED * bit + i) as u64) >> 40) as f32 / (1 << 23) as f32 - 1.0;
    let mut directions: Directions = (0..bits).map(|bit| std::array::from_fn(|i| noise(bit, i))).collect();
    orthonormalize(&mut directions);
    for _ in 0..ITERATIONS {
        if cancel.load(Ordering::Relaxed) {
            return Err(CacheError::Cancelled);
        }
        let sums = ByteSums::new(&directions);
        let mut along: Vec<[f32; FOLLOWED]> = sample.chunks_exact(row_bytes).map(|grid| sums.of(grid)).collect();
        // Around the mean of the sample, so that its direction is not the first one that is found.
        let count = along.len().max(1) as f64;
        let mean: [f32; FOLLOWED] =
            std::array::from_fn(|i| (along.iter().map(|place| f64::from(place[i])).sum::<f64>() / count) as f32);
        along.iter_mut().for_each(|place| place.iter_mut().zip(mean).for_each(|(value, mean)| *value -= mean));
        directions.fill([0.0; FOLLOWED]);
        for (grid, place) in sample.chunks_exact(row_bytes).zip(&along) {
            for_each_set_bit(grid, |bit| {
                directions[bit].iter_mut().zip(place).for_each(|(sum, value)| *sum += value);
            });
        }
        orthonormalize(&mut directions);
    }
    Ok(directions)
}

/// Gram-Schmidt, in order. A direction in which nothing is spread becomes zero.
fn orthonormalize(directions: &mut [[f32; FOLLOWED]]) {
    let dot = |directions: &[[f32; FOLLOWED]], i: usize, j: usize| -> f64 {
        directions.iter().map(|weights| f64::from(weights[i]) * f64::from(weights[j])).sum()
    };
    for i in 0..FOLLOWED {
        for before in 0..i {
            let shared = dot(directions, i, before) as f32;
            directions.iter_mut().for_each(|weights| weights[i] -= shared * weights[before]);
        }
        let length = dot(directions, i, i).sqrt();
        let scale = if length > 1e-6 { (1.0 / length) as f32 } else { 0.0 };
        directions.iter_mut().for_each(|weights| weights[i] *= scale);
    }
}
