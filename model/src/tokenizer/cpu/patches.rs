//! All other convolutions: 1x1, stride 2, and those with few channels. The inputs of some pixels are laid side by side and
//! multiplied by the weights.

use super::map::Map;
use super::{Output, Scratch};
use crate::kernels::panels::{Factor, Panels, multiply_panel};
use crate::kernels::simd::{Kernel, Level, Simd};
use crate::kernels::tile::PANEL;
use rayon::prelude::*;

/// Pixels per matrix product.
const PIXELS: usize = 32;

/// A convolution with a square kernel of odd side, padded by half of it, with any stride and any channels.
#[derive(Debug)]
pub(crate) struct Patches {
    /// Panels of output channels, `[kernel * kernel * in, PANEL]`.
    weights: Panels,
    bias: Option<Vec<f32>>,
    cin: usize,
    cout: usize,
    kernel: usize,
    stride: usize,
}

impl Patches {
    /// Takes weights `[out, kernel, kernel, in]`.
    pub(super) fn new(
        weights: &[f32],
        bias: Option<Vec<f32>>,
        [cout, kernel, cin]: [usize; 3],
        stride: usize,
    ) -> Patches {
        let k = kernel * kernel * cin;
        let mut panels = Panels::default();
        panels.pack(Factor::new(weights, cout, k).transposed());
        Patches { weights: panels, bias, cin, cout, kernel, stride }
    }

    /// Convolves `x` into `y`, which has the result's size already where `output` is [`Output::Add`].
    pub(super) fn forward(&self, level: Level, x: &Map, y: &mut Map, output: Output) {
        assert_eq!(x.c, self.cin);
        let (h, w) = (x.h.div_ceil(self.stride), x.w.div_ceil(self.stride));
        if output == Output::Set {
            y.reshape(h, w, self.cout);
        }
        assert_eq!((y.h, y.w, y.c), (h, w, self.cout));
        y.clear_sums(h);
        let row = y.row();
        let rows = y.data.par_chunks_mut(row).zip(y.sums.par_chunks_mut(2 * self.cout)).enumerate();
        rows.for_each(|(number, (y, sums))| {
            Scratch::with(|scratch| level.run(Row { conv: self, x, number, y, sums, output, scratch }));
        });
    }
}

/// A row of results.
struct Row<'a> {
    conv: &'a Patches,
    x: &'a Map,
    number: usize,
    y: &'a mut [f32],
    sums: &'a mut [f64],
    output: Output,
    scratch: &'a mut Scratch,
}

impl Kernel for Row<'_> {
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let Patches { cin, cout, kernel, .. } = *self.conv;
        let k = kernel * kernel * cin;
        let width = self.y.len() / cout;
        let Scratch { mut inputs, mut products } = std::mem::take(self.scratch);
        inputs.resize(inputs.len().max(PIXELS * k), 0.0);
        products.resize(products.len().max(PIXELS * PANEL), 0.0);
        for start in (0..width).step_by(PIXELS) {
            let count = PIXELS.min(width - start);
            for (place, patch) in inputs.chunks_exact_mut(k).take(count).enumerate() {
                self.gather(start + place, patch);
            }
            for (panel, weights) in self.conv.weights.iter().enumerate() {
                let products = &mut products[..count * PANEL];
                multiply_panel(s, &inputs[..count * k], weights, products, k);
                self.put(start, panel * PANEL, products);
            }
        }
        *self.scratch = Scratch { inputs, products };
    }
}

impl Row<'_> {
    /// The inputs of pixel `column` of the row; those outside the map are 0.
    #[inline(always)]
    fn gather(&self, column: usize, patch: &mut [f32]) {
        let Patches { cin, kernel, stride, .. } = *self.conv;
        let origin = |at: usize| (at * stride) as isize - (kernel / 2) as isize;
        let (top, left) = (origin(self.number), origin(column));
        for (tap, to) in patch.chunks_exact_mut(cin).enumerate() {
            let (y, x) = (top + (tap / kernel) as isize, left + (tap % kernel) as isize);
            if y >= 0 && x >= 0 && (y as usize) < self.x.h && (x as usize) < self.x.w {
                to.copy_from_slice(&self.x.data[(y as usize * self.x.w + x as usize) * cin..][..cin]);
            } else {
                to.fill(0.0);
            }
        }
    }

    /// Products of pixels from `start` on, channels from `panel` on, to where they belong.
    #[inline(always)]
    fn put(&mut self, start: usize, panel: usize, products: &[f32]) {
        let cout = self.conv.cout;
        let width = PANEL.min(cout - panel);
        let (sums, squares) = self.sums.split_at_mut(cout);
        let (sums, squares) = (&mut sums[panel..panel + width], &mut squares[panel..panel + width]);
        for (place, products) in products.chunks_exact(PANEL).enumerate() {
            let to = &mut self.y[(start + place) * cout + panel..][..width];
            for (channel, to) in to.iter_mut().enumerate() {
                let mut value = products[channel];
                if let Some(bias) = &self.conv.bias {
                    value += bias[panel + channel];
                }
                if self.output == Output::Add {
                    value += *to;
                }
                *to = value;
                sums[channel] += f64::from(value);
                squares[channel] += f64::from(value) * f64::from(value);
            }
        }
    }
}
