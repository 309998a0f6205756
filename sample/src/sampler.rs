//! One batch of images, position by position.
//!
//! Every image has random numbers of its own: a pure function of (seed, class, index), so what it becomes does not depend
//! on the batch or process that it is sampled in. A token is drawn by inverting the cumulative distribution at one
//! uniform number.
//!
//! Shape suffixes: `b` batch (images), `c` = 2b with guidance (conditional half first), `d` width, `v` vocabulary.

use crate::SampleError;
use crate::filter::{top_k, top_p};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use tokengrid_train::ar::ArModel;
use tokengrid_train::rng::CounterRng;

/// How to sample; two values where low and high bits may differ.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SamplerConfig {
    /// Guidance scale: logits = uncond + scale * (cond - uncond), where above 1.
    pub cfg_scale: [f64; 2],
    /// Logits are divided by it.
    pub temperature: [f64; 2],
    /// Most likely tokens that stay; 0: all.
    pub top_k: [i64; 2],
    /// Probability mass that stays; 1: all.
    pub top_p: [f64; 2],
    /// Names the random numbers.
    pub seed: u64,
}

impl Default for SamplerConfig {
    fn default() -> Self {
        let one = [1.0, 1.0];
        SamplerConfig { cfg_scale: one, temperature: one, top_k: [0, 0], top_p: one, seed: 0 }
    }
}

impl SamplerConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first setting that makes no sense for a model with these vocabularies.
    pub fn validate(&self, vocab: [i64; 2]) -> Result<(), SampleError> {
        let refuse = |what, value: String, expected: &str| {
            Err(SampleError::Setting { what, value, expected: expected.to_string() })
        };
        for (part, vocab) in vocab.into_iter().enumerate() {
            if !self.cfg_scale[part].is_finite() || self.cfg_scale[part] < 0.0 {
                return refuse("guidance scale", self.cfg_scale[part].to_string(), "a number from 0 on (1: off)");
            }
            if !self.temperature[part].is_finite() || self.temperature[part] < 0.0 {
                return refuse("temperature", self.temperature[part].to_string(), "a number from 0 on");
            }
            if !(0..=vocab).contains(&self.top_k[part]) {
                let expected = format!("0 (off) to {vocab}, the vocabulary of that part");
                return refuse("top-k", self.top_k[part].to_string(), &expected);
            }
            if !(self.top_p[part] > 0.0 && self.top_p[part] <= 1.0) {
                return refuse("top-p", self.top_p[part].to_string(), "a number above 0 and up to 1 (off)");
            }
        }
        Ok(())
    }

    fn guided(&self) -> bool {
        self.cfg_scale.iter().any(|&scale| scale > 1.0)
    }
}

/// One image to be sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Class index.
    pub class: i64,
    /// Number of the image within its class.
    pub index: u64,
}

/// Samples batches from a model.
pub struct Sampler<'a> {
    model: &'a ArModel,
    config: SamplerConfig,
    device: Device,
}

impl<'a> Sampler<'a> {
    /// A sampler over `model`, whose parameters lie on `device`.
    ///
    /// # Errors
    /// Settings out of range.
    pub fn new(model: &'a ArModel, config: SamplerConfig, device: Device) -> Result<Sampler<'a>, SampleError> {
        config.validate(model.config.vocab())?;
        Ok(Sampler { model, config, device })
    }

    /// Samples all of `wanted` in one batch: low bits and high bits, int64 `[B, N]` each.
    ///
    /// # Errors
    /// A class out of range.
    pub fn sample(&self, wanted: &[Wanted]) -> Result<[Tensor; 2], SampleError> {
        let class_num = self.model.config.class_num;
        if let Some(image) = wanted.iter().find(|image| !(0..=class_num).contains(&image.class)) {
            return Err(SampleError::Class { class: image.class, class_num });
        }
        let _no_grad = tch::no_grad_guard();
        let n = self.model.config.block_size;
        let uniform_bnp = self.uniform(wanted, n);
        let classes: Vec<i64> = wanted.iter().map(|image| image.class).collect();
        let mut class_c = Tensor::from_slice(&classes).to_device(self.device);
        if self.config.guided() {
            class_c = Tensor::cat(&[&class_c, &class_c.full_like(class_num)], 0);
        }
        let caches = self.model.empty_caches(class_c.size()[0]);
        let (mut pre_all, mut post_all) = (vec![], vec![]);
        let mut x_c1d = self.model.embed_class(&class_c);
        for t in 0..n {
            let h_cd = self.model.step(x_c1d, t, &caches);
            let (logits_cv, values) = self.model.pre_logits(&h_cd);
            let pre_b = self.draw(0, logits_cv, &uniform_bnp.select(1, t).select(1, 0));
            let pre_c = self.both(&pre_b);
            let logits_cv = self.model.post_logits(&pre_c, &values);
            let post_b = self.draw(1, logits_cv, &uniform_bnp.select(1, t).select(1, 1));
            x_c1d = self.model.embed(&pre_c, &self.both(&post_b)).unsqueeze(1);
            pre_all.push(pre_b);
            post_all.push(post_b);
        }
        Ok([Tensor::stack(&pre_all, 1), Tensor::stack(&post_all, 1)])
    }

    /// Both halves of a guided batch go on with the same tokens.
    fn both(&self, token_b: &Tensor) -> Tensor {
        if self.config.guided() { Tensor::cat(&[token_b, token_b], 0) } else { token_b.shallow_clone() }
    }

    /// Guidance, temperature, filters, and one token an image.
    fn draw(&self, part: usize, logits_cv: Tensor, uniform_b: &Tensor) -> Tensor {
        let logits_bv = self.guide(part, logits_cv) / self.config.temperature[part].max(1e-5);
        let logits_bv = top_p(top_k(logits_bv, self.config.top_k[part]), self.config.top_p[part]);
        if self.config.top_k[part] == 1 {
            return logits_bv.argmax(-1, false);
        }
        let mass_bv = logits_bv.to_kind(Kind::Double).softmax(-1, Kind::Double).cumsum(-1, Kind::Double);
        let total_b1 = mass_bv.narrow(1, -1, 1);
        // Strictly beyond u of the mass, so a token of probability 0 is never drawn.
        let target_b1 = uniform_b.unsqueeze(-1) * total_b1;
        mass_bv.le_tensor(&target_b1).sum_dim_intlist([-1i64].as_slice(), false, Kind::Int64)
    }

    fn guide(&self, part: usize, logits_cv: Tensor) -> Tensor {
        if !self.config.guided() {
            return logits_cv;
        }
        let halves = logits_cv.chunk(2, 0);
        let (cond, uncond) = (&halves[0], &halves[1]);
        let scale = self.config.cfg_scale[part];
        if scale > 1.0 { uncond + (cond - uncond) * scale } else { cond.shallow_clone() }
    }

    /// Uniform numbers f64 `[B, N, 2]`, each image's own.
    fn uniform(&self, wanted: &[Wanted], n: i64) -> Tensor {
        let numbers = wanted.iter().flat_map(|image| {
            let mut rng = CounterRng::new(&[self.config.seed, 21, image.class as u64, image.index]);
            (0..2 * n).map(move |_| rng.uniform())
        });
        let numbers: Vec<f64> = numbers.collect();
        Tensor::from_slice(&numbers).view([wanted.len() as i64, n, 2]).to_device(self.device)
    }
}
