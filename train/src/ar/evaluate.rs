//! The loss of a model over a cache.

use super::data::Unpacker;
use crate::TrainError;
use crate::process_group::{OneProcess, ProcessGroup};
use std::sync::atomic::{AtomicBool, Ordering};
use tch::{Device, Tensor};
use tokengrid_model::ar::ArModel;
use tokengrid_model::guard::guarded;

/// Teacher-forced losses over a whole cache.
#[derive(Debug, Clone, Copy)]
pub struct Evaluation {
    /// Sum of both parts, in nats per token.
    pub loss: f64,
    /// Cross entropy of the low bits, in nats per token.
    pub loss_pre: f64,
    /// Cross entropy of the high bits given the low ones, in nats per token.
    pub loss_post: f64,
    /// Tokens evaluated.
    pub tokens: u64,
}

/// Mean losses of `model` over every row of a cache or split (or the first `limit`), in the cache's order.
///
/// # Errors
/// [`TrainError::Cancelled`] when `cancel` is set, which is checked between batches; rows that are not staged cannot be
/// read; libtorch fails.
pub fn evaluate(
    model: &ArModel,
    cache: &Unpacker,
    device: Device,
    limit: Option<usize>,
    cancel: Option<&AtomicBool>,
) -> Result<Evaluation, TrainError> {
    evaluate_among(model, cache, device, limit, cancel, &OneProcess)
}

/// As [`evaluate`], with the rows shared among the processes. All return the same result, equal to that of one process: the
/// losses of batches are added up in the order of the rows.
///
/// # Errors
/// As [`evaluate`]; another process is gone.
pub fn evaluate_among(
    model: &ArModel,
    cache: &Unpacker,
    device: Device,
    limit: Option<usize>,
    cancel: Option<&AtomicBool>,
    processes: &dyn ProcessGroup,
) -> Result<Evaluation, TrainError> {
    const BATCH: usize = 16;
    let _no_grad = tch::no_grad_guard();
    let rows: Vec<usize> = cache.rows().take(limit.unwrap_or(usize::MAX)).collect();
    // Batches are dealt out in rounds; where the last round is not full, a process contributes zeros. At least one round, so
    // that no tensor is empty.
    let rounds = rows.len().div_ceil(BATCH * processes.world_size()).max(1);
    let mut own = vec![[0f64; 2]; rounds];
    let batches = rows.chunks(BATCH).skip(processes.rank()).step_by(processes.world_size());
    for (sums, batch) in own.iter_mut().zip(batches) {
        if cancel.is_some_and(|cancel| cancel.load(Ordering::SeqCst)) {
            return Err(TrainError::Cancelled);
        }
        let batch = cache.unpack(batch)?;
        *sums = guarded(|| {
            let [pre, post, class] = batch.to_device(device);
            let losses = model.losses(&pre, &post, &class, false);
            [losses.pre, losses.post].map(|loss| loss.double_value(&[]) * batch.class.len() as f64)
        })?;
    }
    let own = Tensor::from_slice(own.as_flattened()).view([rounds as i64, 2]);
    let in_order: Vec<f64> = Vec::try_from(&processes.all_gather(&own)?.transpose(0, 1).reshape([-1]))?;
    let [pre_sum, post_sum] = [0, 1].map(|part| in_order.iter().skip(part).step_by(2).sum::<f64>());
    let count = rows.len().max(1) as f64;
    let (loss_pre, loss_post) = (pre_sum / count, post_sum / count);
    let tokens = rows.len() as u64 * model.config.block_size as u64;
    Ok(Evaluation { loss: loss_pre + loss_post, loss_pre, loss_post, tokens })
}
