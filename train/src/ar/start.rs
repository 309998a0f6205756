//! What a run starts or continues from.

use super::config::ArConfig;
use crate::TrainError;
use crate::files::{as_typed, local_file};
use crate::run::{RunFolder, State};
use crate::schedule::WarmupLinear;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};
use tokengrid_model::Params;
use tokengrid_model::ar::{ArWeights, Known, initial_params};
use tokengrid_model::checkpoints::MODEL;
use tokengrid_model::weights::Weights;

/// Samples per step, of all processes together: the configured number, else that of the run's start.
pub(super) fn global_batch(config: &ArConfig, state: &State, world_size: usize) -> usize {
    let train = &config.train;
    let of_processes = |world_size: usize| train.grad_accum.global_batch(train.batch_size, world_size);
    // Before this number was recorded, runs were of one process.
    let begun = state.global_batch.or_else(|| (state.step > 0).then(|| of_processes(1)));
    train.global_batch.or(begun).unwrap_or_else(|| of_processes(world_size))
}

/// Parameters that those of the first process will replace.
pub(super) fn blank_params(config: &ArConfig) -> Params {
    let tensors = config.model.tensors().into_iter();
    tensors.map(|(name, shape)| (name, Tensor::zeros(shape, (Kind::Float, Device::Cpu)))).collect()
}

/// The learning rate over a run with `global_batch` samples per step and `images` images per epoch.
pub(super) fn schedule(config: &ArConfig, global_batch: usize, images: usize) -> WarmupLinear {
    let train = &config.train;
    let per_epoch = images as f64 / global_batch as f64;
    WarmupLinear {
        peak_lr: train.peak_lr,
        warmup: train.warmup_steps.unwrap_or((train.warmup_epochs * per_epoch).round() as u64),
        total: train.max_steps.unwrap_or((train.epochs * per_epoch).round() as u64).max(1),
        wp0: train.wp0,
        wpe: train.wpe,
    }
}

/// Initial parameters and state: of the latest checkpoint, of `init_from`, or fresh.
pub(super) fn start(
    config: &ArConfig,
    folder: &RunFolder,
    tokenizer: String,
) -> Result<(Params, State, Option<PathBuf>), TrainError> {
    if let Some(checkpoint) = folder.latest()? {
        if checkpoint.state.tokenizer != tokenizer {
            let (was, now) = (checkpoint.state.tokenizer, tokenizer);
            return Err(TrainError::OtherRun {
                path: folder.path().into(),
                key: "the cache's tokenizer".into(),
                was,
                now,
            });
        }
        let file = checkpoint.path.join(MODEL);
        let params = Weights::open(&file)?.params_below("")?;
        params.check(&config.model.tensors(), &file, "the model of this run")?;
        return Ok((params, checkpoint.state, Some(checkpoint.path)));
    }
    let state = State { seed: config.train.seed, tokenizer, ..State::default() };
    let params = match &config.train.init_from {
        Some(path) => {
            let file = local_file(path)?;
            initial_weights(config, file.path()).map_err(as_typed(&file))?
        }
        None => initial_params(&config.model, config.train.seed),
    };
    Ok((params, state, None))
}

/// The parameters in the file of `train.init_from`.
fn initial_weights(config: &ArConfig, file: &Path) -> Result<Params, TrainError> {
    let (n_head, side) = (Some(config.model.n_head), config.model.side() as u32);
    let weights = ArWeights::open(file, Known { n_head, grid: Some((side, side)) })?;
    weights.params.check(&config.model.tensors(), &weights.path, "the model that [model] describes")?;
    // Shapes do not determine the number of heads, and another number makes another model of the same weights.
    let (has, wants) = (weights.config.n_head, config.model.n_head);
    if has != wants {
        let what = format!("the model in {} has {has} heads, `model.n_head` is {wants}", weights.path.display());
        return Err(TrainError::Config { place: "train.init_from".into(), what });
    }
    Ok(weights.params)
}
