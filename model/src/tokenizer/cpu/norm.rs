//! Group norm, alone or followed by swish, from sums that the convolution before it kept.

use super::map::Map;
use crate::kernels::simd::{self, Kernel, Level, Simd};
use rayon::prelude::*;

const GROUPS: usize = 32;
const EPS: f64 = 1e-6;

/// `value * scale + shift` for every channel: a norm with the statistics worked in.
pub(crate) struct Affine {
    scale: Vec<f32>,
    shift: Vec<f32>,
    swish: bool,
}

impl Affine {
    /// The norm of `x` with these weights and biases, in f64 and rounded once.
    pub(super) fn of(x: &Map, weight: &[f32], bias: &[f32], swish: bool) -> Affine {
        let c = x.c;
        assert!(c.is_multiple_of(GROUPS) && weight.len() == c && bias.len() == c);
        let sums = x.total();
        let (first, second) = sums.split_at(c);
        let width = c / GROUPS;
        let count = (x.h * x.w * width) as f64;
        let (mut scale, mut shift) = (vec![0.0; c], vec![0.0; c]);
        for group in 0..GROUPS {
            let channels = group * width..(group + 1) * width;
            let mean = first[channels.clone()].iter().sum::<f64>() / count;
            let square = second[channels.clone()].iter().sum::<f64>() / count;
            let deviation = ((square - mean * mean).max(0.0) + EPS).sqrt();
            for channel in channels {
                let factor = f64::from(weight[channel]) / deviation;
                scale[channel] = factor as f32;
                shift[channel] = (f64::from(bias[channel]) - mean * factor) as f32;
            }
        }
        Affine { scale, shift, swish }
    }

    /// Applies it to `x`, into `y`.
    pub(super) fn apply(&self, level: Level, x: &Map, y: &mut Map) {
        y.reshape(x.h, x.w, x.c);
        let row = x.row();
        let rows = y.data.par_chunks_mut(row).zip(x.data.par_chunks(row));
        rows.for_each(|(y, x)| level.run(Row { affine: self, x: Some(x), y }));
    }

    /// Applies it in place, sums included, for another norm to follow; not with swish, after which they are unknown.
    pub(crate) fn apply_with_sums(&self, level: Level, x: &mut Map) {
        assert!(!self.swish);
        self.apply_in_place(level, x);
        let count = (x.h * x.w) as f64;
        let mut sums = x.total();
        let (first, second) = sums.split_at_mut(x.c);
        for channel in 0..x.c {
            let (scale, shift) = (f64::from(self.scale[channel]), f64::from(self.shift[channel]));
            let (sum, square) = (first[channel], second[channel]);
            first[channel] = scale * sum + count * shift;
            second[channel] = scale * scale * square + 2.0 * scale * shift * sum + count * shift * shift;
        }
        x.sums = sums;
    }

    /// Applies it in place.
    pub(crate) fn apply_in_place(&self, level: Level, x: &mut Map) {
        let row = x.row();
        x.data.par_chunks_mut(row).for_each(|y| level.run(Row { affine: self, x: None, y }));
    }
}

/// A row of pixels; without `x`, of `y` itself.
struct Row<'a> {
    affine: &'a Affine,
    x: Option<&'a [f32]>,
    y: &'a mut [f32],
}

impl Kernel for Row<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Affine { scale, shift, swish } = self.affine;
        let c = scale.len();
        assert!(shift.len() == c && c.is_multiple_of(S::LANES) && self.y.len().is_multiple_of(c));
        assert!(self.x.is_none_or(|x| x.len() == self.y.len()));
        let to = self.y.as_mut_ptr();
        let from = self.x.map_or(to.cast_const(), <[f32]>::as_ptr);
        for pixel in (0..self.y.len()).step_by(c) {
            for channel in (0..c).step_by(S::LANES) {
                // SAFETY: `channel + LANES <= c` and `pixel + c` is at most the length of both slices.
                unsafe {
                    let (scale, shift) = (s.load(scale.as_ptr().add(channel)), s.load(shift.as_ptr().add(channel)));
                    let value = s.fma(s.load(from.add(pixel + channel)), scale, shift);
                    s.store(to.add(pixel + channel), if *swish { simd::swish(s, value) } else { value });
                }
            }
        }
    }
}
