//! The networks in training, and one batch: a generator step (encoder and decoder), a discriminator step on the same
//! reconstruction, and the averages of both.
//!
//! Weights, optimizers and losses are f32. The networks compute in `kind`: their weights are cast again for every batch,
//! and the gradients flow back through the cast. Shape suffixes: `b` batch, `c` channels, `h w` pixels or grid, `z` bits.

use super::adversarial::{DiscLoss, LeCam, generator_loss};
use super::config::TokenizerConfig;
use super::discriminator::PatchGan;
use super::follow::average;
use super::losses::{commit_loss, entropy_loss};
use crate::TrainError;
use crate::loss_scale::LossScale;
use crate::optim::{AdamW, AdamWConfig, Ema, Gradients, all_finite};
use crate::process_group::{OneProcess, ProcessGroup};
use tch::{Device, Kind, Tensor};
use tokengrid_model::Runtime;
use tokengrid_model::perceptual::Lpips;
use tokengrid_model::{Params, Tokenizer, lfq};

/// The networks in training. Fields are what a checkpoint holds.
pub struct Learner {
    pub(super) config: TokenizerConfig,
    /// Encoder and decoder.
    pub(super) generator: TrainedNet,
    pub(super) adversary: Option<Adversary>,
    perceptual: Option<Lpips>,
    pub(super) scale: LossScale,
    kind: Kind,
    /// Batches so far.
    pub(super) batches: u64,
    /// Increment of [`Learner::global_step`] per batch.
    pub(super) steps_per_batch: u64,
}

/// Parameters, their optimizer and their average.
pub(super) struct TrainedNet {
    pub optimizer: AdamW,
    pub leaves: Params,
    pub ema: Ema,
}

/// The discriminator and what only it needs.
pub(super) struct Adversary {
    pub net: PatchGan,
    pub trained: TrainedNet,
    /// Running statistics of its norms.
    pub running: Params,
    /// Forward passes so far, as its norms count them.
    pub forwards: i64,
    pub lecam: LeCam,
    loss: DiscLoss,
}

/// Initial values.
#[derive(Debug)]
pub struct InitialWeights {
    /// `encoder.*` and `decoder.*`.
    pub generator: Params,
    /// `loss.discriminator.main.*`: parameters and running statistics, when there is a discriminator.
    pub discriminator: Option<(Params, Params)>,
}

/// Named losses of one batch. They stay on the device until [`Losses::values`].
#[derive(Debug, Default)]
pub struct Losses {
    tensors: Vec<(&'static str, Tensor)>,
    numbers: Vec<(&'static str, f64)>,
}

impl Losses {
    fn add(&mut self, name: &'static str, value: &Tensor) {
        self.tensors.push((name, value.detach()));
    }

    /// Names and values, in one transfer from the device. Losses are means over the batch; entropies are in nats, `train/psnr`
    /// in dB.
    pub fn values(&self) -> Vec<(&'static str, f64)> {
        let tensors: Vec<&Tensor> = self.tensors.iter().map(|(_, tensor)| tensor).collect();
        let stacked = Tensor::stack(&tensors, 0).to_device(Device::Cpu);
        let value = |(i, (name, _)): (usize, &(&'static str, Tensor))| (*name, stacked.double_value(&[i as i64]));
        self.tensors.iter().enumerate().map(value).chain(self.numbers.iter().copied()).collect()
    }
}

impl TrainedNet {
    fn new(params: &Params, train: &super::TokenizerTrainSection, runtime: Runtime) -> TrainedNet {
        let adam = AdamWConfig { betas: train.betas, eps: 1e-8, weight_decay: 0.0, weight_decay_on_norms: false };
        let (mut optimizer, leaves) = AdamW::new(params, adam, runtime.device);
        optimizer.compute_by(runtime.route);
        let ema = Ema::new(&optimizer, train.ema_decay);
        TrainedNet { optimizer, leaves, ema }
    }

    fn is_finite(&self) -> bool {
        self.optimizer.is_finite() && self.ema.is_finite()
    }

    /// The parameters in `kind`, differentiable.
    fn cast(&self, kind: Kind) -> Params {
        self.leaves.iter().map(|(name, leaf)| (name.to_string(), leaf.to_kind(kind))).collect()
    }

    /// Backpropagates, averages over the processes and steps, unless a gradient overflowed.
    fn learn(
        &mut self,
        loss: &Tensor,
        lr: f64,
        scale: &mut LossScale,
        processes: &dyn ProcessGroup,
    ) -> Result<(), TrainError> {
        if !scale.dynamic {
            let mut grads: Gradients = self.optimizer.backward(loss)?;
            average(&mut grads, processes)?;
            self.optimizer.step(&grads, lr);
            return Ok(());
        }
        let mut grads = self.optimizer.backward(&(loss * scale.factor))?;
        average(&mut grads, processes)?;
        grads.scale(1.0 / scale.factor);
        let finite = grads.is_finite();
        if finite {
            self.optimizer.step(&grads, lr);
        }
        scale.update(finite);
        Ok(())
    }
}

impl Adversary {
    fn new(
        config: &TokenizerConfig,
        net: PatchGan,
        (params, running): (Params, Params),
        runtime: Runtime,
    ) -> Result<Adversary, TrainError> {
        let loss = config
            .loss
            .disc_loss
            .parse()
            .map_err(|what| TrainError::Config { place: "loss.disc_loss".into(), what })?;
        let trained = TrainedNet::new(&params, &config.train, runtime);
        let running = running.iter().map(|(name, t)| (name.to_string(), t.to_device(runtime.device).copy())).collect();
        Ok(Adversary { net, trained, running, forwards: 0, lecam: LeCam::new(runtime.device), loss })
    }

    fn logits(&mut self, images_bchw: &Tensor, params: &Params) -> Tensor {
        self.forwards += 1;
        self.net.forward(images_bchw, params, &self.running)
    }
}

impl Learner {
    /// Networks with copies of `weights` on the runtime's device. They compute in `kind`; `scale` is for fp16.
    ///
    /// # Errors
    /// `loss.disc_loss` is unknown.
    ///
    /// # Panics
    /// When `weights` lack the discriminator that the configuration requires.
    pub fn new(
        config: &TokenizerConfig,
        weights: InitialWeights,
        perceptual: Option<Lpips>,
        runtime: Runtime,
        kind: Kind,
        scale: LossScale,
    ) -> Result<Learner, TrainError> {
        let generator = TrainedNet::new(&weights.generator, &config.train, runtime);
        let adversary = config.loss.patch_gan().map(|net| {
            let weights = weights.discriminator.expect("initial weights of the discriminator that the config asks for");
            Adversary::new(config, net, weights, runtime)
        });
        let adversary = adversary.transpose()?;
        let config = config.clone();
        Ok(Learner { config, generator, adversary, perceptual, scale, kind, batches: 0, steps_per_batch: 1 })
    }

    /// The reference's `global_step`: batches so far, whose discriminator steps it does not count. (A run that an earlier
    /// version began counts them until its end.)
    pub fn global_step(&self) -> u64 {
        self.batches * self.steps_per_batch
    }

    /// 1 from `loss.disc_start` on, 0 before it and without a discriminator.
    fn disc_factor(&self, global_step: u64) -> f64 {
        let counts = self.adversary.is_some() && global_step >= self.config.loss.disc_start;
        if counts { 1.0 } else { 0.0 }
    }

    /// State of the loss scaling.
    pub fn loss_scale(&self) -> LossScale {
        self.scale
    }

    /// Whether everything that a checkpoint holds is finite: weights, averages, moments, running statistics. Waits for the
    /// device.
    pub fn is_finite(&self) -> bool {
        let adversary = self.adversary.as_ref();
        let running = adversary.is_none_or(|adversary| {
            let LeCam { real, fake } = &adversary.lecam;
            adversary.running.iter().map(|(_, tensor)| tensor).chain([real, fake]).all(all_finite)
        });
        self.generator.is_finite() && running && adversary.is_none_or(|adversary| adversary.trained.is_finite())
    }

    /// The averaged encoder and decoder as they are now, for inference.
    pub fn ema_tokenizer(&self) -> Tokenizer {
        let params = self.generator.ema.params(&self.generator.optimizer);
        Tokenizer::from_params(self.config.model.architecture(), &params).for_inference()
    }

    /// The perceptual distance of the loss, if there is one.
    pub fn perceptual(&self) -> Option<&Lpips> {
        self.perceptual.as_ref()
    }

    /// One batch: images `[B, 3, H, W]` in [-1, 1] on the learner's device, learning rate `lr`.
    ///
    /// # Errors
    /// libtorch fails, for example out of memory.
    pub fn batch(&mut self, images_bchw: &Tensor, lr: f64) -> Result<Losses, TrainError> {
        self.batch_among(images_bchw, lr, &OneProcess)
    }

    /// As [`Learner::batch`], where the images are this process's share of the batch.
    ///
    /// # Errors
    /// As [`Learner::batch`]; another process is gone.
    pub(crate) fn batch_among(
        &mut self,
        images_bchw: &Tensor,
        lr: f64,
        processes: &dyn ProcessGroup,
    ) -> Result<Losses, TrainError> {
        let mut losses = Losses::default();
        let factor = self.disc_factor(self.global_step());
        losses.numbers.push(("train/disc_factor", factor));
        let output_bchw = self.generator_step(images_bchw, lr, factor, &mut losses, processes)?;
        // As in the reference, the generator's step counts by the time the discriminator's loss is computed.
        let factor = self.disc_factor(self.global_step() + 1);
        self.discriminator_step(images_bchw, &output_bchw, lr, factor, &mut losses, processes)?;
        self.generator.ema.update(&self.generator.optimizer);
        if let Some(adversary) = &mut self.adversary {
            adversary.trained.ema.update(&adversary.trained.optimizer);
        }
        self.batches += 1;
        Ok(losses)
    }

    /// Updates encoder and decoder. Returns the reconstruction, detached, f32 `[B, 3, H, W]`.
    fn generator_step(
        &mut self,
        images_bchw: &Tensor,
        lr: f64,
        factor: f64,
        losses: &mut Losses,
        processes: &dyn ProcessGroup,
    ) -> Result<Tensor, TrainError> {
        let tokenizer = Tokenizer::from_params(self.config.model.architecture(), &self.generator.cast(self.kind));
        let h_bzhw = tokenizer.encoder.forward(images_bchw);
        // Straight-through estimator: the value of the signs, the gradient of h.
        let code_bzhw = &h_bzhw + (lfq::signs_of(&h_bzhw) - &h_bzhw).detach();
        let output_bchw = tokenizer.decoder.forward(&code_bzhw.to_kind(self.kind)).to_kind(Kind::Float);
        let nll = self.reconstruction_terms(images_bchw, &output_bchw, losses);
        let codes = self.codebook_terms(&h_bzhw, losses);
        let total = match self.adversarial_term(&output_bchw, factor, losses) {
            Some(term) => nll + codes + term,
            None => nll + codes,
        };
        losses.add("train/total_loss", &total);
        self.generator.learn(&total, lr, &mut self.scale, processes)?;
        Ok(output_bchw.detach())
    }

    /// Reconstruction and perceptual loss.
    fn reconstruction_terms(&self, images_bchw: &Tensor, output_bchw: &Tensor, losses: &mut Losses) -> Tensor {
        let loss = &self.config.loss;
        let error_bchw = output_bchw - images_bchw;
        let (absolute, squared) = (error_bchw.abs().mean(Kind::Float), error_bchw.square().mean(Kind::Float));
        // The peak of a difference is 2 on a scale of [-1, 1].
        let psnr = (squared.detach().clamp_min(1e-12) / 4.0).log10() * -10.0;
        losses.add("train/reconstruct_loss", &absolute);
        losses.add("train/psnr", &psnr);
        let pixels = match loss.mse_share {
            0.0 => absolute,
            share => absolute * (1.0 - share) + squared * share,
        };
        let nll = match &self.perceptual {
            Some(lpips) => {
                let distance = lpips.forward(images_bchw, output_bchw).mean(Kind::Float);
                losses.add("train/perceptual_loss", &distance);
                pixels + distance * loss.perceptual_weight
            }
            None => {
                losses.numbers.push(("train/perceptual_loss", 0.0));
                pixels
            }
        };
        losses.add("train/nll_loss", &nll);
        nll
    }

    /// Entropy and commitment loss, weighted.
    fn codebook_terms(&self, h_bzhw: &Tensor, losses: &mut Losses) -> Tensor {
        let loss = &self.config.loss;
        let (entropy, commit) = (entropy_loss(h_bzhw), commit_loss(h_bzhw));
        losses.add("train/per_sample_entropy", &entropy.sample);
        losses.add("train/codebook_entropy", &entropy.codebook);
        losses.add("train/entropy_loss", &entropy.total);
        losses.add("train/commit_loss", &commit);
        let passed = self.global_step() as f64 / loss.codebook_enlarge_steps.max(1) as f64;
        let enlarge = 1.0 + loss.codebook_enlarge_ratio * (1.0 - passed).max(0.0);
        entropy.total * (loss.codebook_weight * enlarge) + commit * loss.commit_weight
    }

    /// The generator's adversarial loss, weighted; `None` without a discriminator.
    fn adversarial_term(&mut self, output_bchw: &Tensor, factor: f64, losses: &mut Losses) -> Option<Tensor> {
        let weight = self.config.loss.gen_loss_weight;
        losses.numbers.push(("train/d_weight", weight));
        let Some(adversary) = &mut self.adversary else {
            losses.numbers.push(("train/g_loss", 0.0));
            return None;
        };
        let params = adversary.trained.cast(self.kind);
        let term = generator_loss(&adversary.logits(output_bchw, &params)) * (weight * factor);
        losses.add("train/g_loss", &term);
        Some(term)
    }

    /// Updates the discriminator, if there is one.
    fn discriminator_step(
        &mut self,
        images_bchw: &Tensor,
        output_bchw: &Tensor,
        lr: f64,
        factor: f64,
        losses: &mut Losses,
        processes: &dyn ProcessGroup,
    ) -> Result<(), TrainError> {
        let Some(adversary) = &mut self.adversary else { return Ok(()) };
        let params = adversary.trained.cast(self.kind);
        let real_b1hw = adversary.logits(images_bchw, &params);
        let fake_b1hw = adversary.logits(output_bchw, &params);
        let lecam = adversary.lecam.update(&real_b1hw, &fake_b1hw);
        let plain = adversary.loss.of(&real_b1hw, &fake_b1hw);
        let total = (&plain + &lecam * self.config.loss.lecam_loss_weight) * factor;
        losses.add("train/disc_loss", &total);
        losses.add("train/logits_real", &real_b1hw.mean(Kind::Float));
        losses.add("train/logits_fake", &fake_b1hw.mean(Kind::Float));
        losses.add("train/lecam_loss", &lecam);
        losses.add("train/non_saturated_d_loss", &plain);
        adversary.trained.learn(&total, lr, &mut self.scale, processes)
    }
}
