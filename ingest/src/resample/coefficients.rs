//! The weights of a filter of Pillow's along one axis, as integers with 22 fraction bits.

use super::filter::Filter;
use std::ops::Range;

/// Fraction bits of a weight: 32 bits less 8 of the sample less 2 of headroom.
pub(crate) const FRACTION_BITS: u32 = 22;

/// Half, in that fixed point: added before the shift it rounds.
pub(crate) const HALF: i32 = 1 << (FRACTION_BITS - 1);

/// The weights for a range of output positions along one axis.
#[derive(Debug, Default)]
pub(crate) struct Coefficients {
    /// For every output position: the first input position, and its weights' place in `weights`.
    taps: Vec<(u32, Range<usize>)>,
    weights: Vec<i32>,
    /// The weights of one output before they are rounded.
    row: Vec<f64>,
}

/// What a resize along one axis does to distances.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    /// Distance between outputs, in inputs.
    scale: f64,
    /// Inputs to a unit of the filter: a filter never becomes narrower than the inputs lie apart.
    filter_scale: f64,
    /// Reach of one output, in inputs.
    support: f64,
}

impl Stretch {
    fn new(n_in: u32, n_out: u32, filter: Filter) -> Stretch {
        let scale = f64::from(n_in) / f64::from(n_out);
        let filter_scale = scale.max(1.0);
        Stretch { scale, filter_scale, support: filter.support() * filter_scale }
    }

    fn center(&self, output: u32) -> f64 {
        (f64::from(output) + 0.5) * self.scale
    }
}

/// The input positions of an output whose center lies at `center`.
fn taps(center: f64, support: f64, n_in: u32) -> Range<u32> {
    // `as` truncates towards zero and saturates, as the reference's casts do in this range.
    let lo = (center - support + 0.5).max(0.0) as u32;
    lo..((center + support + 0.5) as u32).min(n_in)
}

/// The input positions that the outputs `wanted`, at least one, read in a resize from `n_in` to `n_out` positions.
pub(crate) fn source_range(n_in: u32, n_out: u32, wanted: Range<u32>, filter: Filter) -> Range<u32> {
    if n_in == n_out {
        return wanted;
    }
    let stretch = Stretch::new(n_in, n_out, filter);
    let of = |o: u32| taps(stretch.center(o), stretch.support, n_in);
    of(wanted.start).start..of(wanted.end - 1).end
}

impl Coefficients {
    /// Weights for the outputs `wanted` of a resize from `n_in` to `n_out` positions, `wanted` within `0..n_out`.
    pub(crate) fn compute(&mut self, n_in: u32, n_out: u32, wanted: Range<u32>, filter: Filter) {
        self.taps.clear();
        self.weights.clear();
        let stretch = Stretch::new(n_in, n_out, filter);
        let per_filter_scale = 1.0 / stretch.filter_scale;
        let row = &mut self.row;
        for o in wanted {
            let center = stretch.center(o);
            let taps = taps(center, stretch.support, n_in);
            row.clear();
            row.extend(taps.clone().map(|i| filter.weight((f64::from(i) - center + 0.5) * per_filter_scale)));
            let sum: f64 = row.iter().fold(0.0, |acc, w| acc + w);
            let start = self.weights.len();
            let scaled = |w: f64| if sum == 0.0 { w } else { w / sum };
            self.weights.extend(row.iter().map(|&w| to_fixed_point(scaled(w))));
            self.taps.push((taps.start, start..self.weights.len()));
        }
    }

    /// Number of output positions.
    pub(crate) fn len(&self) -> usize {
        self.taps.len()
    }

    /// First input position and weights of the `i`-th wanted output.
    pub(crate) fn get(&self, i: usize) -> (usize, &[i32]) {
        let (first, range) = &self.taps[i];
        (*first as usize, &self.weights[range.clone()])
    }

    /// For every wanted output: first input position and weights.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        (0..self.len()).map(|i| self.get(i))
    }

    /// The input positions that the wanted outputs read. Both ends grow with the output, so the ends of the range are
    /// those of the first and the last output.
    pub(crate) fn source(&self) -> Range<u32> {
        let Some((first, _)) = self.taps.first() else { return 0..0 };
        let (last, weights) = self.get(self.len() - 1);
        *first..(last + weights.len()) as u32
    }
}

/// Rounds to the nearest, halves away from 0.
fn to_fixed_point(weight: f64) -> i32 {
    // `as` truncates towards zero.
    (weight * f64::from(1 << FRACTION_BITS) + 0.5f64.copysign(weight)) as i32
}
