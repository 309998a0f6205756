//! The loss of a model over a cache.

use super::data::Unpacker;
use crate::TrainError;
use crate::processes::{OneProcess, Processes};
use std::sync::atomic::{AtomicBool, Ordering};
use tch::{Device, Tensor};
use tokengrid_model::ar::ArModel;

/// Teacher-forced losses over a whole cache.
#[derive(Debug, Clone, Copy)]
pub struct Evaluation {
    /// Sum of both parts, nats per token.
    pub loss: f64,
    /// Low bits.
    pub loss_pre: f64,
    /// High bits.
    pub loss_post: f64,
    /// Tokens evaluated.
    pub tokens: u64,
}

/// Mean losses of `model` over every row of a cache or split (or the first `limit`), in the cache's order.
///
/// # Errors
/// [`TrainError::Cancelled`] when `cancel` is set, which is looked at between batches.
pub fn evaluate(
    model: &ArModel,
    cache: &Unpacker,
    device: Device,
    limit: Option<usize>,
    cancel: Option<&AtomicBool>,
) -> Result<Evaluation, TrainError> {
    evaluate_among(model, cache, device, limit, cancel, &OneProcess)
}

/// As [`evaluate`], in which every process looks at its share of the rows; all of them know the result.
///
/// # Errors
/// As there; another process is gone.
pub fn evaluate_among(
    model: &ArModel,
    cache: &Unpacker,
    device: Device,
    limit: Option<usize>,
    cancel: Option<&AtomicBool>,
    processes: &dyn Processes,
) -> Result<Evaluation, TrainError> {
    const BATCH: usize = 16;
    let _no_grad = tch::no_grad_guard();
    let rows: Vec<usize> = cache.rows().take(limit.unwrap_or(usize::MAX)).collect();
    let (mut pre_sum, mut post_sum) = (0.0, 0.0);
    for chunk in rows.chunks(BATCH).skip(processes.rank()).step_by(processes.world_size()) {
        if cancel.is_some_and(|cancel| cancel.load(Ordering::SeqCst)) {
            return Err(TrainError::Cancelled);
        }
        let [pre, post, class] = cache.unpack(chunk).to_device(device);
        let losses = model.losses(&pre, &post, &class, false);
        pre_sum += losses.pre.double_value(&[]) * chunk.len() as f64;
        post_sum += losses.post.double_value(&[]) * chunk.len() as f64;
    }
    let sums = Tensor::from_slice(&[pre_sum, post_sum]);
    processes.sum(&sums)?;
    let count = rows.len().max(1) as f64;
    let [loss_pre, loss_post] = [0, 1].map(|part| sums.double_value(&[part]) / count);
    let tokens = rows.len() as u64 * model.config.block_size as u64;
    Ok(Evaluation { loss: loss_pre + loss_post, loss_pre, loss_post, tokens })
}
