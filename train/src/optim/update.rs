//! AdamW's update and that of the moving average on the CPU: one pass over memory each, by all threads.

use tch::Tensor;
use tokengrid_model::kernels::matrix::{numbers, numbers_mut};
use tokengrid_model::kernels::threads::{Pieces, for_rows};
use tokengrid_model::multiversion;

/// One update's constants.
pub(super) struct Update<T> {
    /// Factor of the gradient.
    pub scale: T,
    /// `1 - lr * weight_decay`: factor of the parameter.
    pub keep: T,
    /// Decay rate of the second moment.
    pub beta2: T,
    /// 1 - beta1 and 1 - beta2, computed in f64: f32 would lose digits.
    pub rest1: T,
    pub rest2: T,
    /// `sqrt(1 - beta2^step)`: bias correction of the second moment's root.
    pub correction2: T,
    /// Added to the denominator.
    pub eps: T,
    /// `lr / (1 - beta1^step)`: learning rate with the first moment's bias correction.
    pub rate: T,
}

impl Update<f64> {
    pub(super) fn rounded(&self) -> Update<f32> {
        let Update { scale, keep, beta2, rest1, rest2, correction2, eps, rate } = *self;
        let [scale, keep, beta2, rest1, rest2, correction2, eps, rate] =
            [scale, keep, beta2, rest1, rest2, correction2, eps, rate].map(|number| number as f32);
        Update { scale, keep, beta2, rest1, rest2, correction2, eps, rate }
    }
}

multiversion! {
    /// The update of some parameters in one pass over their memory.
    fn update_part(u: &Update<f32>, grad: &[f32], parameter: &mut [f32], exp_avg: &mut [f32], exp_avg_sq: &mut [f32]) {
        for (((&g, p), m), v) in grad.iter().zip(parameter).zip(exp_avg).zip(exp_avg_sq) {
            let g = g * u.scale;
            *m += (g - *m) * u.rest1;
            *v = *v * u.beta2 + g * g * u.rest2;
            *p = *p * u.keep - u.rate * (*m / (v.sqrt() / u.correction2 + u.eps));
        }
    }
}

/// Values per task.
const TASK: usize = 1 << 14;

/// Updates a group: its parameters and their two moments, given the gradient; four contiguous fp32 tensors of one size on
/// the CPU.
///
/// # Safety
/// The three tensors that are written have their own memory, which nothing else reads or writes meanwhile; and nothing
/// writes the gradient's.
pub(super) unsafe fn update(constants: &Update<f32>, grad: &Tensor, [flat, exp_avg, exp_avg_sq]: [&mut Tensor; 3]) {
    // SAFETY: the caller's promise.
    let (grad, buffers) = unsafe {
        let buffers = [numbers_mut(flat), numbers_mut(exp_avg), numbers_mut(exp_avg_sq)];
        (numbers(grad), buffers.map(Pieces::of))
    };
    for_rows(grad.len(), TASK, &|from, len| {
        // SAFETY: `for_rows` hands out disjoint ranges.
        let [parameter, exp_avg, exp_avg_sq] = buffers.each_ref().map(|buffer| unsafe { buffer.piece(from, len) });
        update_part(constants, &grad[from..from + len], parameter, exp_avg, exp_avg_sq);
    });
}

multiversion! {
    /// The average of some parameters, moved towards them.
    fn average_part(rest: f32, parameter: &[f32], average: &mut [f32]) {
        for (&p, average) in parameter.iter().zip(average) {
            *average += (p - *average) * rest;
        }
    }
}

/// Moves an average towards the parameters by the share `rest`: two contiguous fp32 tensors of one size on the CPU. A number of
/// the result depends on its own two numbers only, however the work is shared among threads and processes; libtorch's `lerp_`
/// does not promise that.
///
/// # Safety
/// The average has its own memory, which nothing else reads or writes meanwhile; and nothing writes the parameters'.
pub(super) unsafe fn average(rest: f32, flat: &Tensor, average: &mut Tensor) {
    // SAFETY: the caller's promise.
    let (flat, average) = unsafe { (numbers(flat), Pieces::of(numbers_mut(average))) };
    for_rows(flat.len(), TASK, &|from, len| {
        // SAFETY: `for_rows` hands out disjoint ranges.
        let part = unsafe { average.piece(from, len) };
        average_part(rest, &flat[from..from + len], part);
    });
}
