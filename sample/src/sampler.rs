//! One batch of images, position by position.
//!
//! Every image has its own random numbers: a pure function of (seed, class, index), so an image does not depend
//! on the batch or process that it is sampled in. A token is drawn by inverting the cumulative distribution at one
//! uniform number.
//!
//! On the CPU tokens are drawn on the host, from a `Decoder`'s logits; on a GPU by tensor operations on the device.
//!
//! Shape suffixes: `b` batch (images), `c` sequences (2b with guidance, conditional half first), `n` positions.

use crate::SampleError;
use crate::decoder::{Decoder, TorchDecoder};
use crate::device::DeviceSampler;
use crate::draw::{DrawStats, Rule};
use crate::guidance::{GuidanceMode, Schedule};
use crate::host;
use serde::{Deserialize, Serialize};
use tokengrid_model::ar::{ArModel, ModelConfig};
use tokengrid_model::rng::CounterRng;
use tokengrid_model::{Runtime, guard::guarded};

/// Sampling settings; pairs hold the values for low and high bits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SamplerConfig {
    /// Guidance scale: logits = uncond + scale * (cond - uncond). 1: the class alone; 0: no class.
    pub cfg_scale: [f64; 2],
    /// How the guidance scale grows over the positions.
    #[serde(default)]
    pub cfg_schedule: Schedule,
    /// Logits are divided by it; 0 takes the most likely token.
    pub temperature: [f64; 2],
    /// Number of most likely tokens that may be drawn; 0: all.
    pub top_k: [i64; 2],
    /// Probability mass of the most likely tokens that may be drawn, 0 to 1; 1: all.
    pub top_p: [f64; 2],
    /// Seed of the random numbers.
    pub seed: u64,
}

impl Default for SamplerConfig {
    fn default() -> Self {
        let one = [1.0, 1.0];
        SamplerConfig {
            cfg_scale: one,
            cfg_schedule: Schedule::Constant,
            temperature: one,
            top_k: [0, 0],
            top_p: one,
            seed: 0,
        }
    }
}

impl SamplerConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first setting that is out of range for a model with these vocabularies.
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

    /// How sub-token `part` is drawn at `position` of `positions`.
    pub(crate) fn rule(&self, part: usize, position: i64, positions: i64) -> Rule {
        Rule {
            cfg_scale: self.cfg_schedule.at(self.cfg_scale[part], position, positions),
            temperature: self.temperature[part],
            top_k: self.top_k[part],
            top_p: self.top_p[part],
        }
    }
}

/// One image to be sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleRequest {
    /// Class index.
    pub class: i64,
    /// Number of the image within its class.
    pub index: u64,
}

/// Samples batches from a model.
pub struct Sampler<'a> {
    config: SamplerConfig,
    source: Source<'a>,
}

/// Source of the logits, which decides where tokens are drawn.
enum Source<'a> {
    Host(Box<dyn Decoder + 'a>),
    Device(Box<DeviceSampler<'a>>),
}

impl<'a> Sampler<'a> {
    /// A sampler over `model`, whose parameters lie on the runtime's device.
    ///
    /// # Errors
    /// Settings out of range.
    pub fn new(model: &'a ArModel, config: SamplerConfig, runtime: Runtime) -> Result<Sampler<'a>, SampleError> {
        if runtime.route.runs_ahead {
            config.validate(model.config.vocab())?;
            let source = Source::Device(Box::new(DeviceSampler::new(model, runtime)));
            return Ok(Sampler { config, source });
        }
        match model.host_decoder().filter(|_| runtime.route.own_kernels) {
            Some(decoder) => Sampler::over(Box::new(decoder), config),
            None => Sampler::over(Box::new(TorchDecoder::new(model, runtime)), config),
        }
    }

    /// A sampler that draws on the host from the logits of `decoder`.
    ///
    /// # Errors
    /// Settings out of range.
    pub(crate) fn over(decoder: Box<dyn Decoder + 'a>, config: SamplerConfig) -> Result<Sampler<'a>, SampleError> {
        config.validate(decoder.config().vocab())?;
        Ok(Sampler { config, source: Source::Host(decoder) })
    }

    /// Whether the last batch's tokens were those of a captured step: see [`tokengrid_model::graph`].
    pub fn is_captured(&self) -> bool {
        matches!(&self.source, Source::Device(sampler) if sampler.is_captured())
    }

    fn model(&self) -> &ModelConfig {
        match &self.source {
            Source::Host(decoder) => decoder.config(),
            Source::Device(sampler) => sampler.config(),
        }
    }

    /// Samples all of `wanted` in one batch: tokens `[B, N]`, row-major.
    ///
    /// # Errors
    /// A class out of range, no memory for the batch, logits that are not finite.
    pub fn sample(&mut self, wanted: &[SampleRequest]) -> Result<Vec<u32>, SampleError> {
        self.run(wanted, None)
    }

    /// [`Sampler::sample`]; `stats_bn` becomes what every token was drawn from, `[B, N]`, low bits and high bits.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    ///
    /// # Panics
    /// When tokens are drawn on a GPU: make the sampler with [`Sampler::over`].
    pub(crate) fn sample_with_stats(
        &mut self,
        wanted: &[SampleRequest],
        stats_bn: &mut Vec<[DrawStats; 2]>,
    ) -> Result<Vec<u32>, SampleError> {
        self.run(wanted, Some(stats_bn))
    }

    fn run(
        &mut self,
        wanted: &[SampleRequest],
        stats_bn: Option<&mut Vec<[DrawStats; 2]>>,
    ) -> Result<Vec<u32>, SampleError> {
        let (class_num, n) = (self.model().class_num, self.model().block_size);
        if let Some(image) = wanted.iter().find(|image| !(0..=class_num).contains(&image.class)) {
            return Err(SampleError::Class { class: image.class, class_num });
        }
        let mode = GuidanceMode::of(self.config.cfg_scale, self.config.cfg_schedule);
        let class_b: Vec<i64> = wanted.iter().map(|image| image.class).collect();
        let class_c = mode.classes(&class_b, class_num);
        let uniform_bnp = uniform(self.config.seed, wanted, n);
        match &mut self.source {
            Source::Host(decoder) => guarded(|| {
                decoder.start(&class_c)?;
                host::sample(decoder.as_mut(), &self.config, mode, &uniform_bnp, stats_bn)
            })?,
            Source::Device(sampler) => {
                assert!(stats_bn.is_none(), "stats are taken on the host");
                guarded(|| sampler.sample(&self.config, mode, &class_c, &uniform_bnp))?
            }
        }
    }
}

/// Uniform numbers `[B, N, 2]`, a function of each image's class and index.
fn uniform(seed: u64, wanted: &[SampleRequest], n: i64) -> Vec<f64> {
    let numbers = wanted.iter().flat_map(|image| {
        let mut rng = CounterRng::new(&[seed, 21, image.class as u64, image.index]);
        (0..2 * n).map(move |_| rng.uniform())
    });
    numbers.collect()
}
