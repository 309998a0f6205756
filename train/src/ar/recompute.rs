//! Gradients with little memory: of the spatial stack only each block's input is kept, and the block is computed again when
//! the backward pass reaches it (activation checkpointing).

use crate::TrainError;
use crate::optim::{AdamW, Gradients};
use std::collections::HashMap;
use tch::Tensor;
use tokengrid_model::ar::{ArModel, Losses};

/// Losses of one batch, `[pre [B, N], post [B, N], class [B]]`, and their gradients times `scale`. Dropout is drawn from `seed`: each part of the
/// model draws from a seed of its own, so that it draws the same when it is computed again.
///
/// # Errors
/// The tensor library fails.
pub fn recomputed(
    model: &ArModel,
    optimizer: &AdamW,
    batch: &[Tensor; 3],
    scale: f64,
    seed: i64,
) -> Result<(Losses, Gradients), TrainError> {
    let [pre, post, class] = batch;
    let num_blocks = model.config.spatial_n_layer as usize;
    let sequence = || seeded(seed, 0, || model.sequence(pre, post, class, true));
    let block = |i: usize, x: &Tensor| seeded(seed, 1 + i as i64, || model.spatial_block(i, x, true));
    let mut inputs = vec![tch::no_grad(sequence)];
    for i in 0..num_blocks {
        inputs.push(tch::no_grad(|| block(i, &inputs[i])));
    }
    let mut collected = Collected::new(optimizer);
    let h = inputs.pop().expect("the stack's output").detach().set_requires_grad(true);
    let losses = seeded(seed, -1, || model.losses_of(&h, pre, post, true));
    let mut dx =
        collected.backward(&(losses.total() * scale), Some(&h), |name| !name.starts_with("spatial_blocks."))?;
    for i in (0..num_blocks).rev() {
        let x = inputs.pop().expect("an input a block").detach().set_requires_grad(true);
        let y = block(i, &x);
        let prefix = format!("spatial_blocks.{i}.");
        dx = collected.backward(&along(&y, &dx), Some(&x), |name| name.starts_with(&prefix))?;
    }
    let _ = collected.backward(&along(&sequence(), &dx), None, |name| name.contains("_emb."))?;
    Ok((losses, optimizer.gradients_of(&collected.sums)))
}

/// A number whose gradient with respect to `y` is `dy`.
fn along(y: &Tensor, dy: &Tensor) -> Tensor {
    (y * dy).sum(tch::Kind::Float)
}

fn seeded<T>(seed: i64, part: i64, work: impl FnOnce() -> T) -> T {
    tch::manual_seed(seed.wrapping_add(part.wrapping_mul(0x9e37_79b9)));
    work()
}

/// Gradients so far, by parameter.
struct Collected<'a> {
    leaves: Vec<(&'a str, &'a Tensor)>,
    sums: HashMap<String, Tensor>,
}

impl<'a> Collected<'a> {
    fn new(optimizer: &'a AdamW) -> Self {
        Collected { leaves: optimizer.leaves().collect(), sums: HashMap::new() }
    }

    /// Backpropagates to the parameters that `wanted` names, and to `x`; the gradient of `x`.
    fn backward(
        &mut self,
        loss: &Tensor,
        x: Option<&Tensor>,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Tensor, TrainError> {
        let leaves: Vec<_> = self.leaves.iter().filter(|(name, _)| wanted(name)).collect();
        let inputs: Vec<&Tensor> = x.into_iter().chain(leaves.iter().map(|(_, leaf)| *leaf)).collect();
        let mut grads = Tensor::f_run_backward(&[loss], &inputs, false, false)?.into_iter();
        let dx = if x.is_some() { grads.next().unwrap_or_default() } else { Tensor::new() };
        for ((name, _), grad) in leaves.into_iter().zip(grads) {
            // A parameter that this part does not use has no gradient from it.
            if !grad.defined() {
                continue;
            }
            match self.sums.get_mut(*name) {
                Some(sum) => *sum += grad,
                None => drop(self.sums.insert(name.to_string(), grad)),
            }
        }
        Ok(dx)
    }
}
