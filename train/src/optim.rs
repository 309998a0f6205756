//! AdamW over flat buffers.
//!
//! All parameters of a group live side by side in one tensor; the leaves that the model sees are views of it. A step is
//! then a handful of operations however many tensors the model has, and the optimizer's state is two tensors a group.

mod shard;

pub use shard::{Moments, Shard};

use crate::TrainError;
use crate::processes::OneProcess;
use crate::run::save_safetensors;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};
use tokengrid_model::ModelError;
use tokengrid_model::kernels::threads::{Pieces, for_rows};
use tokengrid_model::multiversion;
use tokengrid_model::weights::{Params, Weights};

/// Settings of [`AdamW`]. With a weight decay of 0 it is Adam.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdamWConfig {
    /// Decay rates of the two moments.
    pub betas: [f64; 2],
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled decay of tensors with two or more dimensions.
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
}

#[derive(Debug)]
struct Group {
    weight_decay: f64,
    flat: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    leaves: Vec<(String, Tensor)>,
}

/// Gradients of one step, flat, a tensor a group.
#[derive(Debug)]
pub struct Gradients(Vec<Tensor>);

impl AdamW {
    /// Moves `params` into flat buffers on `device` (fp32) and returns the optimizer with the leaves to build a model
    /// over: they require gradients and change when the optimizer steps.
    pub fn new(params: &Params, config: AdamWConfig, device: Device) -> (AdamW, Params) {
        Self::sharded(params, config, device, Shard::WHOLE)
    }

    /// As [`AdamW::new`], with a part of the moments: see [`AdamW::gather_parameters`].
    pub fn sharded(params: &Params, config: AdamWConfig, device: Device, shard: Shard) -> (AdamW, Params) {
        let (matrices, vectors): (Vec<_>, Vec<_>) = params.iter().partition(|(_, tensor)| tensor.dim() >= 2);
        let vector_decay = if config.weight_decay_on_norms { config.weight_decay } else { 0.0 };
        let groups: Vec<Group> = [(matrices, config.weight_decay), (vectors, vector_decay)]
            .into_iter()
            .filter(|(members, _)| !members.is_empty())
            .map(|(members, weight_decay)| Group::new(&members, weight_decay, device, shard))
            .collect();
        let optimizer = AdamW { config, groups, step: 0, shard };
        let leaves = optimizer.leaves().map(|(name, leaf)| (name.to_string(), leaf.shallow_clone())).collect();
        (optimizer, leaves)
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

    /// The parameters, flat, a tensor for each group.
    pub fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        self.groups.iter().map(|group| &group.flat)
    }

    /// All that a step changes: parameters and both moments, flat.
    pub fn buffers(&self) -> impl Iterator<Item = &Tensor> {
        self.groups.iter().flat_map(|group| [&group.flat, &group.exp_avg, &group.exp_avg_sq])
    }

    /// Updates so far.
    pub fn num_steps(&self) -> i64 {
        self.step
    }

    /// Goes on as after so many updates.
    pub fn set_num_steps(&mut self, steps: i64) {
        self.step = steps;
    }

    /// Whether all parameters and both moments are finite. Waits for the device.
    pub fn is_finite(&self) -> bool {
        self.buffers().all(all_finite)
    }

    /// Backpropagates `loss` and returns the gradients of all leaves.
    ///
    /// # Errors
    /// The tensor library fails, out of memory for one.
    pub fn backward(&self, loss: &Tensor) -> Result<Gradients, TrainError> {
        let leaves: Vec<&Tensor> = self.groups.iter().flat_map(|g| g.leaves.iter().map(|(_, leaf)| leaf)).collect();
        let mut grads = Tensor::f_run_backward(&[loss], &leaves, false, false)?.into_iter();
        let flat = |group: &Group| {
            let parts: Vec<Tensor> = grads.by_ref().take(group.leaves.len()).map(|grad| grad.reshape([-1])).collect();
            Tensor::cat(&parts, 0)
        };
        Ok(Gradients(self.groups.iter().map(flat).collect()))
    }

    /// Gradients of zero, and views of them under the parameters' names for a step that writes gradients itself.
    pub fn zero_gradients(&self) -> (Gradients, Params) {
        let _no_grad = tch::no_grad_guard();
        let flats: Vec<Tensor> = self.groups.iter().map(|group| group.flat.zeros_like()).collect();
        let views = self.groups.iter().zip(&flats).flat_map(|(group, flat)| group.split(flat));
        let views = views.map(|(name, view)| (name.to_string(), view)).collect();
        (Gradients(flats), views)
    }

    /// Gradients that were collected by parameter; a parameter without one has a gradient of zero.
    pub fn gradients_of(&self, by_name: &HashMap<String, Tensor>) -> Gradients {
        let _no_grad = tch::no_grad_guard();
        let flat = |group: &Group| {
            let part = |(name, leaf): &(String, Tensor)| {
                by_name.get(name).map_or_else(|| leaf.zeros_like(), Tensor::shallow_clone).reshape([-1])
            };
            Tensor::cat(&group.leaves.iter().map(part).collect::<Vec<_>>(), 0)
        };
        Gradients(self.groups.iter().map(flat).collect())
    }

    /// One update with learning rate `lr`.
    pub fn step(&mut self, grads: &Gradients, lr: f64) {
        self.step += 1;
        let _no_grad = tch::no_grad_guard();
        let [beta1, beta2] = self.config.betas;
        let correction1 = 1.0 - beta1.powi(self.step as i32);
        let correction2 = (1.0 - beta2.powi(self.step as i32)).sqrt();
        let (eps, rate) = (self.config.eps, lr / correction1);
        let shard = self.shard;
        for (group, grad) in self.groups.iter_mut().zip(&grads.0) {
            let (grad, mut flat) = (&shard.own(grad), shard.own(&group.flat));
            let keep = 1.0 - lr * group.weight_decay;
            if group.flat.device() == Device::Cpu {
                let (rest1, rest2) = (1.0 - beta1, 1.0 - beta2);
                let update = Update { keep, beta2, rest1, rest2, correction2, eps, rate }.rounded();
                group.update_on_cpu(grad, &flat, &update);
                continue;
            }
            if keep != 1.0 {
                let _ = flat.g_mul_scalar_(keep);
            }
            let _ = group.exp_avg.lerp_(grad, 1.0 - beta1);
            let _ = group.exp_avg_sq.g_mul_scalar_(beta2).g_add_(&(grad * grad).g_mul_scalar_(1.0 - beta2));
            let denominator = group.exp_avg_sq.sqrt().g_div_scalar_(correction2).g_add_scalar_(eps);
            let _ = flat.g_sub_(&(&group.exp_avg / denominator).g_mul_scalar_(rate));
        }
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
    pub fn save_moments(&self, path: &Path, moments: &Moments) -> Result<(), TrainError> {
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
    /// A missing or misshapen tensor.
    pub fn load(&mut self, path: &Path) -> Result<(), TrainError> {
        let moments = self.read_moments(path)?;
        self.set_moments(&moments);
        Ok(())
    }

    /// What [`AdamW::save`] wrote, whole, on the host.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn read_moments(&self, path: &Path) -> Result<Moments, TrainError> {
        let _no_grad = tch::no_grad_guard();
        let saved = Weights::open(path)?;
        let step = saved.tensor("step")?.int64_value(&[]);
        let moments = Moments { step, ..self.blank_moments() };
        for (group, [exp_avg, exp_avg_sq]) in self.groups.iter().zip(&moments.groups) {
            for (what, flat) in [("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq)] {
                for (name, mut part) in group.split(flat) {
                    let tensor = saved.tensor(&format!("{what}.{name}"))?;
                    part.f_copy_(&tensor)?;
                }
            }
        }
        Ok(moments)
    }
}

/// One update's constants.
struct Update<T> {
    /// What the weight decay leaves of a parameter.
    keep: T,
    beta2: T,
    /// 1 - beta1 and 1 - beta2, which an f32 beta would spoil.
    rest1: T,
    rest2: T,
    /// Root of the second moment's bias.
    correction2: T,
    eps: T,
    /// Learning rate over the first moment's bias.
    rate: T,
}

impl Update<f64> {
    fn rounded(&self) -> Update<f32> {
        let Update { keep, beta2, rest1, rest2, correction2, eps, rate } = *self;
        let [keep, beta2, rest1, rest2, correction2, eps, rate] =
            [keep, beta2, rest1, rest2, correction2, eps, rate].map(|number| number as f32);
        Update { keep, beta2, rest1, rest2, correction2, eps, rate }
    }
}

multiversion! {
    /// The update of some parameters in one pass over their memory.
    fn update(u: &Update<f32>, grad: &[f32], parameter: &mut [f32], exp_avg: &mut [f32], exp_avg_sq: &mut [f32]) {
        for (((&g, p), m), v) in grad.iter().zip(parameter).zip(exp_avg).zip(exp_avg_sq) {
            *m += (g - *m) * u.rest1;
            *v = *v * u.beta2 + g * g * u.rest2;
            *p = *p * u.keep - u.rate * (*m / (v.sqrt() / u.correction2 + u.eps));
        }
    }
}

/// The numbers of a contiguous fp32 tensor on the CPU.
#[allow(clippy::mut_from_ref)] // tensors share memory whatever their handles
fn numbers(tensor: &Tensor) -> &mut [f32] {
    assert_eq!((tensor.kind(), tensor.device(), tensor.is_contiguous()), (Kind::Float, Device::Cpu, true));
    // SAFETY: of this kind and layout, and alive as long as the tensor; each of an optimizer's buffers is taken once an
    // update, and nothing else looks at them meanwhile.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) }
}

impl Group {
    fn update_on_cpu(&mut self, grad: &Tensor, flat: &Tensor, constants: &Update<f32>) {
        const NUMBERS_A_TASK: usize = 1 << 14;
        let grad: &[f32] = numbers(grad);
        let buffers = [flat, &self.exp_avg, &self.exp_avg_sq].map(|tensor| Pieces::of(numbers(tensor)));
        for_rows(grad.len(), NUMBERS_A_TASK, &|from, len| {
            // SAFETY: `for_rows` hands out disjoint ranges.
            let [parameter, exp_avg, exp_avg_sq] = buffers.each_ref().map(|buffer| unsafe { buffer.piece(from, len) });
            update(constants, &grad[from..from + len], parameter, exp_avg, exp_avg_sq);
        });
    }

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
        Group { weight_decay, exp_avg, exp_avg_sq, flat, leaves }
    }

    /// `flat` (one of the group's buffers) in the pieces of the parameters.
    fn split<'a>(&'a self, flat: &'a Tensor) -> impl Iterator<Item = (&'a str, Tensor)> {
        self.leaves.iter().scan(0, move |from, (name, leaf)| {
            let len = leaf.numel() as i64;
            let part = flat.narrow(0, *from, len).view(leaf.size().as_slice());
            *from += len;
            Some((name.as_str(), part))
        })
    }
}

impl Gradients {
    /// The tensors themselves, one a group.
    pub fn flats(&self) -> &[Tensor] {
        &self.0
    }

    /// Back to zero.
    pub fn zero(&mut self) {
        for grad in &mut self.0 {
            let _ = grad.zero_();
        }
    }

    /// Adds the gradients of another micro-batch.
    pub fn add(&mut self, other: &Gradients) {
        for (sum, grad) in self.0.iter_mut().zip(&other.0) {
            let _ = sum.g_add_(grad);
        }
    }

    /// Multiplies by a constant (1 / number of micro-batches).
    pub fn scale(&mut self, factor: f64) {
        for grad in &mut self.0 {
            let _ = grad.g_mul_scalar_(factor);
        }
    }

    /// Whether there is neither an infinity nor a NaN among them. Waits for the device.
    pub fn is_finite(&self) -> bool {
        // 0 times a finite number is 0; the sum of such products tells without a mask in memory.
        self.0.iter().all(|grad| (grad * 0.0).sum(Kind::Float).double_value(&[]) == 0.0)
    }

    /// Scales to a global 2-norm of at most `max_norm`, by min(1, max_norm / (norm + 1e-6)). The norm before clipping.
    pub fn clip(&mut self, max_norm: f64) -> f64 {
        // Summed in f64: over millions of elements an f32 sum is off in the fifth digit.
        let squares: f64 = self.0.iter().map(|grad| grad.square().sum(Kind::Double).double_value(&[])).sum();
        let norm = squares.sqrt();
        let factor = max_norm / (norm + 1e-6);
        if factor < 1.0 {
            self.scale(factor);
        }
        norm
    }

    /// [`Gradients::clip`] without waiting for the device: the norm is a tensor `[]` there.
    pub fn clip_unseen(&mut self, max_norm: f64) -> Tensor {
        let squares: Vec<Tensor> = self.0.iter().map(|grad| grad.square().sum(Kind::Double)).collect();
        let norm = Tensor::stack(&squares, 0).sum(Kind::Double).sqrt();
        let factor = ((&norm + 1e-6).reciprocal() * max_norm).clamp_max(1.0).to_kind(Kind::Float);
        for grad in &mut self.0 {
            let _ = grad.g_mul_(&factor);
        }
        norm
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

/// Exponential moving average of an optimizer's parameters.
#[derive(Debug)]
pub struct Ema {
    decay: f64,
    flats: Vec<Tensor>,
}

impl Ema {
    /// Starts at the current parameters.
    pub fn new(optimizer: &AdamW, decay: f64) -> Ema {
        let _no_grad = tch::no_grad_guard();
        Ema { decay, flats: optimizer.groups.iter().map(|group| group.flat.copy()).collect() }
    }

    /// `ema += (1 - decay) * (parameter - ema)`.
    pub fn update(&mut self, optimizer: &AdamW) {
        let _no_grad = tch::no_grad_guard();
        for (ema, group) in self.flats.iter_mut().zip(&optimizer.groups) {
            let _ = ema.lerp_(&group.flat, 1.0 - self.decay);
        }
    }

    /// The averages, flat, a tensor for each group.
    pub fn buffers(&self) -> impl Iterator<Item = &Tensor> {
        self.flats.iter()
    }

    /// Whether all averages are finite. Waits for the device.
    pub fn is_finite(&self) -> bool {
        self.flats.iter().all(all_finite)
    }

    /// The averaged parameters under their names; they share memory with the average.
    pub fn params(&self, optimizer: &AdamW) -> Params {
        let parts = optimizer.groups.iter().zip(&self.flats).flat_map(|(group, flat)| group.split(flat));
        parts.map(|(name, part)| (name.to_string(), part)).collect()
    }

    /// Continues from saved averages, which `saved` finds by the parameters' names.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(
        &mut self,
        optimizer: &AdamW,
        saved: impl Fn(&str) -> Result<Tensor, ModelError>,
    ) -> Result<(), TrainError> {
        let _no_grad = tch::no_grad_guard();
        for (group, flat) in optimizer.groups.iter().zip(&self.flats) {
            for (name, mut part) in group.split(flat) {
                part.f_copy_(&saved(name)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quadratic() -> (AdamW, Params) {
        let params: Params = [
            ("a.weight".to_string(), Tensor::from_slice(&[1.0f32, -2.0, 3.0, 0.5]).view([2, 2])),
            ("b.weight".to_string(), Tensor::from_slice(&[4.0f32, 5.0])),
        ]
        .into_iter()
        .collect();
        let config = AdamWConfig { betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1, weight_decay_on_norms: false };
        AdamW::new(&params, config, Device::Cpu)
    }

    fn loss(params: &Params) -> Tensor {
        params.get("a.weight").square().sum(Kind::Float) + params.get("b.weight").square().sum(Kind::Float)
    }

    #[test]
    fn first_step_is_the_formula_by_hand() {
        let (mut optimizer, params) = quadratic();
        let grads = optimizer.backward(&loss(&params)).unwrap();
        optimizer.step(&grads, 0.01);
        // m / sqrt(v) is the gradient's sign at the first step; only the matrix decays.
        let a = params.get("a.weight").double_value(&[0, 0]);
        let b = params.get("b.weight").double_value(&[1]);
        assert!((a - (1.0 * (1.0 - 0.001) - 0.01)).abs() < 1e-6, "{a}");
        assert!((b - (5.0 - 0.01)).abs() < 1e-6, "{b}");
    }

    #[test]
    fn saved_and_loaded_state_continues_to_the_bit() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("optimizer.safetensors");
        let (mut one, params_one) = quadratic();
        for _ in 0..3 {
            let grads = one.backward(&loss(&params_one)).unwrap();
            one.step(&grads, 0.01);
        }
        one.save(&file).unwrap();
        let (mut two, params_two) = quadratic();
        tch::no_grad(|| params_two.get("a.weight").shallow_clone().copy_(params_one.get("a.weight")));
        tch::no_grad(|| params_two.get("b.weight").shallow_clone().copy_(params_one.get("b.weight")));
        two.load(&file).unwrap();
        for (optimizer, params) in [(&mut one, &params_one), (&mut two, &params_two)] {
            let grads = optimizer.backward(&loss(params)).unwrap();
            optimizer.step(&grads, 0.01);
        }
        assert!(params_one.get("a.weight").equal(params_two.get("a.weight")));
        assert!(params_one.get("b.weight").equal(params_two.get("b.weight")));
    }

    #[test]
    fn clipping_scales_to_the_limit_and_reports_the_norm_before() {
        let (optimizer, params) = quadratic();
        let mut grads = optimizer.backward(&loss(&params)).unwrap();
        let expected = 4.0 * (1.0 + 4.0 + 9.0 + 0.25 + 16.0 + 25.0f64);
        assert!((grads.clip(1.0) - expected.sqrt()).abs() < 1e-5);
        assert!((grads.clip(2.0) - 1.0).abs() < 1e-5);
    }

    #[test]
    fn clipping_unseen_is_the_same() {
        let (optimizer, params) = quadratic();
        for max_norm in [1.0, 1e3] {
            let [mut seen, mut unseen] = [(); 2].map(|()| optimizer.backward(&loss(&params)).unwrap());
            let (norm, tensor) = (seen.clip(max_norm), unseen.clip_unseen(max_norm));
            assert!((norm - tensor.double_value(&[])).abs() < 1e-9);
            assert!(seen.0.iter().zip(&unseen.0).all(|(a, b)| a.allclose(b, 1e-6, 0.0, false)));
        }
    }

    #[test]
    fn an_infinity_or_a_nan_anywhere_is_noticed() {
        let (optimizer, params) = quadratic();
        assert!(optimizer.backward(&loss(&params)).unwrap().is_finite());
        for factor in [f64::INFINITY, f64::NAN] {
            let grads = optimizer.backward(&(params.get("b.weight").select(0, 1) * factor + loss(&params))).unwrap();
            assert!(!grads.is_finite());
        }
    }

    #[test]
    fn ema_moves_by_one_minus_decay() {
        let (mut optimizer, params) = quadratic();
        let mut ema = Ema::new(&optimizer, 0.75);
        let before = params.get("b.weight").double_value(&[0]);
        let grads = optimizer.backward(&loss(&params)).unwrap();
        optimizer.step(&grads, 1.0);
        ema.update(&optimizer);
        let after = params.get("b.weight").double_value(&[0]);
        let averaged = ema.params(&optimizer).get("b.weight").double_value(&[0]);
        assert!((averaged - (before + 0.25 * (after - before))).abs() < 1e-6);
    }
}
