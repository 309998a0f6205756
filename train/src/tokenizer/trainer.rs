//! The tokenizer's training loop.

use super::config::TokenizerConfig;
use super::crop::CropConfig;
use super::data::{Crops, PhotoSet};
use super::initial_params;
use super::losses::{commit_loss, entropy_loss};
use crate::TrainError;
use crate::optim::{AdamW, AdamWConfig, Ema};
use crate::run::{Keep, Metrics, RunFolder, State};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tch::{Device, Kind, Tensor};
use tokengrid_tokenize::weights::save_safetensors;
use tokengrid_tokenize::{Params, Tokenizer, Weights, lfq, pixels};

/// What happened in one logged step.
#[derive(Debug, Clone, Copy)]
pub struct TokenizerReport {
    /// Steps done.
    pub step: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Mean absolute error of the reconstruction, in [0, 2].
    pub reconstruct_loss: f64,
    /// Peak signal-to-noise ratio of the batch, in dB.
    pub psnr: f64,
    /// Entropy of the codebook's use over the batch, in nats.
    pub codebook_entropy: f64,
    /// Crops a second.
    pub images_per_second: f64,
}

/// What a finished run leaves.
#[derive(Debug, Clone)]
pub struct TokenizerSummary {
    /// Steps done.
    pub step: u64,
    /// Photographs trained on.
    pub photos: usize,
    /// The averaged weights: a tokenizer for `--tokenizer`.
    pub weights: std::path::PathBuf,
}

/// A run in progress.
pub struct TokenizerTrainer {
    config: TokenizerConfig,
    folder: RunFolder,
    photos: Arc<PhotoSet>,
    tokenizer: Tokenizer,
    optimizer: AdamW,
    ema: Ema,
    state: State,
    device: Device,
}

/// Keys that may change when a run continues.
const FREE: [&str; 5] =
    ["train.max_steps", "train.log_every", "train.checkpoint_every", "train.init_from", "data.train"];

impl TokenizerTrainer {
    /// Opens the data and the run's folder, and continues from its latest checkpoint where it has one.
    ///
    /// # Errors
    /// Missing data, another run's folder, weights that do not fit.
    pub fn open(config: TokenizerConfig, out: &Path, device: Device, overwrite: bool) -> Result<Self, TrainError> {
        if config.data.train.is_empty() {
            let what = "no training images: give --data SOURCE, or data.train in the configuration".into();
            return Err(TrainError::Config { place: "data.train".into(), what });
        }
        let photos = Arc::new(PhotoSet::open(Path::new(&config.data.train))?);
        let folder = RunFolder::open(out, &config, &FREE, overwrite)?;
        let (params, state, checkpoint) = start(&config, &folder)?;
        let train = &config.train;
        let adam = AdamWConfig { betas: train.betas, eps: 1e-8, weight_decay: 0.0, weight_decay_on_norms: false };
        let (mut optimizer, leaves) = AdamW::new(&params, adam, device);
        let mut ema = Ema::new(&optimizer, train.ema_decay);
        if let Some(path) = checkpoint {
            optimizer.load(&path.join("optimizer.safetensors"))?;
            ema.load(&optimizer, &Weights::open(&path.join("ema.safetensors"))?)?;
        }
        let tokenizer = Tokenizer::from_params(config.model.architecture(), &leaves);
        Ok(TokenizerTrainer { config, folder, photos, tokenizer, optimizer, ema, state, device })
    }

    /// Trains to the end, or until `cancel` is set; a checkpoint is published either way.
    ///
    /// # Errors
    /// Divergence, a full disk, or [`TrainError::Cancelled`].
    pub fn run(
        mut self,
        cancel: &AtomicBool,
        observe: &mut dyn FnMut(&TokenizerReport),
    ) -> Result<TokenizerSummary, TrainError> {
        let train = self.config.train.clone();
        let mut crops = Crops::start(self.photos.clone(), self.crops(), self.state.position);
        let mut metrics = self.folder.metrics(self.state.step)?;
        let mut since = (Instant::now(), self.state.step);
        while self.state.step < train.max_steps {
            let losses = self.step(&crops.next_batch()?)?;
            if self.state.step.is_multiple_of(train.log_every) || self.state.step == train.max_steps {
                let steps = (self.state.step - since.1) as f64;
                let rate = steps * train.batch_size as f64 / since.0.elapsed().as_secs_f64();
                since = (Instant::now(), self.state.step);
                observe(&self.report(&losses, rate, &mut metrics)?);
            }
            let stop = cancel.load(Ordering::Relaxed);
            if stop || self.state.step.is_multiple_of(train.checkpoint_every) || self.state.step == train.max_steps {
                self.checkpoint()?;
            }
            if stop {
                return Err(TrainError::Cancelled);
            }
        }
        let weights = self.folder.path().join("checkpoints/latest/ema.safetensors");
        Ok(TokenizerSummary { step: self.state.step, photos: self.photos.len(), weights })
    }

    fn crops(&self) -> CropConfig {
        let train = &self.config.train;
        CropConfig {
            batch_size: train.batch_size,
            side: train.image_size,
            random: true,
            scale: train.scale,
            flip: train.flip,
            seed: train.seed as u64,
            ..CropConfig::default()
        }
    }

    /// One update on a batch of crops; the losses as a device tensor.
    fn step(&mut self, crops: &[u8]) -> Result<Tensor, TrainError> {
        let (train, loss) = (&self.config.train, &self.config.loss);
        let side = i64::from(train.image_size);
        let images_bchw = pixels::to_input(crops, train.batch_size as i64, side, side, self.device);
        let h_bzhw = self.tokenizer.encoder.forward(&images_bchw);
        let code_bzhw = &h_bzhw + (lfq::signs_of(&h_bzhw) - &h_bzhw).detach();
        let output_bchw = self.tokenizer.decoder.forward(&code_bzhw);
        let (absolute, squared) = {
            let error = &output_bchw - &images_bchw;
            (error.abs().mean(Kind::Float), error.square().mean(Kind::Float))
        };
        let reconstruct = &absolute * (1.0 - loss.mse_share) + &squared * loss.mse_share;
        let (entropy, commit) = (entropy_loss(&h_bzhw), commit_loss(&h_bzhw));
        let steps = loss.codebook_enlarge_steps.max(1) as f64;
        let enlarge = 1.0 + loss.codebook_enlarge_ratio * (1.0 - self.state.step as f64 / steps).max(0.0);
        let total = reconstruct + entropy.total() * (loss.codebook_weight * enlarge) + &commit * loss.commit_weight;
        let grads = self.optimizer.backward(&total)?;
        let lr = self.lr();
        self.optimizer.step(&grads, lr);
        self.ema.update(&self.optimizer);
        self.state.step += 1;
        self.state.position += self.config.train.batch_size as u64;
        let parts = [total, absolute, squared, entropy.sample, entropy.codebook, commit].map(|t| t.detach());
        Ok(Tensor::stack(&parts, 0))
    }

    /// Linear warm-up, then a half cosine to `lr * lr_end`.
    fn lr(&self) -> f64 {
        let (train, step) = (&self.config.train, self.state.step);
        if step < train.warmup_steps {
            return train.lr * (step + 1) as f64 / train.warmup_steps as f64;
        }
        let passed =
            (step - train.warmup_steps) as f64 / train.max_steps.saturating_sub(train.warmup_steps).max(1) as f64;
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * passed.min(1.0)).cos());
        train.lr * (train.lr_end + (1.0 - train.lr_end) * cosine)
    }

    fn report(&self, losses: &Tensor, rate: f64, metrics: &mut Metrics) -> Result<TokenizerReport, TrainError> {
        let at = |i: i64| losses.double_value(&[i]);
        let step = self.state.step;
        if !at(0).is_finite() {
            let last = self.folder.latest()?.map_or("none yet".into(), |c| c.path.display().to_string());
            return Err(TrainError::Diverged { step, loss: at(0), last });
        }
        // The error is on a scale of [-1, 1]: the peak is 2.
        let psnr = 10.0 * (4.0 / at(2).max(1e-12)).log10();
        metrics.log(
            step,
            &[
                ("train/total_loss", at(0)),
                ("train/reconstruct_loss", at(1)),
                ("train/psnr", psnr),
                ("train/per_sample_entropy", at(3)),
                ("train/codebook_entropy", at(4)),
                ("train/entropy_loss", at(3) - at(4)),
                ("train/commit_loss", at(5)),
                ("lr", self.lr()),
                ("images_per_second", rate),
            ],
        )?;
        let steps = self.config.train.max_steps;
        let (reconstruct_loss, codebook_entropy) = (at(1), at(4));
        Ok(TokenizerReport { step, steps, reconstruct_loss, psnr, codebook_entropy, images_per_second: rate })
    }

    fn checkpoint(&self) -> Result<(), TrainError> {
        self.folder.publish(&self.state, Keep { last: 2, every: 0 }, |path| {
            save_safetensors(&path.join("model.safetensors"), self.optimizer.leaves(), HashMap::new())?;
            let ema = self.ema.params(&self.optimizer);
            save_safetensors(&path.join("ema.safetensors"), ema.iter(), HashMap::new())?;
            self.optimizer.save(&path.join("optimizer.safetensors"))
        })?;
        Ok(())
    }
}

/// Initial parameters and state: of the latest checkpoint, of `init_from`, or fresh.
fn start(
    config: &TokenizerConfig,
    folder: &RunFolder,
) -> Result<(Params, State, Option<std::path::PathBuf>), TrainError> {
    let architecture = config.model.architecture();
    let load = |path: &Path| -> Result<Params, TrainError> {
        let params = Weights::open(path)?.tokenizer_params(Default::default())?;
        params.check(&architecture.tensors(), path, "the tokenizer that [model] describes")?;
        Ok(params)
    };
    if let Some(checkpoint) = folder.latest()? {
        let params = load(&checkpoint.path.join("model.safetensors"))?;
        return Ok((params, checkpoint.state, Some(checkpoint.path)));
    }
    let state = State { step: 0, position: 0, seed: config.train.seed, tokenizer: String::new() };
    let params = match &config.train.init_from {
        Some(path) => load(Path::new(path))?,
        None => initial_params(&architecture, config.train.seed),
    };
    Ok((params, state, None))
}
