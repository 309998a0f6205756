//! What a run starts or continues from.

use super::config::TokenizerConfig;
use super::learner::InitialWeights;
use crate::TrainError;
use crate::files::{as_typed, local_file};
use crate::loss_scale::LossScale;
use crate::process_group::Fact;
use crate::run::{RunFolder, State};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use tch::{Device, Kind};
use tokengrid_model::perceptual::{Backbone, Lpips};
use tokengrid_model::{Precision, Runtime, Variant};
use tokengrid_store::is_remote;

/// Keys that may change when a run continues.
pub(super) const FREE: [&str; 16] = [
    "loss.perceptual",
    "train.epochs",
    "train.max_steps",
    "train.log_every",
    "train.checkpoint_every",
    "train.keep_last",
    "train.keep_every",
    "train.save_best",
    "train.logger",
    "train.val_every",
    "train.init_from",
    "train.init_variant",
    "train.precision",
    "data.train",
    "data.val",
    "train.timeout_secs",
];

/// What must be the same in all processes of a run. Where the images lie may differ from machine to machine.
///
/// # Errors
/// Values that TOML cannot express.
pub fn facts(config: &TokenizerConfig) -> Result<Vec<Fact>, TrainError> {
    let mut same = config.clone();
    (same.data.train, same.data.val) = (String::new(), None);
    Ok(vec![Fact::toml("the configuration", crate::config::to_toml(&same)?)])
}

/// Element type of the networks on a runtime, and its loss scaling.
pub(super) fn compute(runtime: Runtime) -> (Kind, LossScale) {
    match (runtime.precision, runtime.route.own_kernels) {
        (Precision::Fp16, true) => {
            tracing::warn!("training on the CPU in fp32: fp16 is for GPUs only");
            (Kind::Float, LossScale::OFF)
        }
        (Precision::Fp16, _) => (Kind::Half, LossScale::DYNAMIC),
        (precision, _) => (precision.kind(), LossScale::OFF),
    }
}

/// The perceptual net of the configuration.
pub(super) fn perceptual(config: &TokenizerConfig, device: Device, kind: Kind) -> Result<Option<Lpips>, TrainError> {
    let loss = &config.loss;
    let Some(file) = loss.perceptual_file() else {
        if loss.perceptual_weight > 0.0 {
            tracing::warn!(
                "training without the perceptual loss: `loss.perceptual` names no weights (`{}` and `{}`, or the \
                 reference's checkpoint); its weight is taken as 0",
                Backbone::Vgg16.published_convolutions(),
                Backbone::Vgg16.published_taps()
            );
        }
        return Ok(None);
    };
    // One file, or two with a comma between them. A local path is not split: it may have a comma in its name.
    let parts = file.split(',').map(|part| if is_remote(Path::new(part.trim())) { part.trim() } else { part });
    let files = parts.map(local_file).collect::<Result<Vec<_>, _>>()?;
    let paths: Vec<_> = files.iter().map(|file| file.path().as_os_str()).collect();
    let path = paths.join(OsStr::new(","));
    let opened = Lpips::open(Backbone::Vgg16, Path::new(&path), device).map_err(TrainError::from);
    let named = files.iter().fold(opened, |opened, file| opened.map_err(as_typed(file)));
    Ok(Some(named?.with_kind(kind)))
}

/// Initial weights and state: of the latest checkpoint, of `init_from`, or fresh.
pub(super) fn start(
    config: &TokenizerConfig,
    folder: &RunFolder,
) -> Result<(InitialWeights, State, Option<PathBuf>), TrainError> {
    if let Some(checkpoint) = folder.latest()? {
        let weights = InitialWeights::read(config, &checkpoint.path.join("model.safetensors"), Variant::Raw)?;
        return Ok((weights, checkpoint.state, Some(checkpoint.path)));
    }
    let state = State { seed: config.train.seed, ..State::default() };
    let weights = match &config.train.init_from {
        Some(path) => {
            let (file, variant) = (local_file(path)?, config.train.init_variant.parse()?);
            InitialWeights::read(config, file.path(), variant).map_err(as_typed(&file))?
        }
        None => InitialWeights::fresh(config),
    };
    Ok((weights, state, None))
}
