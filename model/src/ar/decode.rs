//! Decoding: one position of each sequence of a batch at a time, with keys and values of the earlier ones.
//!
//! Weights are packed once, and every product reads them in order; for a batch of a few sequences the time is bound by the
//! memory bandwidth of the weights. A sequence's logits depend on that sequence alone, to the bit, for any batch and
//! number of threads.
//!
//! Shape suffixes: `c` sequences of a batch, `d` width, `v` vocabulary.

use super::config::ModelConfig;
use super::rope::Rotation;
use super::values::Values;
use crate::Params;
use crate::kernels::elementwise::{add, gate, mix, rms_norm, rotate, softmax};
use crate::kernels::linear::{Linear, Rows};
use crate::kernels::matrix::Matrix;
use crate::kernels::panels::Panels;
use crate::kernels::simd::{Kernel, Level, Simd};
use crate::kernels::threads::{Pieces, for_each};
use crate::kernels::tile::{PANEL, Strip};

/// The model as a sampler uses it, one token at a time.
///
/// ```text
/// start(classes)
/// for every position: pre_logits() -> draw -> post_logits(pre) -> draw -> accept(pre, post)
/// ```
#[derive(Debug)]
pub struct HostDecoder {
    config: ModelConfig,
    rotation: Rotation,
    pre_emb: Matrix,
    post_emb: Matrix,
    class_emb: Matrix,
    spatial: Vec<SpatialLayer>,
    intra: Vec<IntraLayer>,
    norm: Matrix,
    head: [Linear; 2],
    position: usize,
    /// The residual stream of the spatial stack, then of element 0.
    x_cd: Rows,
    /// The residual stream of element 1.
    x1_cd: Rows,
    scratch: Scratch,
    logits_cv: Vec<f32>,
}

/// Intermediate values of a layer.
#[derive(Debug)]
struct Scratch {
    n_cd: Rows,
    y_cd: Rows,
    qkv: Rows,
    a_cf: Rows,
    b_cf: Rows,
    logits: [Rows; 2],
}

impl HostDecoder {
    /// A decoder over `values`, which holds a tensor for each of [`ModelConfig::tensors`], contiguous fp32 on the CPU. All are
    /// copied: later changes of `values` have no effect.
    pub fn new(config: &ModelConfig, values: &Params) -> HostDecoder {
        let weights = Values::new(values);
        let (d, f, heads) = (config.dim as usize, config.ffn_dim() as usize, config.n_head as usize);
        let (positions, vocab) = (config.block_size as usize, config.vocab());
        let norm = weights.matrix("norm.weight");
        HostDecoder {
            rotation: Rotation::new(config),
            pre_emb: weights.matrix("pre_emb.weight"),
            post_emb: weights.matrix("post_emb.weight"),
            class_emb: weights.matrix("class_emb.embedding_table.weight"),
            spatial: (0..config.spatial_n_layer)
                .map(|i| SpatialLayer::new(&weights.block("spatial_blocks", i), positions, heads))
                .collect(),
            intra: (0..config.factorized_n_layer)
                .map(|i| IntraLayer::new(&weights.block("factorized_blocks", i), heads))
                .collect(),
            norm,
            head: ["head.0.weight", "head.1.weight"].map(|name| linear(&weights.matrix(name))),
            position: 0,
            x_cd: Rows::new(d),
            x1_cd: Rows::new(d),
            scratch: Scratch {
                n_cd: Rows::new(d),
                y_cd: Rows::new(d),
                qkv: Rows::new(3 * d),
                a_cf: Rows::new(f),
                b_cf: Rows::new(f),
                logits: vocab.map(|vocab| Rows::new(vocab as usize)),
            },
            logits_cv: vec![],
            config: config.clone(),
        }
    }

    /// Shape of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Begins a batch of C sequences with these classes `[C]` (`class_num`: none), at position 0.
    pub fn start(&mut self, class_c: &[i64]) {
        self.position = 0;
        self.x_cd.resize(class_c.len());
        for (x, &class) in self.x_cd.iter_mut().zip(class_c) {
            x.copy_from_slice(self.class_emb.row(class as usize));
        }
        self.spatial.iter_mut().for_each(|layer| layer.make_room(class_c.len()));
    }

    /// Logits `[C, V]` of the low bits at this position, row-major.
    pub fn pre_logits(&mut self) -> &[f32] {
        for layer in &mut self.spatial {
            layer.step(&mut self.x_cd, self.position, &self.rotation, &mut self.scratch);
        }
        for layer in &mut self.intra {
            layer.first(&mut self.x_cd, &mut self.scratch);
        }
        self.logits(0)
    }

    /// Logits `[C, V]` of the high bits at this position, given the low ones.
    pub fn post_logits(&mut self, pre_c: &[u32]) -> &[f32] {
        self.x1_cd.resize(pre_c.len());
        for (x, &pre) in self.x1_cd.iter_mut().zip(pre_c) {
            x.copy_from_slice(self.pre_emb.row(pre as usize));
        }
        for layer in &mut self.intra {
            layer.second(&mut self.x1_cd, &mut self.scratch);
        }
        self.logits(1)
    }

    /// Takes this position's token of every sequence, low and high bits `[C]` each, and advances to the next position.
    pub fn accept(&mut self, pre_c: &[u32], post_c: &[u32]) {
        for ((x, &pre), &post) in self.x_cd.iter_mut().zip(pre_c).zip(post_c) {
            x.copy_from_slice(self.pre_emb.row(pre as usize));
            add(x, self.post_emb.row(post as usize));
        }
        self.position += 1;
    }

    fn logits(&mut self, part: usize) -> &[f32] {
        let x_cd = if part == 0 { &mut self.x_cd } else { &mut self.x1_cd };
        normed(x_cd, &self.norm, &mut self.scratch.n_cd);
        let rows = &mut self.scratch.logits[part];
        self.head[part].set(&self.scratch.n_cd, rows);
        self.logits_cv.clear();
        rows.iter_mut().for_each(|row| self.logits_cv.extend_from_slice(row));
        &self.logits_cv
    }
}

/// A layer's weight, packed.
fn linear(weight: &Matrix) -> Linear {
    Linear::new(weight.values(), weight.rows)
}

/// `n = rms_norm(x) * weight`, row by row.
fn normed(x_cd: &mut Rows, weight: &Matrix, n_cd: &mut Rows) {
    n_cd.resize(x_cd.len());
    for (x, n) in x_cd.iter_mut().zip(n_cd.iter_mut()) {
        rms_norm(x, weight.values(), n);
    }
}

/// The gated feed-forward network.
#[derive(Debug)]
struct FfnLayer {
    norm: Matrix,
    w1: Linear,
    w2: Linear,
    w3: Linear,
}

impl FfnLayer {
    fn new(weights: &Values) -> FfnLayer {
        let [w1, w2, w3] =
            ["w1", "w2", "w3"].map(|name| linear(&weights.matrix(&format!("feed_forward.{name}.weight"))));
        FfnLayer { norm: weights.matrix("ffn_norm.weight"), w1, w2, w3 }
    }

    fn add_to(&self, x_cd: &mut Rows, scratch: &mut Scratch) {
        let Scratch { n_cd, a_cf, b_cf, .. } = scratch;
        normed(x_cd, &self.norm, n_cd);
        self.w1.set(n_cd, a_cf);
        self.w3.set(n_cd, b_cf);
        let count = x_cd.len();
        let ((a, stride), (b, _)) = (a_cf.parts_mut(), b_cf.parts_mut());
        let (a, width) = (&*a, self.w1.outer());
        let b = Pieces::of(b);
        for_each(count, &|row| {
            let at = row * stride;
            // SAFETY: a task has its own row.
            gate_in_place(&a[at..at + width], unsafe { b.piece(at, width) });
        });
        self.w2.add(b_cf, x_cd);
    }
}

/// `b = silu(a) * b`.
fn gate_in_place(a: &[f32], b: &mut [f32]) {
    const CHUNK: usize = 256;
    for (a, b) in a.chunks(CHUNK).zip(b.chunks_mut(CHUNK)) {
        let mut gated = [0f32; CHUNK];
        gate(a, b, &mut gated[..a.len()]);
        b.copy_from_slice(&gated[..a.len()]);
    }
}

/// A block over grid positions, and the keys and values of the positions so far.
#[derive(Debug)]
struct SpatialLayer {
    positions: usize,
    heads: usize,
    norm: Matrix,
    wqkv: Linear,
    wo: Linear,
    ffn: FfnLayer,
    caches: Vec<HeadCache>,
}

/// Keys and values of one head of one sequence, in the order that the products read them; scratch memory beside them.
#[derive(Debug)]
struct HeadCache {
    /// Transposed: `[hd, T]`.
    keys: Panels,
    /// `[T, hd]`.
    values: Panels,
    scores: Vec<f32>,
    out: Vec<f32>,
}

impl SpatialLayer {
    fn new(weights: &Values, positions: usize, heads: usize) -> SpatialLayer {
        SpatialLayer {
            positions,
            heads,
            norm: weights.matrix("attention_norm.weight"),
            wqkv: linear(&weights.matrix("attention.wqkv.weight")),
            wo: linear(&weights.matrix("attention.wo.weight")),
            ffn: FfnLayer::new(weights),
            caches: vec![],
        }
    }

    /// Allocates caches where a batch is larger than all before it. Old contents are never read: a position's keys and values are
    /// written before they are used.
    fn make_room(&mut self, sequences: usize) {
        let hd = self.wo.outer() / self.heads;
        let positions = self.positions;
        let cache = || HeadCache {
            keys: Panels::zeros(hd, positions),
            values: Panels::zeros(positions, hd),
            scores: vec![0.0; positions.next_multiple_of(PANEL)],
            out: vec![0.0; hd.next_multiple_of(PANEL)],
        };
        let count = (sequences * self.heads).max(self.caches.len());
        self.caches.resize_with(count, cache);
    }

    fn step(&mut self, x_cd: &mut Rows, position: usize, rotation: &Rotation, scratch: &mut Scratch) {
        normed(x_cd, &self.norm, &mut scratch.n_cd);
        self.wqkv.set(&scratch.n_cd, &mut scratch.qkv);
        self.attend(x_cd.len(), position, rotation, &scratch.qkv, &mut scratch.y_cd);
        self.wo.add(&scratch.y_cd, x_cd);
        self.ffn.add_to(x_cd, scratch);
    }

    fn attend(&mut self, sequences: usize, position: usize, rotation: &Rotation, qkv: &Rows, y_cd: &mut Rows) {
        let (heads, d) = (self.heads, self.wo.outer());
        let hd = d / heads;
        y_cd.resize(sequences);
        let (y, stride) = y_cd.parts_mut();
        let (y, caches) = (Pieces::of(y), Pieces::of(&mut self.caches));
        for_each(sequences * heads, &|task| {
            let (sequence, column) = (task / heads, task % heads * hd);
            let part = |part: usize| &qkv.row(sequence)[part * d + column..][..hd];
            // SAFETY: a task has its own head.
            let (cache, y) = unsafe { (&mut caches.piece(task, 1)[0], y.piece(sequence * stride + column, hd)) };
            let mut rotated = [part(0), part(1)].map(<[f32]>::to_vec);
            let (cos, sin) = rotation.of(position);
            rotated.iter_mut().for_each(|x| rotate(x, cos, sin));
            cache.keys.set_column(position, &rotated[1]);
            cache.values.set_row(position, part(2));
            Level::best().run(AttendOne { q: &rotated[0], position, cache });
            y.copy_from_slice(&cache.out[..hd]);
        });
    }
}

/// Attention of one query to all positions so far.
struct AttendOne<'a> {
    q: &'a [f32],
    position: usize,
    cache: &'a mut HeadCache,
}

impl Kernel for AttendOne<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let HeadCache { keys, values, scores, out } = self.cache;
        let (hd, seen) = (self.q.len(), self.position + 1);
        let (score_stride, out_stride) = (scores.len(), out.len());
        let one = |values, stride| Strip { rows: 1, values, strides: [stride, 1] };
        keys.multiply(s, one(self.q, hd), 0..hd, seen, scores, score_stride);
        softmax(&mut scores[..seen], seen, (hd as f32).sqrt().recip());
        values.multiply(s, one(scores, score_stride), 0..seen, hd, out, out_stride);
    }
}

/// A block over the two sub-tokens, and the value of element 0 at this position.
#[derive(Debug)]
struct IntraLayer {
    heads: usize,
    norm: Matrix,
    wv: Linear,
    wqkv: Linear,
    wo: Linear,
    ffn: FfnLayer,
    v0_cd: Rows,
}

impl IntraLayer {
    fn new(weights: &Values, heads: usize) -> IntraLayer {
        let wqkv = weights.matrix("attention.wqkv.weight");
        let d = wqkv.columns;
        IntraLayer {
            heads,
            norm: weights.matrix("attention_norm.weight"),
            wv: linear(&wqkv.part(2 * d, d)),
            wqkv: linear(&wqkv),
            wo: linear(&weights.matrix("attention.wo.weight")),
            ffn: FfnLayer::new(weights),
            v0_cd: Rows::new(d),
        }
    }

    /// Element 0, which sees itself alone.
    fn first(&mut self, x_cd: &mut Rows, scratch: &mut Scratch) {
        normed(x_cd, &self.norm, &mut scratch.n_cd);
        self.wv.set(&scratch.n_cd, &mut self.v0_cd);
        self.wo.add(&self.v0_cd, x_cd);
        self.ffn.add_to(x_cd, scratch);
    }

    /// Element 1, which mixes both values.
    fn second(&mut self, x_cd: &mut Rows, scratch: &mut Scratch) {
        normed(x_cd, &self.norm, &mut scratch.n_cd);
        self.wqkv.set(&scratch.n_cd, &mut scratch.qkv);
        let (count, d) = (x_cd.len(), self.wo.outer());
        let (hd, scale) = (d / self.heads, ((d / self.heads) as f32).sqrt().recip());
        scratch.y_cd.resize(count);
        for row in 0..count {
            let (qkv, v0, y) = (scratch.qkv.row(row), self.v0_cd.row(row), scratch.y_cd.row_mut(row));
            for column in (0..d).step_by(hd) {
                let at = column..column + hd;
                let part = |part: usize| &qkv[part * d + column..][..hd];
                mix(part(0), part(1), &v0[at.clone()], part(2), scale, &mut y[at]);
            }
        }
        self.wo.add(&scratch.y_cd, x_cd);
        self.ffn.add_to(x_cd, scratch);
    }
}
