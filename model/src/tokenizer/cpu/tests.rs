//! The kernels against sums in f64, against libtorch, and against each other.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

use super::map::Map;
use super::norm::Affine;
use super::patches::Patches;
use super::winograd::{Four, Two, Winograd};
use super::{CpuDecoder, CpuEncoder, Output};
use crate::Runtime;
use crate::kernels::simd::Level;
use crate::kernels::simd::{self, Kernel, Simd};
use crate::tokenizer::{Architecture, Tokenizer, formula_params, formula_pixels};
use crate::{lfq, pixels};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

/// `count` values in [-1, 1).
fn values(name: &str, count: usize) -> Vec<f32> {
    let bytes = formula_pixels(name, 1, count.div_ceil(3).isqrt() + 1);
    bytes.into_iter().take(count).map(|byte| f32::from(byte) / 128.0 - 1.0).collect()
}

fn map(h: usize, w: usize, c: usize) -> Map {
    Map { h, w, c, data: values("x", h * w * c), sums: vec![] }
}

/// A convolution `[out, in, k, k]`, padded by k / 2, in f64.
fn convolved(x: &Map, weights: &[f32], bias: &[f32], kernel: usize, stride: usize) -> Vec<f64> {
    let inside = |at: usize, tap: usize, size: usize| (at * stride + tap).checked_sub(kernel / 2).filter(|i| *i < size);
    let mut results = vec![];
    for (row, column) in (0..x.h.div_ceil(stride)).flat_map(|row| (0..x.w.div_ceil(stride)).map(move |c| (row, c))) {
        for (weights, bias) in weights.chunks_exact(x.c * kernel * kernel).zip(bias) {
            let mut sum = f64::from(*bias);
            for (i, weight) in weights.iter().enumerate() {
                let (c, tap) = (i / (kernel * kernel), i % (kernel * kernel));
                if let (Some(y), Some(x_)) = (inside(row, tap / kernel, x.h), inside(column, tap % kernel, x.w)) {
                    sum += f64::from(*weight) * f64::from(x.data[(y * x.w + x_) * x.c + c]);
                }
            }
            results.push(sum);
        }
    }
    results
}

/// Weights in the layout of [`Patches`].
fn taps_first(weights: &[f32], cin: usize, taps: usize) -> Vec<f32> {
    let reordered = |kernel: &[f32]| (0..taps * cin).map(|i| kernel[i % cin * taps + i / cin]).collect::<Vec<_>>();
    weights.chunks_exact(cin * taps).flat_map(reordered).collect()
}

#[track_caller]
fn assert_near(y: &Map, want: &[f64]) {
    assert_eq!(y.data.len(), want.len());
    let worst = y.data.iter().zip(want).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
    assert!(worst < 2e-4, "off by {worst:e}");
    if y.c.is_multiple_of(32) {
        let c = y.c;
        let of = |part: usize| y.sums.chunks_exact(2 * c).map(|s| s[part * c..][..c].iter().sum::<f64>()).sum::<f64>();
        let squares: f64 = want.iter().map(|v| v * v).sum();
        assert!((of(0) - want.iter().sum::<f64>()).abs() < 1e-5 * squares && (of(1) / squares - 1.0).abs() < 1e-5);
    }
}

#[test]
fn convolutions_are_near_sums_in_f64_at_all_edges_and_add_to_the_output() {
    for (h, w, cin, cout) in [(13, 10, 32, 64), (4, 4, 64, 32), (1, 1, 32, 32), (5, 70, 32, 32), (2, 3, 32, 96)] {
        let (x, weights, bias) = (map(h, w, cin), values("w", cout * cin * 9), values("b", cout));
        let want = convolved(&x, &weights, &bias, 3, 1);
        let twice: Vec<f64> = want.iter().map(|v| 2.0 * v).collect();
        let four = Winograd::<Four>::new(&weights, Some(bias.clone()), cin, cout);
        let two = Winograd::<Two>::new(&weights, Some(bias.clone()), cin, cout);
        let patches = Patches::new(&taps_first(&weights, cin, 9), Some(bias), [cout, 3, cin], 1);
        for level in Level::all() {
            let (mut a, mut b, mut c) = (Map::default(), Map::default(), Map::default());
            for (output, want) in [(Output::Set, &want), (Output::Add, &twice)] {
                four.forward(level, &x, &mut a, output);
                two.forward(level, &x, &mut b, output);
                patches.forward(level, &x, &mut c, output);
                [&a, &b, &c].into_iter().for_each(|y| assert_near(y, want));
            }
        }
    }
}

#[test]
fn other_convolutions_take_any_stride_and_channels() {
    for (kernel, stride, cin, cout) in [(1, 1, 32, 64), (3, 2, 32, 32), (3, 1, 3, 32), (3, 1, 18, 40), (1, 1, 64, 18)] {
        for (h, w) in [(6, 35), (7, 9), (1, 1)] {
            let taps = kernel * kernel;
            let (x, weights, bias) = (map(h, w, cin), values("w", cout * cin * taps), values("b", cout));
            let patches =
                Patches::new(&taps_first(&weights, cin, taps), Some(bias.clone()), [cout, kernel, cin], stride);
            let mut y = Map::default();
            patches.forward(Level::Portable, &x, &mut y, Output::Set);
            assert_near(&y, &convolved(&x, &weights, &bias, kernel, stride));
        }
    }
}

#[test]
fn norms_use_the_statistics_of_each_group() {
    let (x, one) = (map(9, 7, 64), [1.0; 64]);
    let mut y = Map::default();
    let identity: Vec<f32> = (0..64 * 64).map(|i| f32::from(u8::from(i % 65 == 0))).collect();
    Patches::new(&identity, None, [64, 1, 64], 1).forward(Level::Portable, &x, &mut y, Output::Set);
    assert_eq!(x.data, y.data);
    Affine::of(&y, &one, &[0.0; 64], false).apply_in_place(Level::Portable, &mut y);
    for group in 0..32 {
        let of_group: Vec<f64> =
            y.data.chunks_exact(2).skip(group).step_by(32).flatten().map(|v| f64::from(*v)).collect();
        let mean = of_group.iter().sum::<f64>() / of_group.len() as f64;
        let variance = of_group.iter().map(|v| v * v).sum::<f64>() / of_group.len() as f64;
        assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-4, "group {group}: {mean:e}, {variance}");
    }
}

/// A small network with every kind of layer, and an image whose sides are not multiples of the tiles'.
fn small() -> (Tokenizer, Tensor) {
    let architecture = Architecture { ch: 32, ch_mult: vec![1, 2, 16], num_res_blocks: 1, z_channels: 18 };
    let params = formula_params(&architecture, "v1:cpu:");
    let images = pixels::to_input(&formula_pixels("image", 2, 12)[..2 * 8 * 12 * 3], 2, 8, 12, Runtime::EXACT);
    (Tokenizer::from_params(architecture, &params), images)
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

#[test]
fn the_network_is_libtorchs_to_within_rounding_and_the_same_bits_at_every_width_and_thread_count() {
    tokengrid_test_support::alone!();
    let (tokenizer, images) = small();
    let h = tokenizer.encoder.forward(&images);
    let code = lfq::signs_of(&h);
    let recon = tokenizer.decoder.forward(&code);
    let mut first: Option<(Tensor, Tensor)> = None;
    for level in Level::all() {
        let (encoder, decoder) =
            (CpuEncoder::new(&tokenizer.encoder, level), CpuDecoder::new(&tokenizer.decoder, level));
        // Where fused multiply-add is a function call, the scalar kernels are slow.
        let thread_counts: &[i32] = if level == Level::Portable { &[3] } else { &[1, 3] };
        for &threads in thread_counts {
            tch::set_num_threads(threads);
            let (ours, back) = (encoder.forward(&images), decoder.forward(&code));
            let (h_off, recon_off) = (difference(&ours, &h), difference(&back, &recon));
            assert!(h_off < 2e-4 && recon_off < 2e-4, "{level:?}: {h_off:e}, {recon_off:e}");
            let (h, recon) = first.get_or_insert_with(|| (ours.copy(), back.copy()));
            assert!(h.equal(&ours) && recon.equal(&back), "{level:?} on {threads} threads");
        }
    }
    // The result of an image does not depend on its batch.
    let encoder = CpuEncoder::new(&tokenizer.encoder, Level::all()[0]);
    let alone = encoder.forward(&images.narrow(0, 1, 1));
    assert!(alone.equal(&encoder.forward(&images).narrow(0, 1, 1)));
}

#[test]
fn kernels_are_for_fp32_without_gradients_alone() {
    let architecture = Architecture { ch: 32, ch_mult: vec![1, 2], num_res_blocks: 1, z_channels: 18 };
    let params = formula_params(&architecture, "v1:cpu:");
    assert!(Tokenizer::from_params(architecture.clone(), &params).encoder.suits_kernels());
    let half = params.to_kind_and_device(Kind::BFloat16, Device::Cpu);
    assert!(!Tokenizer::from_params(architecture.clone(), &half).encoder.suits_kernels());
    let leaves = params.iter().map(|(name, t)| (name.to_string(), t.copy().set_requires_grad(true))).collect();
    assert!(!Tokenizer::from_params(architecture, &leaves).encoder.suits_kernels());
}

/// Swish of a whole number of vectors.
struct Swish<'a>(&'a mut [f32]);

impl Kernel for Swish<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for chunk in self.0.chunks_exact_mut(S::LANES) {
            // SAFETY: a chunk is one vector long.
            unsafe { s.store(chunk.as_mut_ptr(), simd::swish(s, s.load(chunk.as_ptr()))) }
        }
    }
}

proptest! {
    #[test]
    fn swish_is_near_its_value_in_f64(xs in prop::collection::vec(prop_oneof![-8f32..8.0, -86f32..90.0, -1e6f32..1e6], 16)) {
        let mut first: Option<Vec<f32>> = None;
        for level in Level::all() {
            let mut ys = xs.clone();
            level.run(Swish(&mut ys));
            for (x, y) in xs.iter().zip(&ys) {
                let want = f64::from(*x) / (1.0 + (-f64::from(*x)).exp());
                prop_assert!((f64::from(*y) - want).abs() <= 4e-7 * want.abs() + 1e-30, "{x}: {y} {want}");
            }
            let first = first.get_or_insert_with(|| ys.clone());
            prop_assert_eq!(&*first, &ys, "{:?}", level);
        }
    }
}
