//! Causal attention with rotary positions, and back: a task for each head of each sequence.
//!
//! A task gathers its head into its own memory, rotated, and processes the queries in strips of as many as the
//! registers hold; a strip reads the keys up to its last query. Backward computes the probabilities again from the
//! logarithms of their denominators.
//!
//! Of one head: queries, keys and values `[T, hd]`, scores and probabilities `[T, T]`.

use super::spatial::Shape;
use std::cell::Cell;
use tokengrid_model::ar::Rotation;
use tokengrid_model::kernels::elementwise::{rotate, rotate_backward, softmax};
use tokengrid_model::kernels::math::{exp, sum2};
use tokengrid_model::kernels::matrix::Matrix;
use tokengrid_model::kernels::panels::{Factor, Panels};
use tokengrid_model::kernels::simd::{Kernel, Level, Simd};
use tokengrid_model::kernels::threads::{Pieces, for_each};
use tokengrid_model::kernels::tile::{PANEL, Strip};

/// Attention over batches of one shape. Holds what the backward pass needs.
#[derive(Debug)]
pub(super) struct Attention {
    shape: Shape,
    /// Logarithms of the softmax's denominators, `[B, H, T]`.
    log_sums: Vec<f32>,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::default();
}

/// A thread's memory for one head.
#[derive(Debug, Default)]
struct Scratch {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    dy: Vec<f32>,
    /// Probabilities, then for each strip scores.
    p: Vec<f32>,
    ds: Vec<f32>,
    out: [Vec<f32>; 3],
    panels: [Panels; 5],
}

impl Attention {
    pub(super) fn new(shape: Shape) -> Attention {
        Attention { shape, log_sums: vec![0.0; shape.batch * shape.heads * shape.positions] }
    }

    /// `qkv [P, 3D]`, not rotated yet, to `y [P, D]`.
    pub(super) fn forward(&mut self, qkv: &Matrix, rotation: &Rotation, y_pd: &mut Matrix) {
        let (shape, width) = (self.shape, y_pd.columns);
        let (y, log_sums) = (Pieces::of(y_pd.values_mut()), Pieces::of(&mut self.log_sums));
        for_each(shape.batch * shape.heads, &|task| {
            let head = Head::new(shape, width, task);
            let mut scratch = SCRATCH.take();
            scratch.gather(&head, rotation, &|row, part| &qkv.row(row)[head.columns(part)]);
            // SAFETY: a task has its own head.
            let log_sums = unsafe { log_sums.piece(task * head.t, head.t) };
            Level::best().run(Forward { head, scratch: &mut scratch, log_sums });
            for (t, out) in scratch.out[0].chunks_exact(head.out_stride()).enumerate() {
                // SAFETY: a task has these columns of its rows to itself.
                let y = unsafe { y.piece((head.first + t) * width + head.column, head.hd) };
                y.copy_from_slice(&out[..head.hd]);
            }
            SCRATCH.set(scratch);
        });
    }

    /// Replaces `qkv` by its gradient, given that of the output, `dy [P, D]`.
    pub(super) fn backward(&self, qkv: &mut Matrix, rotation: &Rotation, dy_pd: &Matrix) {
        let (shape, width) = (self.shape, dy_pd.columns);
        let qkv = Pieces::of(qkv.values_mut());
        for_each(shape.batch * shape.heads, &|task| {
            let head = Head::new(shape, width, task);
            let mut scratch = SCRATCH.take();
            // SAFETY: a task has these columns of its rows to itself.
            let piece =
                |row: usize, part: usize| unsafe { qkv.piece(row * 3 * width + head.columns(part).start, head.hd) };
            scratch.gather(&head, rotation, &|row, part| &*piece(row, part));
            scratch.gather_gradient(&head, dy_pd);
            let log_sums = &self.log_sums[task * head.t..][..head.t];
            Level::best().run(Backward { head, scratch: &mut scratch, log_sums });
            for t in 0..head.t {
                let (row, (cos, sin)) = (head.first + t, rotation.of(t));
                let of = |part: usize| &scratch.out[part][t * head.out_stride()..][..head.hd];
                rotate_backward(of(0), cos, sin, piece(row, 0));
                rotate_backward(of(1), cos, sin, piece(row, 1));
                piece(row, 2).copy_from_slice(of(2));
            }
            SCRATCH.set(scratch);
        });
    }
}

/// One head of one sequence.
#[derive(Debug, Clone, Copy)]
struct Head {
    /// Its first row.
    first: usize,
    /// Its first column in a matrix as wide as the model.
    column: usize,
    width: usize,
    t: usize,
    hd: usize,
    scale: f32,
}

impl Head {
    fn new(shape: Shape, width: usize, task: usize) -> Head {
        let (sequence, head, hd) = (task / shape.heads, task % shape.heads, width / shape.heads);
        let (t, scale) = (shape.positions, (hd as f32).sqrt().recip());
        Head { first: sequence * t, column: head * hd, width, t, hd, scale }
    }

    /// Columns of its queries (0), keys (1) or values (2).
    fn columns(&self, part: usize) -> std::ops::Range<usize> {
        let start = part * self.width + self.column;
        start..start + self.hd
    }

    /// Floats from row to row of results: whole panels.
    fn out_stride(&self) -> usize {
        self.hd.next_multiple_of(PANEL)
    }

    /// Floats from row to row of scores: whole panels, and no power of two.
    fn score_stride(&self) -> usize {
        self.t.next_multiple_of(PANEL) + 16
    }

    /// The first query of each strip and how many it has.
    fn strips(&self, rows: usize) -> impl Iterator<Item = (usize, usize)> {
        let t = self.t;
        (0..t).step_by(rows).map(move |first| (first, rows.min(t - first)))
    }
}

impl Scratch {
    /// Queries and keys rotated, values as they are.
    fn gather<'a>(&mut self, head: &Head, rotation: &Rotation, of: &dyn Fn(usize, usize) -> &'a [f32]) {
        let Head { first, t, hd, .. } = *head;
        for (part, to) in [&mut self.q, &mut self.k, &mut self.v].into_iter().enumerate() {
            to.resize(t * hd, 0.0);
            for (at, to) in to.chunks_exact_mut(hd).enumerate() {
                to.copy_from_slice(of(first + at, part));
                if part < 2 {
                    let (cos, sin) = rotation.of(at);
                    rotate(to, cos, sin);
                }
            }
        }
    }

    fn gather_gradient(&mut self, head: &Head, dy_pd: &Matrix) {
        self.dy.resize(head.t * head.hd, 0.0);
        for (at, to) in self.dy.chunks_exact_mut(head.hd).enumerate() {
            to.copy_from_slice(&dy_pd.row(head.first + at)[head.columns(0)]);
        }
    }
}

#[inline(always)]
fn strip(rows: usize, values: &[f32], strides: [usize; 2]) -> Strip<'_> {
    Strip { rows, values, strides }
}

struct Forward<'a> {
    head: Head,
    scratch: &'a mut Scratch,
    log_sums: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let head = self.head;
        let Head { t, hd, .. } = head;
        let Scratch { q, k, v, p, out: [out, ..], panels: [keys, values, ..], .. } = self.scratch;
        let (stride, out_stride) = (head.score_stride(), head.out_stride());
        keys.pack(Factor::new(k, t, hd).transposed());
        values.pack(Factor::new(v, t, hd));
        p.resize(S::ROWS * stride, 0.0);
        out.resize(t * out_stride, 0.0);
        for (first, rows) in head.strips(S::ROWS) {
            let seen = first + rows;
            keys.multiply(s, strip(rows, &q[first * hd..], [hd, 1]), 0..hd, seen, p, stride);
            for (row, scores) in p.chunks_exact_mut(stride).take(rows).enumerate() {
                self.log_sums[first + row] = softmax(&mut scores[..seen], first + row + 1, head.scale);
            }
            values.multiply(s, strip(rows, p, [stride, 1]), 0..seen, hd, &mut out[first * out_stride..], out_stride);
        }
    }
}

struct Backward<'a> {
    head: Head,
    scratch: &'a mut Scratch,
    log_sums: &'a [f32],
}

impl Kernel for Backward<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let head = self.head;
        let Head { t, hd, scale, .. } = head;
        let Scratch { q, k, v, dy, p, ds, out: [dq, dk, dv], panels } = self.scratch;
        let (stride, out_stride) = (head.score_stride(), head.out_stride());
        let [keys_t, values_t, keys, queries, dys] = panels;
        keys_t.pack(Factor::new(k, t, hd).transposed());
        values_t.pack(Factor::new(v, t, hd).transposed());
        keys.pack(Factor::new(k, t, hd));
        queries.pack(Factor::new(q, t, hd));
        dys.pack(Factor::new(dy, t, hd));
        [&mut *p, &mut *ds].into_iter().for_each(|scores| scores.resize(t * stride, 0.0));
        [&mut *dq, &mut *dk, &mut *dv].into_iter().for_each(|out| out.resize(t * out_stride, 0.0));
        for (first, rows) in head.strips(S::ROWS) {
            let (seen, at) = (first + rows, first * stride);
            keys_t.multiply(s, strip(rows, &q[first * hd..], [hd, 1]), 0..hd, seen, &mut p[at..], stride);
            values_t.multiply(s, strip(rows, &dy[first * hd..], [hd, 1]), 0..hd, seen, &mut ds[at..], stride);
            let scores = p[at..].chunks_exact_mut(stride).zip(ds[at..].chunks_exact_mut(stride)).take(rows);
            for (row, (p, ds)) in scores.enumerate() {
                softmax_backward(&mut p[..seen], &mut ds[..seen], first + row + 1, scale, self.log_sums[first + row]);
            }
            keys.multiply(
                s,
                strip(rows, &ds[at..], [stride, 1]),
                0..seen,
                hd,
                &mut dq[first * out_stride..],
                out_stride,
            );
        }
        // Of a strip of keys: they are seen by the queries from its first on.
        for (first, rows) in head.strips(S::ROWS) {
            let (at, out) = (first * stride + first, first * out_stride);
            queries.multiply(s, strip(rows, &ds[at..], [1, stride]), first..t, hd, &mut dk[out..], out_stride);
            dys.multiply(s, strip(rows, &p[at..], [1, stride]), first..t, hd, &mut dv[out..], out_stride);
        }
    }
}

/// Replaces scores by probabilities, and the probabilities' gradient by that of the scores; zeros from `len` on.
#[inline(always)]
fn softmax_backward(p: &mut [f32], ds: &mut [f32], len: usize, scale: f32, log_sum: f32) {
    p[len..].fill(0.0);
    ds[len..].fill(0.0);
    let (p, ds) = (&mut p[..len], &mut ds[..len]);
    for p in p.iter_mut() {
        *p = exp(scale * *p - log_sum);
    }
    let mean = sum2(p, ds, |p, dp| p * dp);
    for (ds, &p) in ds.iter_mut().zip(p.iter()) {
        *ds = p * (*ds - mean) * scale;
    }
}
