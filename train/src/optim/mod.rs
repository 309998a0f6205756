//! AdamW (Loshchilov & Hutter, arXiv 1711.05101) over flat buffers.
//!
//! All parameters of a group live side by side in one tensor; the leaves that the model sees are views of it. A step is
//! then a handful of operations however many tensors the model has, and the optimizer's state is two tensors per group.
//!
//! | module | what it is for |
//! |---|---|
//! | `gradients` | gradients of a step: sums, clipping |
//! | `squares` | the norm of gradients on the CPU |
//! | `update` | the update on the CPU |
//! | `device` | the update by libtorch's operations |
//! | `shard` | moments shared among processes |
//! | `ema` | the moving average of parameters |

mod device;
mod ema;
mod gradients;
mod shard;
mod squares;
mod update;

use crate::TrainError;
use crate::process_group::OneProcess;
use crate::run::save_safetensors;
use device::StepNumbers;
pub(crate) use device::{DeviceAverages, DeviceUpdate};
pub use ema::Ema;
pub use gradients::Gradients;
pub(crate) use gradients::{backpropagate, clip_factor};
use serde::{Deserialize, Serialize};
pub use shard::{Moments, Shard};
use std::collections::HashMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};
use tokengrid_model::ModelError;
use tokengrid_model::Route;
use tokengrid_model::weights::{Params, Weights};

/// Settings of [`AdamW`]. With a weight decay of 0 it is Adam.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdamWConfig {
    /// Decay rates of the two moments, 0 to below 1.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay, times the learning rate per update, of tensors with two or more dimensions.
    pub weight_decay: f64,
    /// Whether vectors (norm weights) decay too, as in the reference's training.
    pub weight_decay_on_norms: bool,
}

/// The optimizer, which owns the parameters' memory.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    groups: Vec<Group>,
    step: i64,
    /// The part of the moments that is here.
    shard: Shard,
    has_own_kernels: bool,
}

#[derive(Debug)]
struct Group {
    weight_decay: f64,
    flat: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    numbers: StepNumbers,
    leaves: Vec<(String, Tensor)>,
}

impl AdamW {
    /// Moves `params` into flat buffers on `device` (fp32) and returns the optimizer with the leaves to build a model
    /// over: they require gradients and change when the optimizer steps.
    pub fn new(params: &Params, config: AdamWConfig, device: Device) -> (AdamW, Params) {
        Self::sharded(params, config, device, Shard::WHOLE)
    }

    /// As [`AdamW::new`], with a part of the moments: see `AdamW::gather_parameters`.
    pub fn sharded(params: &Params, config: AdamWConfig, device: Device, shard: Shard) -> (AdamW, Params) {
        let (matrices, vectors): (Vec<_>, Vec<_>) = params.iter().partition(|(_, tensor)| tensor.dim() >= 2);
        let vector_decay = if config.weight_decay_on_norms { config.weight_decay } else { 0.0 };
        let groups: Vec<Group> = [(matrices, config.weight_decay), (vectors, vector_decay)]
            .into_iter()
            .filter(|(members, _)| !members.is_empty())
            .map(|(members, weight_decay)| Group::new(&members, weight_decay, device, shard))
            .collect();
        let has_own_kernels = Route::of(device).own_kernels;
        let optimizer = AdamW { config, groups, step: 0, shard, has_own_kernels };
        let leaves = optimizer.leaves().map(|(name, leaf)| (name.to_string(), leaf.shallow_clone())).collect();
        (optimizer, leaves)
    }

    /// Chooses our kernels or libtorch's operations for the updates, as the route says; the default is that of the device.
    pub(crate) fn compute_by(&mut self, route: Route) {
        self.has_own_kernels = route.own_kernels;
    }

    /// Names and parameters, as the model sees them.
    pub fn leaves(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.groups.iter().flat_map(|group| group.leaves.iter().map(|(name, leaf)| (name.as_str(), leaf)))
    }

    /// Number of parameters.
    pub fn num_params(&self) -> usize {
        self.groups.iter().map(|group| group.flat.numel()).sum()
    }

    /// Names and sizes of the parameters of each group, in the order of its buffers.
    pub fn layout(&self) -> Vec<Vec<(&str, usize)>> {
        let sizes =
            self.groups.iter().map(|group| group.leaves.iter().map(|(name, leaf)| (name.as_str(), leaf.numel())));
        sizes.map(Iterator::collect).collect()
    }

    /// The parameters, a flat tensor `[elements]` for each group.
    pub fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        self.groups.iter().map(|group| &group.flat)
    }

    /// All that an update changes: parameters and both moments, flat.
    pub fn buffers(&self) -> impl Iterator<Item = &Tensor> {
        self.groups.iter().flat_map(|group| [&group.flat, &group.exp_avg, &group.exp_avg_sq])
    }

    /// The part of the moments that is here.
    pub(crate) fn shard(&self) -> Shard {
        self.shard
    }

    /// Updates so far.
    pub(crate) fn num_steps(&self) -> i64 {
        self.step
    }

    /// Continues as after `steps` updates.
    pub(crate) fn set_num_steps(&mut self, steps: i64) {
        self.step = steps;
    }

    /// Whether all parameters and both moments are finite. Waits for the device.
    pub fn is_finite(&self) -> bool {
        self.buffers().all(all_finite)
    }

    /// Backpropagates `loss`, a scalar, and returns the gradients of all leaves.
    ///
    /// # Errors
    /// libtorch fails, for example out of memory.
    pub fn backward(&self, loss: &Tensor) -> Result<Gradients, TrainError> {
        let (gradients, _) = self.zero_gradients();
        let _ = self.add_gradients(loss, None, |_| true, &gradients)?;
        Ok(gradients)
    }

    /// Backpropagates `loss` to the parameters that `wanted` selects by name, and to `x`; returns the gradient of `x`. Those of
    /// the parameters are added to `sums`.
    ///
    /// # Errors
    /// libtorch fails, for example out of memory.
    pub(crate) fn add_gradients(
        &self,
        loss: &Tensor,
        x: Option<&Tensor>,
        wanted: impl Fn(&str) -> bool,
        sums: &Gradients,
    ) -> Result<Tensor, TrainError> {
        let all = self.groups.iter().zip(&sums.0).flat_map(|(group, flat)| group.leaves.iter().zip(group.split(flat)));
        let leaves = all.filter(|((name, _), _)| wanted(name)).map(|((_, leaf), (_, sum))| (leaf, sum));
        backpropagate(loss, x, leaves.collect())
    }

    /// Gradients of zero, and views of them under the parameters' names for a step that writes gradients itself.
    pub fn zero_gradients(&self) -> (Gradients, Params) {
        let _no_grad = tch::no_grad_guard();
        let flats: Vec<Tensor> = self.groups.iter().map(|group| group.flat.zeros_like()).collect();
        let views = self.groups.iter().zip(&flats).flat_map(|(group, flat)| group.split(flat));
        let views = views.map(|(name, view)| (name.to_string(), view)).collect();
        (Gradients(flats), views)
    }

    /// One update with learning rate `lr`.
    pub fn step(&mut self, grads: &Gradients, lr: f64) {
        self.step_scaled(grads, lr, 1.0);
    }

    /// As [`AdamW::step`], with gradients times `scale`; on the CPU this takes no extra pass over memory.
    pub(crate) fn step_scaled(&mut self, grads: &Gradients, lr: f64, scale: f64) {
        let _no_grad = tch::no_grad_guard();
        if !self.has_own_kernels {
            self.begin_step(lr);
            let scaled = (scale != 1.0).then(|| Gradients(grads.0.iter().map(|grad| grad * scale).collect()));
            return DeviceUpdate::new(self, scaled.as_ref().unwrap_or(grads)).apply();
        }
        self.step += 1;
        let (correction1, correction2) = self.corrections();
        let [beta1, beta2] = self.config.betas;
        let (eps, rate) = (self.config.eps, lr / correction1);
        let shard = self.shard;
        for (group, grad) in self.groups.iter_mut().zip(&grads.0) {
            let (grad, mut flat) = (&shard.own(grad), shard.own(&group.flat));
            let keep = 1.0 - lr * group.weight_decay;
            let (rest1, rest2) = (1.0 - beta1, 1.0 - beta2);
            let update = update::Update { scale, keep, beta2, rest1, rest2, correction2, eps, rate }.rounded();
            let Group { exp_avg, exp_avg_sq, .. } = group;
            // SAFETY: each is a tensor of its own. Leaves share the parameters' memory, but no one computes with them
            // while their optimizer steps: `&mut self` is the one who owns that memory.
            unsafe { update::update(&update, grad, [&mut flat, exp_avg, exp_avg_sq]) };
        }
    }

    /// Counts a step with learning rate `lr`, which a [`DeviceUpdate`] then does.
    pub(crate) fn begin_step(&mut self, lr: f64) {
        self.step += 1;
        let (correction1, correction2) = self.corrections();
        for group in &self.groups {
            group.numbers.set(1.0 - lr * group.weight_decay, correction2, lr / correction1);
        }
    }

    /// The first moment's bias, and the root of the second's, after so many steps.
    fn corrections(&self) -> (f64, f64) {
        let [beta1, beta2] = self.config.betas;
        let step = self.step as i32;
        (1.0 - beta1.powi(step), (1.0 - beta2.powi(step)).sqrt())
    }

    /// Writes moments and step count to a safetensors file, tensor by tensor under the parameters' names.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), TrainError> {
        self.save_moments(path, &self.moments(&OneProcess)?)
    }

    /// As [`AdamW::save`], of moments that were gathered.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn save_moments(&self, path: &Path, moments: &Moments) -> Result<(), TrainError> {
        let mut tensors = vec![];
        for (group, [exp_avg, exp_avg_sq]) in self.groups.iter().zip(&moments.groups) {
            for (what, flat) in [("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq)] {
                tensors.extend(group.split(flat).map(|(name, part)| (format!("{what}.{name}"), part)));
            }
        }
        let metadata = HashMap::from([("step".to_string(), self.step.to_string())]);
        tensors.push(("step".into(), Tensor::from(self.step)));
        save_safetensors(path, tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)), metadata)?;
        Ok(())
    }

    /// Restores what [`AdamW::save`] wrote.
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn load(&mut self, path: &Path) -> Result<(), TrainError> {
        let moments = self.read_moments(path)?;
        self.set_moments(&moments);
        Ok(())
    }

    /// What [`AdamW::save`] wrote, whole, on the host.
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub(crate) fn read_moments(&self, path: &Path) -> Result<Moments, TrainError> {
        let saved = Weights::open(path)?;
        let step = saved.tensor("step")?.int64_value(&[]);
        let read = |what: &str| self.read_flats(|name| saved.tensor(&format!("{what}.{name}")));
        let groups = read("exp_avg")?.into_iter().zip(read("exp_avg_sq")?);
        Ok(Moments { groups: groups.map(|(exp_avg, exp_avg_sq)| [exp_avg, exp_avg_sq]).collect(), step })
    }

    /// Saved values of all parameters, flat, one tensor `[elements]` per group, on the host; `saved` finds them by name.
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub(crate) fn read_flats(
        &self,
        saved: impl Fn(&str) -> Result<Tensor, ModelError>,
    ) -> Result<Vec<Tensor>, TrainError> {
        let _no_grad = tch::no_grad_guard();
        let flats = self.blank_flats();
        for (group, flat) in self.groups.iter().zip(&flats) {
            for (name, mut part) in group.split(flat) {
                part.f_copy_(&saved(name)?)?;
            }
        }
        Ok(flats)
    }

    /// Zeros for all parameters, flat, one tensor `[elements]` per group, on the host.
    pub(crate) fn blank_flats(&self) -> Vec<Tensor> {
        let zeros = |group: &Group| Tensor::zeros([group.flat.numel() as i64], (Kind::Float, Device::Cpu));
        self.groups.iter().map(zeros).collect()
    }
}

impl Group {
    fn new(members: &[(&str, &Tensor)], weight_decay: f64, device: Device, shard: Shard) -> Group {
        let _no_grad = tch::no_grad_guard();
        let parts: Vec<Tensor> =
            members.iter().map(|(_, t)| t.detach().to_device(device).to_kind(Kind::Float).reshape([-1])).collect();
        let flat = Tensor::cat(&parts, 0);
        let mut from = 0;
        let leaves = members.iter().map(|(name, tensor)| {
            let len = tensor.numel() as i64;
            let leaf = flat.narrow(0, from, len).view(tensor.size().as_slice()).detach().set_requires_grad(true);
            from += len;
            (name.to_string(), leaf)
        });
        let leaves = leaves.collect();
        let [exp_avg, exp_avg_sq] = [(); 2].map(|()| shard.own(&flat).zeros_like());
        Group { weight_decay, numbers: StepNumbers::beside(&flat), exp_avg, exp_avg_sq, flat, leaves }
    }

    /// `flat` (one of the group's buffers) as tensors of the parameters' shapes.
    fn split<'a>(&'a self, flat: &'a Tensor) -> impl Iterator<Item = (&'a str, Tensor)> {
        self.leaves.iter().scan(0, move |from, (name, leaf)| {
            let len = leaf.numel() as i64;
            let part = flat.narrow(0, *from, len).view(leaf.size().as_slice());
            *from += len;
            Some((name.as_str(), part))
        })
    }
}

/// Whether a tensor has only finite numbers. A sum of finite absolute values may overflow, a maximum does not: NaN and
/// infinities stay what they are in it, and no mask as large as the tensor is made.
pub(crate) fn all_finite(tensor: &Tensor) -> bool {
    let _no_grad = tch::no_grad_guard();
    if tensor.numel() == 0 {
        return true;
    }
    let [low, high] = [tensor.min(), tensor.max()].map(|end| end.double_value(&[]));
    low.is_finite() && high.is_finite()
}

#[cfg(test)]
mod tests;
