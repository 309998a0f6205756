//! Gradients of one step.

use super::Shard;
use super::squares::sum_of_squares;
use crate::TrainError;
use crate::process_group::ProcessGroup;
use tch::{Device, Kind, Tensor};

/// Gradients of one step, flat, one tensor per group.
#[derive(Debug)]
pub struct Gradients(pub(super) Vec<Tensor>);

impl Gradients {
    /// The tensors themselves, one per group.
    pub(crate) fn flats(&self) -> &[Tensor] {
        &self.0
    }

    /// The same tensors.
    pub(crate) fn shallow_clone(&self) -> Gradients {
        Gradients(self.0.iter().map(Tensor::shallow_clone).collect())
    }

    /// Back to zero.
    pub fn zero(&mut self) {
        for grad in &mut self.0 {
            let _ = grad.zero_();
        }
    }

    /// Multiplies all gradients by `factor`.
    pub fn scale(&mut self, factor: f64) {
        for grad in &mut self.0 {
            let _ = grad.g_mul_scalar_(factor);
        }
    }

    /// Whether there is neither an infinity nor a NaN among them. Waits for the device.
    pub fn is_finite(&self) -> bool {
        self.norm().is_finite()
    }

    /// The global 2-norm. Waits for the device.
    pub fn norm(&self) -> f64 {
        let squares = |grad: &Tensor| match grad.device() {
            // SAFETY: whoever writes gradients has them by `&mut`, or is done (an exchange).
            Device::Cpu => unsafe { sum_of_squares(grad) },
            _ => grad.square().sum(Kind::Double).double_value(&[]),
        };
        self.0.iter().map(squares).sum::<f64>().sqrt()
    }

    /// Scales to a global 2-norm of at most `max_norm`; returns the norm before clipping. Waits for the device.
    pub fn clip(&mut self, max_norm: f64) -> f64 {
        let norm = self.norm();
        let factor = clip_factor(norm, max_norm);
        if factor < 1.0 {
            self.scale(factor);
        }
        norm
    }

    /// [`Gradients::clip`] without waiting for the device: the norm is a tensor `[]` there.
    pub(crate) fn clip_async(&mut self, max_norm: f64) -> Tensor {
        let squares: Vec<Tensor> = self.0.iter().map(|grad| grad.square().sum(Kind::Double)).collect();
        self.scale_to(max_norm, Tensor::stack(&squares, 0).sum(Kind::Double).sqrt())
    }

    /// As [`Gradients::clip_async`], where each process has the sums of its own part only.
    ///
    /// # Errors
    /// Another process is gone.
    pub(crate) fn clip_shared(
        &mut self,
        max_norm: f64,
        shard: Shard,
        processes: &dyn ProcessGroup,
    ) -> Result<Tensor, TrainError> {
        let squares: Vec<Tensor> = self.0.iter().map(|grad| shard.own(grad).square().sum(Kind::Double)).collect();
        let squares = Tensor::stack(&squares, 0).sum(Kind::Double).view([1]);
        processes.sum(&squares)?;
        Ok(self.scale_to(max_norm, squares.sqrt().view([])))
    }

    /// Scales gradients of the norm `norm`, `[]`, to a norm of at most `max_norm`; returns `norm`.
    fn scale_to(&mut self, max_norm: f64, norm: Tensor) -> Tensor {
        let factor = ((&norm + 1e-6).reciprocal() * max_norm).clamp_max(1.0).to_kind(Kind::Float);
        for grad in &mut self.0 {
            let _ = grad.g_mul_(&factor);
        }
        norm
    }
}

/// Backpropagates `loss` to `leaves`, each with the sum that its gradient is added to, and to `x`; returns the gradient of `x`. The
/// gradients are added one after the other, so that only this call's are in memory besides.
///
/// # Errors
/// The tensor library fails, out of memory for one.
pub(crate) fn backpropagate(
    loss: &Tensor,
    x: Option<&Tensor>,
    leaves: Vec<(&Tensor, Tensor)>,
) -> Result<Tensor, TrainError> {
    let (leaves, sums): (Vec<&Tensor>, Vec<Tensor>) = leaves.into_iter().unzip();
    let inputs: Vec<&Tensor> = x.into_iter().chain(leaves).collect();
    let mut grads = Tensor::f_run_backward(&[loss], &inputs, false, false)?.into_iter();
    let dx = if x.is_some() { grads.next().unwrap_or_default() } else { Tensor::new() };
    let _no_grad = tch::no_grad_guard();
    for (mut sum, grad) in sums.into_iter().zip(grads) {
        // A parameter that this loss does not use has no gradient from it.
        if grad.defined() {
            let _ = sum.g_add_(&grad);
        }
    }
    Ok(dx)
}

/// What gradients of this norm are multiplied with to have a norm of at most `max_norm`: `min(1, max_norm / (norm + 1e-6))`.
pub(crate) fn clip_factor(norm: f64, max_norm: f64) -> f64 {
    let factor = max_norm / (norm + 1e-6);
    // A NaN leaves the gradients as they are.
    if factor < 1.0 { factor } else { 1.0 }
}
