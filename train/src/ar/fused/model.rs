//! The step, top to bottom.

use super::intra::Intra;
use super::norm::Norm;
use super::spatial::{Masks, Shape, Spatial};
use super::weight::{Weight, Weights};
use crate::ar::data::HostBatch;
use tokengrid_model::Params;
use tokengrid_model::ar::ModelConfig;
use tokengrid_model::ar::Rotation;
use tokengrid_model::kernels::elementwise::{Mask, add, cross_entropy};
use tokengrid_model::kernels::matrix::{Matrix, ROWS};
use tokengrid_model::kernels::threads::{Pieces, for_rows};
use tokengrid_model::rng::CounterRng;

/// Forward and backward over batches of one size. Owns the memory of all activations.
#[derive(Debug)]
pub struct FusedStep {
    config: ModelConfig,
    batch: usize,
    rotation: Rotation,
    pre_emb: Weight,
    post_emb: Weight,
    class_emb: Weight,
    spatial: Vec<Spatial>,
    intra: Vec<Intra>,
    norm: Norm,
    head: [Weight; 2],
    /// Embedded sequence `[P, D]`.
    x_pd: Matrix,
    /// Sub-tokens `[2P, D]`.
    sub_pd: Matrix,
    logits_pv: [Matrix; 2],
    dsub_pd: Matrix,
    scratch_pd: Matrix,
}

impl FusedStep {
    /// A step for batches of `batch` sequences. `values` and `grads` hold a tensor for each of
    /// [`ModelConfig::tensors`], contiguous fp32 on the CPU; the step adds to the latter.
    ///
    /// # Safety
    /// The step keeps the memory of these tensors. While [`FusedStep::run`] works, no other code writes to the values, or reads
    /// or writes the gradients, but for those that `FusedStep::run_in_stages` has called complete.
    pub unsafe fn new(config: &ModelConfig, values: &Params, grads: &Params, batch: usize) -> FusedStep {
        // SAFETY: the caller's promise; below, each parameter is taken once.
        let weights = unsafe { Weights::new(values, grads) };
        let (positions, heads, d) = (config.block_size as usize, config.n_head as usize, config.dim as usize);
        let rows = batch * positions;
        let shape = Shape { batch, positions, heads };
        let head = [weights.matrix("head.0.weight"), weights.matrix("head.1.weight")];
        let spatial = |i| Spatial::new(&weights.block("spatial_blocks", i), shape);
        let intra = |i| Intra::new(&weights.block("factorized_blocks", i), rows, heads);
        FusedStep {
            batch,
            rotation: Rotation::new(config),
            pre_emb: weights.matrix("pre_emb.weight"),
            post_emb: weights.matrix("post_emb.weight"),
            class_emb: weights.matrix("class_emb.embedding_table.weight"),
            spatial: (0..config.spatial_n_layer).map(spatial).collect(),
            intra: (0..config.factorized_n_layer).map(intra).collect(),
            norm: Norm::new(&weights, "norm.weight", 2 * rows),
            logits_pv: [0, 1].map(|part| Matrix::new(rows, head[part].value.rows)),
            head,
            x_pd: Matrix::new(rows, d),
            sub_pd: Matrix::new(2 * rows, d),
            dsub_pd: Matrix::new(2 * rows, d),
            scratch_pd: Matrix::new(2 * rows, d),
            config: config.clone(),
        }
    }

    /// Mean cross entropies of both sub-tokens, in nats per token; adds their gradients times `scale`. Dropout is a function of
    /// `name`; `None` turns it off.
    ///
    /// # Panics
    /// When the batch has another size.
    pub fn run(&mut self, batch: &HostBatch, scale: f64, name: Option<&[u64]>) -> [f64; 2] {
        self.run_in_stages(batch, scale, name, &mut |_| {})
    }

    /// As [`FusedStep::run`]; `reached` is called with each stage of the backward pass when it is done: the gradients that
    /// [`stage_of`] gives to it are complete.
    ///
    /// # Panics
    /// As [`FusedStep::run`].
    pub(crate) fn run_in_stages(
        &mut self,
        batch: &HostBatch,
        scale: f64,
        name: Option<&[u64]>,
        reached: &mut dyn FnMut(usize),
    ) -> [f64; 2] {
        let _no_grad = tch::no_grad_guard();
        assert_eq!(batch.class.len(), self.batch, "the step was built for another batch size");
        let dropout = Dropout { config: &self.config.clone(), name };
        self.forward(batch, &dropout);
        let losses = self.losses(batch, scale);
        reached(0);
        self.backward(batch, &dropout, reached);
        losses
    }

    /// Sequences in a batch.
    pub fn batch_size(&self) -> usize {
        self.batch
    }

    fn forward(&mut self, batch: &HostBatch, dropout: &Dropout) {
        self.embed(batch);
        self.x_pd.drop(dropout.of_tokens());
        for i in 0..self.spatial.len() {
            let (done, rest) = self.spatial.split_at_mut(i);
            let x_pd = done.last().map_or(&self.x_pd, Spatial::output);
            rest[0].forward(x_pd, &self.rotation, dropout.of_block(i));
        }
        self.sub_tokens(batch);
        for i in 0..self.intra.len() {
            let (done, rest) = self.intra.split_at_mut(i);
            let sub_pd = done.last().map_or(&self.sub_pd, Intra::output);
            rest[0].forward(sub_pd, dropout.of_block(self.spatial.len() + i));
        }
    }

    /// Heads and cross entropies, forward and backward: leaves the gradient of the intra stack's output in `dsub`.
    fn losses(&mut self, batch: &HostBatch, scale: f64) -> [f64; 2] {
        let rows = self.x_pd.rows;
        let sub_pd = self.intra.last().map_or(&self.sub_pd, Intra::output);
        self.norm.forward(sub_pd);
        let mut losses = [0.0; 2];
        for (part, targets) in [&batch.pre, &batch.post].into_iter().enumerate() {
            let (logits_pv, head) = (&mut self.logits_pv[part], &mut self.head[part]);
            let n_pd = self.norm.output().part(part * rows, rows);
            logits_pv.linear(&n_pd, &head.value);
            losses[part] = mean_cross_entropy(logits_pv, targets, (scale / rows as f64) as f32);
            head.grad.add_weight_grad(logits_pv, &n_pd);
        }
        for part in 0..2 {
            // SAFETY: the norm's output is not touched before the part is gone.
            let mut dn_pd = unsafe { self.norm.output_mut().part_mut(part * rows, rows) };
            dn_pd.linear_backward(&self.logits_pv[part], &self.head[part].value);
        }
        self.dsub_pd.fill_zero();
        self.norm.backward(sub_pd, &mut self.dsub_pd);
        losses
    }

    fn backward(&mut self, batch: &HostBatch, dropout: &Dropout, reached: &mut dyn FnMut(usize)) {
        let rows = self.x_pd.rows;
        for i in (0..self.intra.len()).rev() {
            let (before, rest) = self.intra.split_at_mut(i);
            let sub_pd = before.last().map_or(&self.sub_pd, Intra::output);
            let masks = dropout.of_block(self.spatial.len() + i);
            rest[0].backward(sub_pd, &mut self.dsub_pd, &mut self.scratch_pd, masks);
            reached(self.intra.len() - i);
        }
        self.embed_pre_backward(batch);
        // SAFETY: neither whole buffer is used before its parts are dropped.
        let (mut dx_pd, mut scratch_pd) =
            unsafe { (self.dsub_pd.part_mut(0, rows), self.scratch_pd.part_mut(0, rows)) };
        for i in (0..self.spatial.len()).rev() {
            let (before, rest) = self.spatial.split_at_mut(i);
            let x_pd = before.last().map_or(&self.x_pd, Spatial::output);
            rest[0].backward(x_pd, &mut dx_pd, &mut scratch_pd, &self.rotation, dropout.of_block(i));
            reached(self.intra.len() + self.spatial.len() - i);
        }
        dx_pd.drop(dropout.of_tokens());
        drop((dx_pd, scratch_pd));
        self.embed_backward(batch);
        reached(num_stages(&self.config) - 1);
    }

    /// The class, then the tokens before each position.
    fn embed(&mut self, batch: &HostBatch) {
        let positions = self.config.block_size as usize;
        let (pre_emb, post_emb, class_emb) = (&self.pre_emb.value, &self.post_emb.value, &self.class_emb.value);
        self.x_pd.each_row(&|row, x| match row % positions {
            0 => x.copy_from_slice(class_emb.row(batch.class[row / positions] as usize)),
            _ => {
                x.copy_from_slice(pre_emb.row(batch.pre[row - 1] as usize));
                add(x, post_emb.row(batch.post[row - 1] as usize));
            }
        });
    }

    /// One thread: several positions may add to one row.
    fn embed_backward(&mut self, batch: &HostBatch) {
        let dx_pd = self.dsub_pd.part(0, self.x_pd.rows);
        let (positions, d) = (self.config.block_size as usize, dx_pd.columns);
        for row in 0..dx_pd.rows {
            let dx = dx_pd.row(row);
            let add_to = |weight: &mut Weight, index: i64| {
                let at = index as usize * d;
                add(&mut weight.grad.values_mut()[at..at + d], dx);
            };
            if row % positions == 0 {
                add_to(&mut self.class_emb, batch.class[row / positions]);
            } else {
                add_to(&mut self.pre_emb, batch.pre[row - 1]);
                add_to(&mut self.post_emb, batch.post[row - 1]);
            }
        }
    }

    /// The intra stack's input: the trunk's output, then the embedded low bits.
    fn sub_tokens(&mut self, batch: &HostBatch) {
        let rows = self.x_pd.rows;
        let h_pd = self.spatial.last().map_or(&self.x_pd, Spatial::output);
        let pre_emb = &self.pre_emb.value;
        // SAFETY: two disjoint halves, and the whole buffer is not used before they are dropped.
        let [mut first_pd, mut second_pd] = [0, rows].map(|from| unsafe { self.sub_pd.part_mut(from, rows) });
        first_pd.copy_from(h_pd);
        second_pd.each_row(&|row, x| x.copy_from_slice(pre_emb.row(batch.pre[row] as usize)));
    }

    fn embed_pre_backward(&mut self, batch: &HostBatch) {
        let (rows, d) = (self.x_pd.rows, self.x_pd.columns);
        let dpre = self.pre_emb.grad.values_mut();
        for (row, &pre) in batch.pre.iter().enumerate() {
            let at = pre as usize * d;
            add(&mut dpre[at..at + d], self.dsub_pd.row(rows + row));
        }
    }
}

/// Stages of the backward pass: the heads, the blocks of both stacks from the last to the first, the embeddings.
pub(crate) fn num_stages(config: &ModelConfig) -> usize {
    (config.factorized_n_layer + config.spatial_n_layer) as usize + 2
}

/// The stage after which the gradient of a parameter is complete.
pub(crate) fn stage_of(config: &ModelConfig, name: &str) -> usize {
    let (intra, spatial) = (config.factorized_n_layer as usize, config.spatial_n_layer as usize);
    let last = num_stages(config) - 1;
    let mut parts = name.split('.');
    let (stack, number) = (parts.next().unwrap_or_default(), parts.next().and_then(|part| part.parse::<usize>().ok()));
    match (stack, number) {
        ("head", _) | ("norm", None) => 0,
        ("factorized_blocks", Some(number)) => intra.saturating_sub(number).max(1),
        ("spatial_blocks", Some(number)) => intra + spatial.saturating_sub(number).max(1),
        _ => last,
    }
}

/// Which elements are dropped in one step.
struct Dropout<'a> {
    config: &'a ModelConfig,
    name: Option<&'a [u64]>,
}

impl Dropout<'_> {
    fn mask(&self, rate: f64, site: u64) -> Option<Mask> {
        let name = self.name.filter(|_| rate > 0.0)?;
        Some(Mask::new(rate, CounterRng::new(&[name, &[site]].concat()).next_u64()))
    }

    fn of_tokens(&self) -> Option<Mask> {
        self.mask(self.config.token_drop, 0)
    }

    fn of_block(&self, number: usize) -> Masks {
        let site = 1 + 2 * number as u64;
        Masks { resid: self.mask(self.config.resid_dropout, site), ffn: self.mask(self.config.ffn_dropout, site + 1) }
    }
}

/// Replaces logits `[P, V]` by the gradient of `scale` times the sum of the rows' cross entropies; returns their mean, in nats.
fn mean_cross_entropy(logits_pv: &mut Matrix, targets: &[i64], scale: f32) -> f64 {
    let (rows, columns) = (logits_pv.rows, logits_pv.columns);
    let mut losses = vec![0f32; rows];
    let (logits, places) = (Pieces::of(logits_pv.values_mut()), Pieces::of(&mut losses));
    for_rows(rows, ROWS, &|first, count| {
        for (row, &target) in (first..first + count).zip(&targets[first..]) {
            // SAFETY: `for_rows` hands out disjoint ranges of rows.
            let (logits, loss) = unsafe { (logits.piece(row * columns, columns), places.piece(row, 1)) };
            loss[0] = cross_entropy(logits, target as usize, scale);
        }
    });
    losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / rows as f64
}
