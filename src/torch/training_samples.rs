//! Pictures that are sampled during a training run.

use super::model;
use crate::args::TokenizerArgs;
use crate::exit::CheckFailed;
use tokengrid_model::ar::ArModel;
use tokengrid_model::tokenizer::{decode, tokens_tensor};
use tokengrid_model::{Picture, Precision, Runtime, Tokenizer};
use tokengrid_sample::sampler::SampleRequest;
use tokengrid_sample::{SampleError, Sampler, SamplerConfig};
use tokengrid_train::ar::{ArConfig, SampleFn};

/// Classes (rows) of a picture, spread evenly over all classes.
const CLASSES: i64 = 4;

/// Images per row.
const IMAGES_PER_CLASS: u64 = 4;

/// Settings close to the published ones, so that the pictures show the quality of normal use.
const CFG_SCALE: [f64; 2] = [2.0, 2.0];

/// The function for [`tokengrid_train::ar::Trainer::sample_with`]. The images' random numbers are the same every time, so
/// that pictures of different steps can be compared.
///
/// # Errors
/// The tokenizer is not that of the cache, whose fingerprint is `trained_on`.
pub(super) fn sampler(
    args: &TokenizerArgs,
    config: &ArConfig,
    trained_on: &str,
    runtime: &Runtime,
) -> anyhow::Result<SampleFn> {
    let runtime = Runtime { precision: Precision::Fp32, ..*runtime };
    let tokenizer = tokenizer(args, trained_on, &runtime)?;
    let settings = SamplerConfig { cfg_scale: CFG_SCALE, seed: config.train.seed as u64, ..SamplerConfig::default() };
    let wanted = wanted(config.model.class_num);
    Ok(Box::new(move |model| Ok(picture(model, &tokenizer, &settings, &wanted, &runtime)?)))
}

/// The tokenizer of the cache.
///
/// # Errors
/// The tokenizer is not that of the cache, whose fingerprint is `trained_on`.
pub(super) fn tokenizer(args: &TokenizerArgs, trained_on: &str, runtime: &Runtime) -> anyhow::Result<Tokenizer> {
    let (tokenizer, info) = model::tokenizer(args, runtime)?;
    if info.fingerprint != trained_on {
        let given = &info.fingerprint;
        let text = format!("the cache holds tokens of another tokenizer ({trained_on}) than {} ({given})", info.name);
        return Err(CheckFailed(text).into());
    }
    Ok(tokenizer)
}

fn wanted(class_num: i64) -> Vec<SampleRequest> {
    let rows = CLASSES.min(class_num);
    let classes = (0..rows).map(|row| row * class_num / rows);
    classes.flat_map(|class| (0..IMAGES_PER_CLASS).map(move |index| SampleRequest { class, index })).collect()
}

fn picture(
    model: &ArModel,
    tokenizer: &Tokenizer,
    settings: &SamplerConfig,
    wanted: &[SampleRequest],
    runtime: &Runtime,
) -> Result<Picture, SampleError> {
    let tokens = Sampler::new(model, settings.clone(), *runtime)?.sample(wanted)?;
    let side = model.config.side();
    Ok(Picture::grid(
        &decode(tokenizer, &tokens_tensor(&tokens, side, runtime.device), *runtime),
        IMAGES_PER_CLASS as usize,
    ))
}
