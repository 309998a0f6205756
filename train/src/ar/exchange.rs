//! Gradients, summed over the processes of a run: in buckets, which are ranges of the flat buffers and no copies, each started
//! as soon as the backward pass has completed it.
//!
//! Where the processes share the optimizer's moments, each needs only the sums of its part. A backend may sum
//! for one process at less cost (NCCL does; Gloo's sum for one process is not cheaper enough to give up that its sums for all are
//! the same with and without sharing): a bucket is then summed for the owners of its parts.

use super::fused::{num_stages, stage_of};
use crate::TrainError;
use crate::optim::{AdamW, Gradients, Shard};
use crate::process_group::{Pending, ProcessGroup};
use std::rc::Rc;
use tch::{Kind, Tensor};
use tokengrid_model::ar::ModelConfig;

/// Bytes of gradients in a bucket: enough to use a network, and few enough for the first exchange to start early. The default
/// of PyTorch's DDP (`bucket_cap_mb`).
const BUCKET_BYTES: usize = 25 << 20;

/// A range of a flat gradient buffer.
#[derive(Debug)]
struct Bucket {
    gradients: Tensor,
    /// The stage of the backward pass that is the last to write to it.
    stage: usize,
    /// Its parts by owner.
    parts: Vec<Part>,
}

/// A part of a bucket whose moments one process keeps.
#[derive(Debug)]
struct Part {
    first: i64,
    len: i64,
    owner: usize,
}

/// The buckets of a model, in the order in which they are started.
#[derive(Debug)]
pub(crate) struct Buckets {
    buckets: Vec<Bucket>,
    /// Element type of the exchange.
    kind: Kind,
    shard: Shard,
}

impl Buckets {
    /// Buckets over `gradients`, which are the optimizer's. With a `kind` other than fp32, gradients are rounded to it for the
    /// exchange.
    pub(super) fn new(model: &ModelConfig, optimizer: &AdamW, gradients: &Gradients, kind: Kind) -> Buckets {
        Self::of_size(BUCKET_BYTES, model, optimizer, gradients, kind)
    }

    fn of_size(bytes: usize, model: &ModelConfig, optimizer: &AdamW, gradients: &Gradients, kind: Kind) -> Buckets {
        let (shard, groups) = (optimizer.shard(), optimizer.layout().into_iter().zip(gradients.flats()));
        let mut buckets: Vec<Bucket> =
            groups.flat_map(|(leaves, flat)| cut(bytes, model, &leaves, flat, shard)).collect();
        buckets.sort_by_key(|bucket| bucket.stage);
        Buckets { buckets, kind, shard }
    }

    /// Whether [`Exchange`] leaves each process with the sums of its own part only.
    pub(super) fn sums_for_owners(&self, processes: &dyn ProcessGroup) -> bool {
        let device = self.buckets.first().map(|bucket| bucket.gradients.device());
        self.shard.world_size > 1 && device.is_some_and(|device| processes.sums_for_one(device))
    }

    /// The gradients of each bucket, for a caller that fixes the order of additions itself.
    pub(super) fn ranges(&self) -> impl Iterator<Item = &Tensor> {
        self.buckets.iter().map(|bucket| &bucket.gradients)
    }
}

/// One group's buffer in buckets of whole parameters, from its end, where the gradients are complete first: the remainder is the
/// last bucket, whose exchange nothing hides. Parameters whose gradients are complete at the very end only (embeddings) share
/// none with others, which would wait for them.
fn cut(bytes: usize, model: &ModelConfig, leaves: &[(&str, usize)], flat: &Tensor, shard: Shard) -> Vec<Bucket> {
    let (whole, last) = (flat.numel() as i64, num_stages(model) - 1);
    let stages: Vec<usize> = leaves.iter().map(|(name, _)| stage_of(model, name)).collect();
    let (mut buckets, mut from, mut len, mut stage) = (vec![], whole, 0, 0);
    for (i, (_, numel)) in leaves.iter().enumerate().rev() {
        let numel = *numel as i64;
        (from, len, stage) = (from - numel, len + numel, stage.max(stages[i]));
        let is_other_kind = |next: usize| (stages[next] == last) != (stage == last);
        if len as usize * size_of::<f32>() >= bytes || i.checked_sub(1).is_none_or(is_other_kind) {
            buckets.push(Bucket { gradients: flat.narrow(0, from, len), stage, parts: parts(shard, whole, from, len) });
            (len, stage) = (0, 0);
        }
    }
    buckets
}

/// The owners of `len` numbers from `from` on in a buffer of `whole` numbers.
fn parts(shard: Shard, whole: i64, from: i64, len: i64) -> Vec<Part> {
    let part = |owner: usize| {
        let (first, owned) = shard.of_rank(owner, whole);
        let (begin, end) = (first.max(from), (first + owned).min(from + len));
        (begin < end).then(|| Part { first: begin - from, len: end - begin, owner })
    };
    (0..shard.world_size).filter_map(part).collect()
}

/// The exchange of one step's gradients.
pub(crate) struct Exchange<'a> {
    processes: &'a dyn ProcessGroup,
    buckets: Rc<Buckets>,
    /// What was started, with the rounded gradients where they are exchanged rounded.
    started: Vec<(Vec<Pending<'a>>, Option<Tensor>)>,
    failed: Option<TrainError>,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(processes: &'a dyn ProcessGroup, buckets: &Rc<Buckets>) -> Exchange<'a> {
        Exchange { processes, buckets: Rc::clone(buckets), started: vec![], failed: None }
    }

    /// The backward pass has completed a stage: starts the buckets that are complete now.
    pub(super) fn reached(&mut self, stage: usize) {
        if self.processes.world_size() == 1 {
            return;
        }
        let _no_grad = tch::no_grad_guard();
        let buckets = Rc::clone(&self.buckets);
        // In the same order in all processes.
        let next = self.started.len();
        for bucket in buckets.buckets.iter().skip(next).take_while(|bucket| bucket.stage <= stage) {
            if self.failed.is_some() {
                return;
            }
            let rounded = (buckets.kind != Kind::Float).then(|| bucket.gradients.to_kind(buckets.kind));
            match self.start(bucket, rounded.as_ref().unwrap_or(&bucket.gradients)) {
                Ok(pending) => self.started.push((pending, rounded)),
                Err(error) => self.failed = Some(error),
            }
        }
    }

    /// Starts the sums of a bucket, whose numbers are in `exchanged`.
    fn start(&self, bucket: &Bucket, exchanged: &Tensor) -> Result<Vec<Pending<'a>>, TrainError> {
        let processes = self.processes;
        if !self.buckets.sums_for_owners(processes) {
            return Ok(vec![processes.start_sum(exchanged)?]);
        }
        let start = |part: &Part| processes.start_sum_for(&exchanged.narrow(0, part.first, part.len), part.owner);
        bucket.parts.iter().map(start).collect()
    }

    /// Starts what is left, and waits for all of it.
    ///
    /// # Errors
    /// Another process is gone.
    pub(super) fn finish(mut self, model: &ModelConfig) -> Result<(), TrainError> {
        self.reached(num_stages(model));
        if let Some(error) = self.failed {
            return Err(error);
        }
        let _no_grad = tch::no_grad_guard();
        for ((pending, rounded), bucket) in self.started.into_iter().zip(&self.buckets.buckets) {
            pending.into_iter().try_for_each(Pending::wait)?;
            if let Some(rounded) = rounded {
                bucket.gradients.shallow_clone().copy_(&rounded);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ar::data::HostBatch;
    use crate::ar::fused::FusedStep;
    use crate::optim::AdamWConfig;
    use crate::process_group::ThreadProcessGroup;
    use tch::Device;
    use tokengrid_model::Params;
    use tokengrid_model::ar::initial_params;

    fn small() -> ModelConfig {
        let (factorized_bits, block_size, class_num) = ([3, 5], 16, 7);
        let (dim, n_head, spatial_n_layer, factorized_n_layer) = (32, 4, 3, 2);
        ModelConfig {
            dim,
            n_head,
            spatial_n_layer,
            factorized_n_layer,
            factorized_bits,
            block_size,
            class_num,
            ..ModelConfig::default()
        }
    }

    fn optimizer(model: &ModelConfig) -> (AdamW, Params) {
        let adamw = AdamWConfig { betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1, weight_decay_on_norms: true };
        // Heads start at zero, and no gradient would pass through them.
        let lively = |(name, tensor): (&str, &Tensor)| (name.to_string(), tensor + tensor.randn_like() * 0.02);
        let params: Params = initial_params(model, 1).iter().map(lively).collect();
        AdamW::new(&params, adamw, Device::Cpu)
    }

    #[test]
    fn gradients_are_complete_when_their_stage_is_reached() {
        let model = small();
        let (optimizer, leaves) = optimizer(&model);
        let (_gradients, views) = optimizer.zero_gradients();
        // SAFETY: nothing else uses these tensors while the step runs, except for gradients that are complete.
        let mut step = unsafe { FusedStep::new(&model, &leaves, &views, 2) };
        let (mut stages, mut early) = (vec![], vec![]);
        step.run_in_stages(&HostBatch::synthetic(&model, 2, 1), 1.0, Some(&[1]), &mut |stage| {
            stages.push(stage);
            let complete = views.iter().filter(|(name, _)| stage_of(&model, name) <= stage);
            early.extend(complete.map(|(name, view)| (name.to_string(), view.copy())));
        });
        assert_eq!(stages, (0..num_stages(&model)).collect::<Vec<_>>());
        assert!(early.len() > 2 * views.len(), "{}", early.len());
        for (name, gradient) in early {
            assert!(gradient.equal(views.get(&name)), "{name} changes after its stage");
            assert!(gradient.abs().max().double_value(&[]) > 0.0, "{name}");
        }
    }

    #[test]
    fn small_buckets_are_summed_while_the_backward_pass_runs() {
        let model = small();
        std::thread::scope(|scope| {
            for processes in ThreadProcessGroup::group(2) {
                let model = &model;
                scope.spawn(move || {
                    let (optimizer, _) = optimizer(model);
                    let (gradients, views) = optimizer.zero_gradients();
                    let buckets = Rc::new(Buckets::of_size(1 << 10, model, &optimizer, &gradients, Kind::Float));
                    assert!(buckets.buckets.len() > 10);
                    let mut exchange = Exchange::new(&processes, &buckets);
                    for stage in 0..num_stages(model) {
                        let written = views.iter().filter(|(name, _)| stage_of(model, name) == stage);
                        written.for_each(|(_, view)| drop(view.shallow_clone().fill_(1.0 + processes.rank() as f64)));
                        exchange.reached(stage);
                    }
                    assert_eq!(exchange.started.len(), buckets.buckets.len(), "no bucket is left for the end");
                    exchange.finish(model).unwrap();
                    for (name, view) in views.iter() {
                        let ends = [view.min(), view.max()].map(|end| end.double_value(&[]));
                        assert_eq!(ends, [3.0; 2], "{name}");
                    }
                });
            }
        });
    }

    #[test]
    fn buckets_are_cut_at_the_bounds_of_their_owners() {
        // Parts of a buffer of ten numbers: 0 to 3, 3 to 6, 6 to 10.
        let cuts = |from, len| {
            let parts = parts(Shard { rank: 1, world_size: 3 }, 10, from, len);
            parts.iter().map(|part| (part.first, part.len, part.owner)).collect::<Vec<_>>()
        };
        assert_eq!(cuts(0, 10), [(0, 3, 0), (3, 3, 1), (6, 4, 2)]);
        assert_eq!(cuts(2, 5), [(0, 1, 0), (1, 3, 1), (4, 1, 2)]);
        assert_eq!(cuts(7, 2), [(0, 2, 2)]);
    }

    #[test]
    fn buckets_cover_every_gradient_once_and_follow_the_backward_pass() {
        let model = ModelConfig { dim: 512, n_head: 8, spatial_n_layer: 12, block_size: 16, ..ModelConfig::default() };
        let (optimizer, _) = optimizer(&model);
        let (gradients, views) = optimizer.zero_gradients();
        let buckets = Buckets::new(&model, &optimizer, &gradients, Kind::Float);
        assert!(buckets.buckets.len() > 4, "{}", buckets.buckets.len());
        assert!(buckets.buckets.is_sorted_by_key(|bucket| bucket.stage));
        tch::no_grad(|| buckets.ranges().for_each(|range| drop(range.shallow_clone().g_add_scalar_(1.0))));
        for (name, view) in views.iter() {
            assert_eq!(view.min().double_value(&[]), 1.0, "{name}");
            assert_eq!(view.max().double_value(&[]), 1.0, "{name}");
        }
        let early = buckets.buckets.iter().filter(|bucket| bucket.stage < num_stages(&model) - 1).count();
        assert!(early > 0, "some are complete before the backward pass ends");
    }
}
