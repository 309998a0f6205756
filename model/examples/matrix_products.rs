//! Products of matrices: ours beside libtorch's, in turns. `cargo run --release --example matrix_products -p tokengrid-model`
//!
//! The shapes are those of a training step at width 384 with batches of 8 x 256 tokens: layers forward, backward to their
//! input, and backward to their weights. Figures are medians in GFLOP/s. The first is the rate of multiplications in registers
//! alone, without memory: the upper bound of any product.

use std::time::Instant;
use tch::{Kind, Tensor};
use tokengrid_model::kernels::gemm::{Factor, Output, multiply};
use tokengrid_model::kernels::simd::{Kernel, Level, Simd};

const ROUNDS: usize = 15;

fn main() {
    let threads = std::env::args().nth(1).and_then(|arg| arg.parse().ok()).unwrap_or(2);
    tch::set_num_threads(threads);
    println!("registers alone: {:.0}", registers_alone(threads as usize));
    println!("{threads} threads\n  M     K     N  layout    ours  libtorch  times as fast");
    let _no_grad = tch::no_grad_guard();
    for [m, k, n] in [[2048, 384, 1152], [2048, 384, 1024], [2048, 1024, 384], [4096, 384, 1024], [2048, 384, 4096]] {
        compare("forward", [m, k, n]);
        compare("input", [m, n, k]);
        compare("weight", [n, m, k]);
    }
}

fn compare(layout: &str, [m, k, n]: [usize; 3]) {
    let random =
        |rows: usize, columns: usize| Tensor::rand([rows as i64, columns as i64], (Kind::Float, tch::Device::Cpu));
    let (a, b) = if layout == "weight" { (random(k, m), random(k, n)) } else { (random(m, k), random(k, n)) };
    let b = if layout == "forward" { random(n, k) } else { b };
    let (mut ours, theirs) = (vec![0f32; m * n], Tensor::zeros([m as i64, n as i64], (Kind::Float, tch::Device::Cpu)));
    let [a_values, b_values] = [&a, &b].map(|tensor| {
        // SAFETY: a contiguous fp32 tensor that outlives the slice.
        unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<f32>(), tensor.numel()) }
    });
    let factor = |values, tensor: &Tensor| {
        let (rows, columns) = tensor.size2().expect("a matrix");
        Factor::new(values, rows as usize, columns as usize)
    };
    let (mut fa, mut fb, mut ta, mut tb) =
        (factor(a_values, &a), factor(b_values, &b), a.shallow_clone(), b.shallow_clone());
    if layout == "weight" {
        (fa, ta) = (fa.transposed(), ta.tr());
    }
    if layout == "forward" {
        (fb, tb) = (fb.transposed(), tb.tr());
    }
    let mut times = [vec![], vec![]];
    for _ in 0..ROUNDS {
        let start = Instant::now();
        multiply(fa, fb, &mut ours, Output::Set);
        times[0].push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        let _ = ta.mm_out(&theirs, &tb);
        times[1].push(start.elapsed().as_secs_f64());
    }
    let difference = (Tensor::from_slice(&ours).view_as(&theirs) - &theirs).abs().max().double_value(&[]);
    assert!(difference < 1e-3 * k as f64, "{difference}");
    let [ours, theirs] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        2.0 * (m * k * n) as f64 / times[ROUNDS / 2] / 1e9
    });
    println!("{m:5} {k:5} {n:5}  {layout:8} {ours:5.0}     {theirs:5.0}  {:.2}", ours / theirs);
}

/// Twelve sums of vectors, which hide the latency of an instruction.
struct Sums<'a>(&'a mut f64);

impl Kernel for Sums<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        const STEPS: usize = 50_000_000;
        let (a, b) = (s.splat(std::hint::black_box(0.999)), s.splat(std::hint::black_box(0.001)));
        let mut sums: [S::V; 12] = std::array::from_fn(|i| s.splat(i as f32));
        for _ in 0..STEPS {
            sums.iter_mut().for_each(|sum| *sum = s.fma(*sum, a, b));
        }
        std::hint::black_box(sums);
        *self.0 = (STEPS * sums.len() * S::LANES * 2) as f64;
    }
}

/// GFLOP/s of `threads` threads.
fn registers_alone(threads: usize) -> f64 {
    let level = Level::detect().unwrap_or(Level::Portable);
    let start = Instant::now();
    let work = || {
        let mut flops = 0.0;
        level.run(Sums(&mut flops));
        flops
    };
    let total: f64 = std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        all.into_iter().map(|thread| thread.join().expect("it only computes")).sum()
    });
    total / start.elapsed().as_secs_f64() / 1e9
}
