//! The whole model on one page.
//!
//! Position 0 of the sequence is the class; position t is the embedded token t - 1. Every position's output goes,
//! through the intra blocks, to two heads: the token's low bits, then its high bits given the low ones.
//!
//! Shape suffixes: `b` batch, `t` positions, `p` = b * t, `d` width, `v` vocabulary.

use super::block::{Block, Dropout, drop, linear, rms_norm};
use super::config::ModelConfig;
use super::decode::HostDecoder;
use super::intra::IntraBlock;
use super::loss;
use super::rope::Rope;
use super::weights::Scope;
use crate::{Params, Route, Runtime};
use tch::{Device, Kind, Tensor};

/// The model over shared parameters.
#[derive(Debug)]
pub struct ArModel {
    /// Hyper-parameters.
    pub config: ModelConfig,
    compute: Kind,
    /// See [`Route::chunked_loss`].
    chunked_loss: bool,
    pre_emb: Tensor,
    post_emb: Tensor,
    class_emb: Tensor,
    spatial_blocks: Vec<Block>,
    factorized_blocks: Vec<IntraBlock>,
    norm: Tensor,
    head: [Tensor; 2],
    rope: Rope,
    params: Params,
}

/// Mean cross entropies of the two sub-tokens.
#[derive(Debug)]
pub struct Losses {
    /// Low bits: a scalar, in nats per token.
    pub pre: Tensor,
    /// High bits, given the low ones: a scalar, in nats per token.
    pub post: Tensor,
}

impl Losses {
    /// What is minimised: the sum of both, a scalar in nats per token.
    pub fn total(&self) -> Tensor {
        &self.pre + &self.post
    }
}

impl ArModel {
    /// Builds the model over `params`, which must be complete (see [`ModelConfig::tensors`]) and lie on `device`. Matrix
    /// products and attention are computed in `compute`; the residual stream keeps the kind of the parameters.
    pub fn new(config: &ModelConfig, params: &Params, device: Device, compute: Kind) -> ArModel {
        let scope = Scope::new(params);
        let n_head = config.n_head;
        ArModel {
            pre_emb: scope.tensor("pre_emb.weight"),
            post_emb: scope.tensor("post_emb.weight"),
            class_emb: scope.tensor("class_emb.embedding_table.weight"),
            spatial_blocks: scope.each("spatial_blocks", config.spatial_n_layer, |s| Block::new(s, n_head, compute)),
            factorized_blocks: scope
                .each("factorized_blocks", config.factorized_n_layer, |s| IntraBlock::new(s, n_head, compute)),
            norm: scope.tensor("norm.weight"),
            head: [scope.tensor("head.0.weight"), scope.tensor("head.1.weight")],
            rope: Rope::new(config.side(), config.head_dim(), device),
            config: config.clone(),
            compute,
            chunked_loss: Route::of(device).chunked_loss,
            params: params.iter().map(|(name, tensor)| (name.to_string(), tensor.shallow_clone())).collect(),
        }
    }

    /// The model for sampling and evaluation: matrices in the runtime's precision, embeddings and norms in fp32, and so the
    /// residual stream, as while it was trained.
    pub fn for_inference(config: &ModelConfig, params: &Params, runtime: &Runtime) -> ArModel {
        let kind = runtime.precision.kind();
        let is_wide = |name: &str| name.contains("_emb.") || name.contains("norm.");
        let place = |(name, tensor): (&str, &Tensor)| {
            let kind = if is_wide(name) { Kind::Float } else { kind };
            (name.to_string(), tensor.to_kind(kind).to_device(runtime.device))
        };
        let mut model = ArModel::new(config, &params.iter().map(place).collect(), runtime.device, kind);
        model.compute_by(runtime.route);
        model
    }

    /// Computes losses in the form that the route says; until then as its device does.
    pub fn compute_by(&mut self, route: Route) {
        self.chunked_loss = route.chunked_loss;
    }

    /// A decoder with our own kernels, where the model is on the CPU in fp32. It copies the current weights.
    pub fn host_decoder(&self) -> Option<HostDecoder> {
        let fits =
            |tensor: &Tensor| (tensor.device(), tensor.kind()) == (Device::Cpu, Kind::Float) && tensor.is_contiguous();
        let ours = self.compute == Kind::Float && self.params.iter().all(|(_, tensor)| fits(tensor));
        ours.then(|| HostDecoder::new(&self.config, &self.params))
    }

    /// Teacher forcing. `pre`, `post` int64 `[B, N]`, `class` int64 `[B]` (`class_num` = none); fp32 logits `[B, N, 2^6]`
    /// and `[B, N, 2^12]` of every position. Dropout only when `training`.
    pub fn forward(&self, pre_bt: &Tensor, post_bt: &Tensor, class_b: &Tensor, training: bool) -> [Tensor; 2] {
        let h_btd = self.trunk(pre_bt, post_bt, class_b, training);
        self.logits_of(&h_btd, pre_bt, training)
    }

    /// Logits of every position from the spatial stack's output `[B, N, D]`.
    fn logits_of(&self, h_btd: &Tensor, pre_bt: &Tensor, training: bool) -> [Tensor; 2] {
        let (b, n) = pre_bt.size2().expect("tokens [B, N]");
        let [n0_pd, n1_pd] = self.before_heads(h_btd, pre_bt, training);
        [(0, n0_pd), (1, n1_pd)].map(|(part, n_pd)| self.logits(part, &n_pd).view([b, n, -1]))
    }

    /// Mean cross entropies under teacher forcing: tokens `[B, T]` in two parts, classes `[B]`.
    pub fn losses(&self, pre_bt: &Tensor, post_bt: &Tensor, class_b: &Tensor, training: bool) -> Losses {
        let h_btd = self.trunk(pre_bt, post_bt, class_b, training);
        self.losses_of(&h_btd, pre_bt, post_bt, training)
    }

    /// [`ArModel::losses`] from the spatial stack's output `[B, N, D]`.
    pub fn losses_of(&self, h_btd: &Tensor, pre_bt: &Tensor, post_bt: &Tensor, training: bool) -> Losses {
        let [n0_pd, n1_pd] = self.before_heads(h_btd, pre_bt, training);
        let cross_entropy = |part: usize, n_pd: &Tensor, target_bt: &Tensor| {
            let (head_vd, target_p) = (&self.head[part], target_bt.reshape([-1]));
            match self.chunked_loss {
                true => loss::chunked(n_pd, head_vd, &target_p, loss::CHUNK_LOGITS),
                false => loss::plain(n_pd, head_vd, &target_p),
            }
        };
        Losses { pre: cross_entropy(0, &n0_pd, pre_bt), post: cross_entropy(1, &n1_pd, post_bt) }
    }

    /// The spatial stack over a whole sequence: `[B, N, D]`.
    fn trunk(&self, pre_bt: &Tensor, post_bt: &Tensor, class_b: &Tensor, training: bool) -> Tensor {
        let x_btd = self.sequence(pre_bt, post_bt, class_b, training);
        (0..self.spatial_blocks.len()).fold(x_btd, |x, i| self.spatial_block(i, &x, training))
    }

    /// What enters the spatial stack: the class, then the tokens before each position, `[B, N, D]`.
    pub fn sequence(&self, pre_bt: &Tensor, post_bt: &Tensor, class_b: &Tensor, training: bool) -> Tensor {
        let n = pre_bt.size()[1];
        let tokens_btd = self.embed(&pre_bt.narrow(1, 0, n - 1), &post_bt.narrow(1, 0, n - 1));
        let x_btd = Tensor::cat(&[self.embed_class(class_b), tokens_btd], 1);
        drop(x_btd, if training { self.config.token_drop } else { 0.0 })
    }

    /// Block `i` of the spatial stack over a whole sequence `[B, T, D]`.
    pub fn spatial_block(&self, i: usize, x_btd: &Tensor, training: bool) -> Tensor {
        self.spatial_blocks[i].forward(x_btd, &self.rope.rows(0, x_btd.size()[1]), self.dropout(training))
    }

    /// What the heads are multiplied with, `[P, D]` each: for the low bits from the spatial stack's output `[B, N, D]`, for the
    /// high bits given the low ones.
    fn before_heads(&self, h_btd: &Tensor, pre_bt: &Tensor, training: bool) -> [Tensor; 2] {
        let dropout = self.dropout(training);
        let mut x0 = h_btd.flatten(0, 1);
        let mut x1 = self.embed_pre(&pre_bt.reshape([-1]));
        for block in &self.factorized_blocks {
            let (y0, v0) = block.first(&x0, dropout);
            x1 = block.second(&x1, &v0, dropout);
            x0 = y0;
        }
        [self.normed(&x0), self.normed(&x1)]
    }

    fn normed(&self, x_pd: &Tensor) -> Tensor {
        rms_norm(x_pd, &self.norm, self.compute)
    }

    fn logits(&self, part: usize, n_pd: &Tensor) -> Tensor {
        linear(n_pd, &self.head[part]).to_kind(Kind::Float)
    }

    fn dropout(&self, training: bool) -> Dropout {
        if !training {
            return Dropout::default();
        }
        Dropout { resid: self.config.resid_dropout, ffn: self.config.ffn_dropout }
    }

    fn embed_pre(&self, pre: &Tensor) -> Tensor {
        Tensor::embedding(&self.pre_emb, pre, -1, false, false)
    }

    /// Embedded tokens `[.., D]` of low bits `pre` and high bits `post`, both `[..]`.
    pub fn embed(&self, pre: &Tensor, post: &Tensor) -> Tensor {
        self.embed_pre(pre) + Tensor::embedding(&self.post_emb, post, -1, false, false)
    }

    /// The class as the sequence's first element, `[B, 1, D]`.
    pub fn embed_class(&self, class_b: &Tensor) -> Tensor {
        Tensor::embedding(&self.class_emb, &class_b.reshape([-1, 1]), -1, false, false)
    }

    /// Empty key and value caches of every spatial block for `batch` sequences, `[B, H, N, hd]`: zeros, since a position that does
    /// not count must not be NaN either.
    pub fn empty_caches(&self, batch: i64) -> Vec<(Tensor, Tensor)> {
        let shape = [batch, self.config.n_head, self.config.block_size, self.config.head_dim()];
        let empty = || Tensor::zeros(shape, (self.compute, self.pre_emb.device()));
        self.spatial_blocks.iter().map(|_| (empty(), empty())).collect()
    }

    /// Sampling, spatial part: position `at` of the sequence, `x [B, 1, D]`, through the stack; `[B, D]`.
    pub fn step(&self, x_btd: Tensor, at: i64, caches: &[(Tensor, Tensor)]) -> Tensor {
        let factors = self.rope.rows(at, 1);
        let blocks = self.spatial_blocks.iter().zip(caches);
        blocks.fold(x_btd, |x, (block, (keys, values))| block.step(&x, &factors, keys, values, at)).squeeze_dim(1)
    }

    /// [`ArModel::step`] at the position that `at`, int64 `[1]` on the device, holds: the same operations on tensors of the same
    /// shapes for every position.
    pub fn step_at(&self, x_btd: &Tensor, at: &Tensor, caches: &[(Tensor, Tensor)]) -> Tensor {
        let factors = self.rope.row_at(at);
        let positions = Tensor::arange(self.config.block_size, (Kind::Int64, at.device()));
        let is_seen = positions.le_tensor(at).view([1, 1, 1, -1]);
        let blocks = self.spatial_blocks.iter().zip(caches);
        let step = |x: Tensor, (block, (keys, values)): (&Block, &(Tensor, Tensor))| {
            block.step_at(&x, &factors, (keys, values), at, &is_seen)
        };
        blocks.fold(x_btd.shallow_clone(), step).squeeze_dim(1)
    }

    /// Sampling, low bits: logits `[B, V]` from the spatial output, and the values that the high bits attend to.
    pub fn pre_logits(&self, h_bd: &Tensor) -> (Tensor, Vec<Tensor>) {
        let mut x0 = h_bd.shallow_clone();
        let mut values = vec![];
        for block in &self.factorized_blocks {
            let (y0, v0) = block.first(&x0, Dropout::default());
            values.push(v0);
            x0 = y0;
        }
        (self.logits(0, &self.normed(&x0)), values)
    }

    /// Sampling, high bits: logits `[B, V]` given the sampled low bits `[B]`.
    pub fn post_logits(&self, pre_b: &Tensor, values: &[Tensor]) -> Tensor {
        let blocks = self.factorized_blocks.iter().zip(values);
        let x1 = blocks.fold(self.embed_pre(pre_b), |x1, (block, v0)| block.second(&x1, v0, Dropout::default()));
        self.logits(1, &self.normed(&x1))
    }
}
