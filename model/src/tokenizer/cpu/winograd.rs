//! 3x3 convolution by Winograd's minimal filtering: a quarter of the multiplications, or four ninths.
//!
//! A tile of M x M results needs N x N = (M + 2) x (M + 2) inputs. Both inputs and weights are evaluated at N points in each
//! direction (the "transforms"), multiplied point by point, which summed over input channels is a matrix product for each
//! point, and the results are interpolated. (Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", 2015.)
//!
//! Rounding depends on the points. For M = 4 the usual ones (0, +-1, +-2, infinity) amplify it tenfold; with
//! (0, +-sqrt(1/2), +-sqrt(2), infinity), which are balanced about 1, the encoder's output is as near to the exact one as that
//! of plain summation (`docs/benchmarks/2026-11-22-encode.md`).

use super::map::Map;
use super::{Output, Scratch};
use crate::kernels::panels::multiply_panel;
use crate::kernels::simd::{Kernel, LANES_MAX, Level, Simd};
use crate::kernels::tile::PANEL;
use rayon::prelude::*;

/// Tiles per matrix product.
const TILES: usize = 32;

/// Floats between the planes of two points, beyond what they hold: so that planes do not all fall into the same sets of the
/// first-level cache.
const PAD: usize = 16;

/// Most points in a direction.
const N_MAX: usize = 6;

/// A choice of tile and points.
pub(super) trait Points: Copy + Default + Send + Sync + std::fmt::Debug {
    /// Side of a tile of results.
    const M: usize;
    /// Points in each direction: M + 2.
    const N: usize;

    /// Inputs to their values at the points. Of both arrays the first N count.
    fn input<S: Simd>(s: S, d: [S::V; N_MAX]) -> [S::V; N_MAX];

    /// Products at the points to results. Of `m` the first N count, of the results the first M.
    fn output<S: Simd>(s: S, m: [S::V; N_MAX]) -> [S::V; 4];

    /// The three weights of a line at the points.
    fn weight(g: [f64; 3]) -> [f64; N_MAX];
}

/// Tiles of 2 x 2: points 0, 1, -1, infinity.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Two;

impl Points for Two {
    const M: usize = 2;
    const N: usize = 4;

    #[inline(always)]
    fn input<S: Simd>(s: S, d: [S::V; N_MAX]) -> [S::V; N_MAX] {
        let zero = d[0];
        [s.sub(d[0], d[2]), s.add(d[1], d[2]), s.sub(d[2], d[1]), s.sub(d[3], d[1]), zero, zero]
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, m: [S::V; N_MAX]) -> [S::V; 4] {
        let (even, odd) = (s.add(m[1], m[2]), s.sub(m[1], m[2]));
        let (first, second) = (s.add(m[0], even), s.add(odd, m[3]));
        [first, second, first, second]
    }

    fn weight(g: [f64; 3]) -> [f64; N_MAX] {
        [g[0], (g[0] + g[1] + g[2]) / 2.0, (g[0] - g[1] + g[2]) / 2.0, g[2], 0.0, 0.0]
    }
}

/// Tiles of 4 x 4: points 0, a, -a, b, -b, infinity with a = sqrt(1/2) and b = sqrt(2).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Four;

const A: f32 = std::f32::consts::FRAC_1_SQRT_2;
const B: f32 = std::f32::consts::SQRT_2;

impl Points for Four {
    const M: usize = 4;
    const N: usize = 6;

    #[inline(always)]
    fn input<S: Simd>(s: S, d: [S::V; N_MAX]) -> [S::V; N_MAX] {
        let c = |value: f32| s.splat(value);
        // The polynomials that vanish at all points but one: x^4 - 5/2 x^2 + 1 for 0, x (x + a) (x^2 - b^2) for a, ...
        let (even_a, odd_a) = (s.fma(d[2], c(-2.0), d[4]), s.fma(d[1], c(-2.0), d[3]));
        let (even_b, odd_b) = (s.fma(d[2], c(-0.5), d[4]), s.fma(d[1], c(-0.5), d[3]));
        [
            s.fma(d[2], c(-2.5), s.add(d[0], d[4])),
            s.fma(odd_a, c(A), even_a),
            s.fma(odd_a, c(-A), even_a),
            s.fma(odd_b, c(B), even_b),
            s.fma(odd_b, c(-B), even_b),
            s.fma(d[3], c(-2.5), s.add(d[1], d[5])),
        ]
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, m: [S::V; N_MAX]) -> [S::V; 4] {
        let c = |value: f32| s.splat(value);
        let (even_a, odd_a) = (s.add(m[1], m[2]), s.sub(m[1], m[2]));
        let (even_b, odd_b) = (s.add(m[3], m[4]), s.sub(m[3], m[4]));
        // Powers 0 to 3 of the points.
        [
            s.add(m[0], s.add(even_a, even_b)),
            s.fma(odd_a, c(A), s.mul(odd_b, c(B))),
            s.fma(even_a, c(0.5), s.mul(even_b, c(2.0))),
            s.fma(odd_a, c(0.5 * A), s.fma(odd_b, c(2.0 * B), m[5])),
        ]
    }

    fn weight(g: [f64; 3]) -> [f64; N_MAX] {
        let (a, b) = (std::f64::consts::FRAC_1_SQRT_2, std::f64::consts::SQRT_2);
        // g(p) over the product of p's distances to the other finite points.
        let at = |p: f64, distances: f64| (g[0] + g[1] * p + g[2] * p * p) / distances;
        [g[0], at(a, -1.5), at(-a, -1.5), at(b, 6.0), at(-b, 6.0), g[2]]
    }
}

/// A 3x3 convolution with stride 1 and padding 1, channels in and out multiples of [`PANEL`].
#[derive(Debug)]
pub(crate) struct Winograd<P> {
    /// `[out / PANEL, N * N, in, PANEL]`.
    weights: Vec<f32>,
    bias: Option<Vec<f32>>,
    cin: usize,
    cout: usize,
    points: std::marker::PhantomData<P>,
}

impl<P: Points> Winograd<P> {
    /// Takes weights `[out, in, 3, 3]`.
    pub(super) fn new(weights: &[f32], bias: Option<Vec<f32>>, cin: usize, cout: usize) -> Winograd<P> {
        assert!(cin.is_multiple_of(PANEL) && cout.is_multiple_of(PANEL) && weights.len() == cout * cin * 9);
        let plane = cin * PANEL;
        let mut packed = vec![0.0; P::N * P::N * cin * cout];
        let panels = packed.par_chunks_mut(P::N * P::N * plane).zip(weights.par_chunks(PANEL * cin * 9));
        panels.for_each(|(panel, weights)| {
            for (i, kernel) in weights.chunks_exact(9).enumerate() {
                let (o, c) = (i / cin, i % cin);
                for (point, value) in transformed::<P>(kernel).enumerate() {
                    panel[point * plane + c * PANEL + o] = value;
                }
            }
        });
        Winograd { weights: packed, bias, cin, cout, points: std::marker::PhantomData }
    }

    /// Convolves `x` into `y`, which has `x`'s size already where `output` is [`Output::Add`].
    pub(super) fn forward(&self, level: Level, x: &Map, y: &mut Map, output: Output) {
        assert_eq!(x.c, self.cin);
        if output == Output::Set {
            y.reshape(x.h, x.w, self.cout);
        }
        assert_eq!((y.h, y.w, y.c), (x.h, x.w, self.cout));
        let (across, down) = (x.w.div_ceil(P::M), x.h.div_ceil(P::M));
        // As many rows of tiles as fill a matrix product, unless threads would have nothing to do. Sums are kept by row, so
        // results do not depend on it.
        let rows = TILES.div_ceil(across).min(down.div_ceil(rayon::current_num_threads()));
        y.clear_sums(down);
        let (strip, sums) = (rows * P::M * y.row(), rows * 2 * self.cout);
        let strips = y.data.par_chunks_mut(strip).zip(y.sums.par_chunks_mut(sums)).enumerate();
        strips.for_each(|(number, (y, sums))| {
            Scratch::with(|scratch| {
                level.run(Strip { conv: self, x, across, first: number * rows, y, sums, output, scratch })
            });
        });
    }
}

/// A 3x3 kernel at the N x N points.
fn transformed<P: Points>(kernel: &[f32]) -> impl Iterator<Item = f32> {
    let k = |i: usize| f64::from(kernel[i]);
    let lines: [[f64; N_MAX]; 3] = std::array::from_fn(|row| P::weight([k(3 * row), k(3 * row + 1), k(3 * row + 2)]));
    (0..P::N * P::N).map(move |point| {
        let column = |row: usize| lines[row][point % P::N];
        P::weight([column(0), column(1), column(2)])[point / P::N] as f32
    })
}

/// Some whole rows of tiles.
struct Strip<'a, P> {
    conv: &'a Winograd<P>,
    x: &'a Map,
    /// Tiles of a row.
    across: usize,
    /// The first row of tiles.
    first: usize,
    /// The strip's rows of pixels.
    y: &'a mut [f32],
    /// The strip's sums, a row of tiles after the other.
    sums: &'a mut [f64],
    output: Output,
    scratch: &'a mut Scratch,
}

/// A tile: its place in the row, the row within the strip.
#[derive(Clone, Copy)]
struct Tile {
    column: usize,
    row: usize,
}

impl<P: Points> Kernel for Strip<'_, P> {
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let tiles = self.sums.len() / (2 * self.conv.cout) * self.across;
        let Scratch { inputs, products } = std::mem::take(self.scratch);
        let (mut inputs, mut products) = (inputs, products);
        for start in (0..tiles).step_by(TILES) {
            let batch = start..tiles.min(start + TILES);
            self.batch(s, batch, &mut inputs, &mut products);
        }
        *self.scratch = Scratch { inputs, products };
    }
}

impl<P: Points> Strip<'_, P> {
    /// Tiles `batch` of the strip, through all three steps.
    #[inline(always)]
    fn batch<S: Simd>(&mut self, s: S, batch: std::ops::Range<usize>, inputs: &mut Vec<f32>, products: &mut Vec<f32>) {
        let Winograd { ref weights, cin, cout, .. } = *self.conv;
        let points = P::N * P::N;
        let (count, across) = (batch.len(), self.across);
        let (input_plane, product_plane) = (count * cin + PAD, count * PANEL + PAD);
        inputs.resize((points * input_plane).max(inputs.len()), 0.0);
        products.resize((points * product_plane).max(products.len()), 0.0);
        let tile = |index: usize| Tile { column: index % across, row: index / across };
        for (place, index) in batch.clone().enumerate() {
            self.input(s, tile(index), &mut inputs[place * cin..], input_plane);
        }
        for panel in 0..cout / PANEL {
            let weights = &weights[panel * points * cin * PANEL..][..points * cin * PANEL];
            for (point, weights) in weights.chunks_exact(cin * PANEL).enumerate() {
                let a = &inputs[point * input_plane..][..count * cin];
                multiply_panel(s, a, weights, &mut products[point * product_plane..][..count * PANEL], cin);
            }
            for (place, index) in batch.clone().enumerate() {
                self.output(s, tile(index), panel * PANEL, &products[place * PANEL..], product_plane);
            }
        }
    }

    /// A tile's inputs at the points: all channels, to planes `plane` floats apart.
    #[inline(always)]
    fn input<S: Simd>(&self, s: S, tile: Tile, to: &mut [f32], plane: usize) {
        let (h, w, c) = (self.x.h, self.x.w, self.x.c);
        // The first input lies one pixel before the tile; pixels outside the map are 0.
        let (top, left) = (((self.first + tile.row) * P::M) as isize - 1, (tile.column * P::M) as isize - 1);
        let inside = top >= 0 && left >= 0 && top as usize + P::N <= h && left as usize + P::N <= w;
        assert!(self.x.data.len() == h * w * c && to.len() >= (P::N * P::N - 1) * plane + c);
        let zero = s.splat(0.0);
        for channel in (0..c).step_by(S::LANES) {
            let mut columns = [[zero; N_MAX]; N_MAX];
            for (j, column) in columns.iter_mut().enumerate().take(P::N) {
                for (i, value) in column.iter_mut().enumerate().take(P::N) {
                    let (y, x) = (top + i as isize, left + j as isize);
                    if inside || (y >= 0 && x >= 0 && (y as usize) < h && (x as usize) < w) {
                        let pixel = (y as usize * w + x as usize) * c;
                        // SAFETY: the pixel is inside the map, whose size was checked; c is a multiple of the lanes.
                        *value = unsafe { s.load(self.x.data.as_ptr().add(pixel + channel)) };
                    }
                }
                *column = P::input(s, *column);
            }
            for i in 0..P::N {
                let mut line = [zero; N_MAX];
                line.iter_mut().zip(&columns).for_each(|(value, column)| *value = column[i]);
                let line = P::input(s, line);
                for (j, value) in line.iter().enumerate().take(P::N) {
                    // SAFETY: the last plane's vector still lies in `to`, whose size was checked.
                    unsafe { s.store(to.as_mut_ptr().add((i * P::N + j) * plane + channel), *value) };
                }
            }
        }
    }

    /// A tile's results of [`PANEL`] channels, from planes of products.
    #[inline(always)]
    fn output<S: Simd>(&mut self, s: S, tile: Tile, panel: usize, products: &[f32], plane: usize) {
        let (w, c) = (self.x.w, self.conv.cout);
        let (top, left) = (tile.row * P::M, tile.column * P::M);
        // Within the strip; at the map's edges a tile may be cut.
        let (high, wide) = (P::M.min(self.y.len() / (w * c) - top), P::M.min(w - left));
        assert!(products.len() >= (P::N * P::N - 1) * plane + PANEL && panel + PANEL <= c);
        let zero = s.splat(0.0);
        for lane in (0..PANEL).step_by(S::LANES) {
            let mut columns = [[zero; 4]; N_MAX];
            for (j, results) in columns.iter_mut().enumerate().take(P::N) {
                let mut column = [zero; N_MAX];
                for (i, value) in column.iter_mut().enumerate().take(P::N) {
                    // SAFETY: within `products`, whose size was checked.
                    *value = unsafe { s.load(products.as_ptr().add((i * P::N + j) * plane + lane)) };
                }
                *results = P::output(s, column);
            }
            let channel = panel + lane;
            let bias = self.conv.bias.as_ref().map_or(zero, |bias| {
                assert!(bias.len() == c);
                // SAFETY: `channel + LANES <= panel + PANEL <= c`.
                unsafe { s.load(bias.as_ptr().add(channel)) }
            });
            let (mut sum, mut squares) = (zero, zero);
            for i in 0..high {
                let mut line = [zero; N_MAX];
                line.iter_mut().zip(&columns).for_each(|(value, column)| *value = column[i]);
                let line = P::output(s, line);
                for (j, value) in line.iter().enumerate().take(wide) {
                    // SAFETY: row `top + i` and column `left + j` lie in the strip, see `high` and `wide`.
                    unsafe {
                        let to = self.y.as_mut_ptr().add(((top + i) * w + left + j) * c + channel);
                        let mut value = s.add(*value, bias);
                        if self.output == Output::Add {
                            value = s.add(value, s.load(to));
                        }
                        s.store(to, value);
                        sum = s.add(sum, value);
                        squares = s.fma(value, value, squares);
                    }
                }
            }
            let sums = &mut self.sums[tile.row * 2 * c..][..2 * c];
            let (first, second) = sums.split_at_mut(c);
            accumulate(s, &mut first[channel..], sum);
            accumulate(s, &mut second[channel..], squares);
        }
    }
}

/// Adds a vector to sums in f64.
#[inline(always)]
fn accumulate<S: Simd>(s: S, sums: &mut [f64], v: S::V) {
    let mut lanes = [0.0; LANES_MAX];
    // SAFETY: no vector has more lanes.
    unsafe { s.store(lanes.as_mut_ptr(), v) };
    sums.iter_mut().zip(&lanes[..S::LANES]).for_each(|(sum, value)| *sum += f64::from(*value));
}
