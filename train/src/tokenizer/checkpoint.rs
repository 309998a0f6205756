//! A learner's files. Tensors have the names of the reference's checkpoints where it has such tensors.
//!
//! ```text
//! model.safetensors                     encoder.*, decoder.*, loss.discriminator.*, model_ema.*
//! ema.safetensors                       the averaged encoder.* and decoder.*: the tokenizer to use
//! optimizer.safetensors                 Adam's moments of encoder and decoder
//! discriminator_optimizer.safetensors   the same of the discriminator
//! learner.safetensors                   LeCAM's averages, loss scale, how steps are counted
//! ```

use super::TokenizerConfig;
use super::adversarial::LeCam;
use super::discriminator::{PREFIX, PatchGan};
use super::init::initial_params;
use super::learner::{Adversary, InitialWeights, Learner, TrainedNet};
use crate::TrainError;
use crate::run::save_safetensors;
use std::path::Path;
use tch::{Kind, Tensor};
use tokengrid_model::checkpoints::{EMA, MODEL};
use tokengrid_model::rng::CounterRng;
use tokengrid_model::weights::pt_metadata;
use tokengrid_model::{ModelError, Params, Variant, Weights};

pub(super) const OPTIMIZER: &str = "optimizer.safetensors";
pub(super) const DISCRIMINATOR_OPTIMIZER: &str = "discriminator_optimizer.safetensors";
pub(super) const LEARNER: &str = "learner.safetensors";

/// The name of a parameter's average: without dots, as the reference's `LitEma` names it.
fn ema_name(name: &str) -> String {
    format!("model_ema.{}", name.replace('.', ""))
}

impl InitialWeights {
    /// Fresh weights, a function of `train.seed`.
    pub fn fresh(config: &TokenizerConfig) -> InitialWeights {
        let seed = config.train.seed;
        InitialWeights {
            generator: initial_params(&config.model.architecture(), seed),
            discriminator: config.loss.patch_gan().map(|net| fresh_discriminator(net, seed)),
        }
    }

    /// Weights of a checkpoint of this program or of the reference. A file without a discriminator gives a fresh one.
    ///
    /// # Errors
    /// The file is missing or damaged, has another architecture than the configuration describes, or lacks the averages that
    /// `variant` asks for.
    pub fn read(config: &TokenizerConfig, path: &Path, variant: Variant) -> Result<InitialWeights, TrainError> {
        let weights = Weights::open(path)?;
        let generator = weights.tokenizer_params(variant)?;
        generator.check(&config.model.architecture().tensors(), path, "the tokenizer that [model] describes")?;
        let discriminator = config.loss.patch_gan().map(|net| {
            if weights.names().any(|name| name.starts_with(PREFIX)) {
                return read_discriminator(net, &weights, variant);
            }
            tracing::warn!("{} has no `{PREFIX}*`: the discriminator starts from scratch", path.display());
            Ok(fresh_discriminator(net, config.train.seed))
        });
        Ok(InitialWeights { generator, discriminator: discriminator.transpose()? })
    }
}

fn fresh_discriminator(net: PatchGan, seed: i64) -> (Params, Params) {
    // A separate seed, so that the tokenizer's initial weights do not depend on there being a discriminator.
    let seed = CounterRng::new(&[seed as u64, 21]).next_u64() as i64;
    (net.initial_params(seed), net.initial_running(tch::Device::Cpu))
}

fn read_discriminator(net: PatchGan, weights: &Weights, variant: Variant) -> Result<(Params, Params), TrainError> {
    let read = |(name, shape): (String, Vec<i64>), stored: String| {
        let tensor = weights.parameter(&stored)?.to_kind(Kind::Float);
        if tensor.size() != shape {
            let (path, name, actual, expected) = (weights.path().into(), stored, tensor.size(), shape);
            return Err(ModelError::WrongShape { path, name, actual, expected });
        }
        Ok((name, tensor))
    };
    let stored = |name: &str| if variant == Variant::Ema { ema_name(name) } else { name.to_string() };
    let params = net.tensors().into_iter().map(|entry| read(entry.clone(), stored(&entry.0)));
    // Running statistics are not parameters: they have no average.
    let running = net.running_tensors().into_iter().map(|entry| read(entry.clone(), entry.0));
    Ok((params.collect::<Result<Params, ModelError>>()?, running.collect::<Result<Params, ModelError>>()?))
}

impl TrainedNet {
    fn averages(&self) -> impl Iterator<Item = (String, Tensor)> {
        let averages = self.ema.params(&self.optimizer);
        averages.iter().map(|(name, t)| (ema_name(name), t.shallow_clone())).collect::<Vec<_>>().into_iter()
    }

    fn load(&mut self, optimizer: &Path, model: &Weights) -> Result<(), TrainError> {
        self.optimizer.load(optimizer)?;
        self.ema.load(&self.optimizer, |name| model.parameter(&ema_name(name)))
    }
}

impl Learner {
    /// Writes all that [`Learner::load`] needs into an existing folder.
    ///
    /// # Errors
    /// The disk is full or read-only.
    pub fn save(&self, folder: &Path) -> Result<(), TrainError> {
        let leaves = self.generator.leaves.iter();
        let mut model: Vec<(String, Tensor)> = leaves.map(|(n, t)| (n.to_string(), t.shallow_clone())).collect();
        model.extend(self.generator.averages());
        model.push(("model_ema.decay".into(), Tensor::from(self.config.train.ema_decay as f32)));
        model.push(("model_ema.num_updates".into(), Tensor::from(-1i32)));
        let mut state = vec![
            ("loss_scale.factor".to_string(), Tensor::from(self.scale.factor)),
            ("loss_scale.good_steps".to_string(), Tensor::from(self.scale.good_steps as i64)),
            ("loss_scale.skipped_steps".to_string(), Tensor::from(self.scale.skipped_steps as i64)),
            (STEPS_PER_BATCH.to_string(), Tensor::from(self.steps_per_batch as i64)),
        ];
        if let Some(adversary) = &self.adversary {
            model.extend(adversary.tensors());
            let LeCam { real, fake } = &adversary.lecam;
            state.extend([("lecam.real", real), ("lecam.fake", fake)].map(|(n, t)| (n.into(), t.shallow_clone())));
            adversary.trained.optimizer.save(&folder.join(DISCRIMINATOR_OPTIMIZER))?;
        }
        write(&folder.join(MODEL), &model)?;
        write(&folder.join(LEARNER), &state)?;
        let ema = self.generator.ema.params(&self.generator.optimizer);
        save_safetensors(&folder.join(EMA), ema.iter(), pt_metadata())?;
        self.generator.optimizer.save(&folder.join(OPTIMIZER))
    }

    /// Restores what [`Learner::save`] wrote after `batches` batches, on a learner made of the weights in its
    /// `model.safetensors`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(&mut self, folder: &Path, batches: u64) -> Result<(), TrainError> {
        let model = Weights::open(&folder.join(MODEL))?;
        let state = Weights::open(&folder.join(LEARNER))?;
        self.batches = batches;
        self.steps_per_batch = match state.contains(STEPS_PER_BATCH) {
            true => state.tensor(STEPS_PER_BATCH)?.int64_value(&[]).max(1) as u64,
            false => self.earlier_steps_per_batch(folder),
        };
        self.generator.load(&folder.join(OPTIMIZER), &model)?;
        self.scale.factor = state.tensor("loss_scale.factor")?.double_value(&[]);
        self.scale.good_steps = state.tensor("loss_scale.good_steps")?.int64_value(&[]) as u64;
        self.scale.skipped_steps = state.tensor("loss_scale.skipped_steps")?.int64_value(&[]) as u64;
        if let Some(adversary) = &mut self.adversary {
            adversary.trained.load(&folder.join(DISCRIMINATOR_OPTIMIZER), &model)?;
            let LeCam { real, fake } = &mut adversary.lecam;
            real.f_copy_(&state.tensor("lecam.real")?)?;
            fake.f_copy_(&state.tensor("lecam.fake")?)?;
            let counts = adversary.net.num_batches_tracked(0);
            let first = counts.keys().next().map(|name| model.tensor(name)).transpose()?;
            adversary.forwards = first.map_or(0, |count| count.int64_value(&[]));
        }
        Ok(())
    }
}

impl Learner {
    /// Steps per batch for checkpoints of versions that did not record them: both optimizers' steps were counted. The run
    /// continues to count as it was begun.
    fn earlier_steps_per_batch(&self, folder: &Path) -> u64 {
        let loss = &self.config.loss;
        if self.adversary.is_none() {
            return 1;
        }
        let enlarges = loss.codebook_enlarge_ratio > 0.0 && 2 * self.batches < loss.codebook_enlarge_steps;
        if enlarges || 2 * self.batches < loss.disc_start {
            tracing::warn!(
                "{} is of an earlier version: in this run `loss.disc_start` and `loss.codebook_enlarge_steps` go on to \
                 count two steps per batch",
                folder.display()
            );
        }
        2
    }
}

/// Name in `learner.safetensors` of what a batch adds to the global step; missing in files of earlier versions.
const STEPS_PER_BATCH: &str = "global_step.per_batch";

impl Adversary {
    /// Everything that the reference keeps under `loss.discriminator.`, and its averages.
    fn tensors(&self) -> impl Iterator<Item = (String, Tensor)> {
        let named = self.trained.leaves.iter().chain(self.running.iter());
        let named = named.map(|(name, tensor)| (name.to_string(), tensor.shallow_clone()));
        named.chain(self.net.num_batches_tracked(self.forwards)).chain(self.trained.averages())
    }
}

fn write(path: &Path, tensors: &[(String, Tensor)]) -> Result<(), TrainError> {
    let named = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    save_safetensors(path, named, pt_metadata())
}
