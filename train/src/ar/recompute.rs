//! Activation checkpointing: of the spatial stack only each block's input is kept, and the block is computed again when
//! the backward pass reaches it.

use crate::TrainError;
use crate::optim::{AdamW, Gradients};
use tch::Tensor;
use tokengrid_model::ar::{ArModel, Losses};

/// Losses of one batch, `[pre [B, N], post [B, N], class [B]]`, whose gradients times `scale` are added to `sums`. Dropout is
/// drawn from `seed`: each part of the model draws from its own seed, so that it draws the same when it is computed again.
///
/// # Errors
/// libtorch fails, for example out of memory.
pub(super) fn recomputed(
    model: &ArModel,
    optimizer: &AdamW,
    sums: &Gradients,
    batch: &[Tensor; 3],
    scale: f64,
    seed: i64,
) -> Result<Losses, TrainError> {
    let [pre, post, class] = batch;
    let num_blocks = model.config.spatial_n_layer as usize;
    let sequence = || seeded(seed, 0, || model.sequence(pre, post, class, true));
    let block = |i: usize, x: &Tensor| seeded(seed, 1 + i as i64, || model.spatial_block(i, x, true));
    let mut inputs = vec![tch::no_grad(sequence)];
    for i in 0..num_blocks {
        inputs.push(tch::no_grad(|| block(i, &inputs[i])));
    }
    let h = inputs.pop().expect("the stack's output").detach().set_requires_grad(true);
    let losses = seeded(seed, -1, || model.losses_of(&h, pre, post, true));
    let mut dx = optimizer.add_gradients(
        &(losses.total() * scale),
        Some(&h),
        |name| !name.starts_with("spatial_blocks."),
        sums,
    )?;
    for i in (0..num_blocks).rev() {
        let x = inputs.pop().expect("one input per block").detach().set_requires_grad(true);
        let y = block(i, &x);
        let prefix = format!("spatial_blocks.{i}.");
        dx = optimizer.add_gradients(&vector_jacobian(&y, &dx), Some(&x), |name| name.starts_with(&prefix), sums)?;
    }
    let _ = optimizer.add_gradients(&vector_jacobian(&sequence(), &dx), None, |name| name.contains("_emb."), sums)?;
    Ok(losses)
}

/// A scalar whose backward pass computes the vector-Jacobian product of `dy` with `y`: its gradient with respect to `y` is `dy`.
fn vector_jacobian(y: &Tensor, dy: &Tensor) -> Tensor {
    (y * dy).sum(tch::Kind::Float)
}

fn seeded<T>(seed: i64, part: i64, work: impl FnOnce() -> T) -> T {
    tch::manual_seed(seed.wrapping_add(part.wrapping_mul(0x9e37_79b9)));
    work()
}
