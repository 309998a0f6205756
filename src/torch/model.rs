//! Loads tokenizers and models for several commands.

use crate::args::{ArModelArgs, DeviceArgs, Global, TokenizerArgs};
use crate::exit::Usage;
use crate::torch::process_group;
use std::path::Path;
use std::sync::Mutex;
use tokengrid_cache::{TokenCache, TokenizerInfo};
use tokengrid_model::ar::{ArModel, ArWeights, Description, Known};
use tokengrid_model::checkpoints::EMA;
use tokengrid_model::{Architecture, Params, Precision, Route, Runtime, Tokenizer, Variant, Weights, tiny};
use tokengrid_tokenize::job::fingerprint;

/// Device and precision from the command line.
pub(super) fn runtime(device: &DeviceArgs, global: &Global) -> anyhow::Result<Runtime> {
    let precision: Precision = device.precision.parse()?;
    let device = process_group::device(device.device.as_deref());
    Ok(Runtime::choose(device.as_deref(), precision, global.threads.map(usize::from))?)
}

/// A tokenizer and its identity, as recorded in caches.
pub(super) fn tokenizer(args: &TokenizerArgs, runtime: &Runtime) -> anyhow::Result<(Tokenizer, TokenizerInfo)> {
    let (tokenizer, info, _) = tokenizer_and_params(args, runtime)?;
    Ok((tokenizer, info))
}

/// As [`tokenizer`], with the weights as read.
pub(super) fn tokenizer_and_params(
    args: &TokenizerArgs,
    runtime: &Runtime,
) -> anyhow::Result<(Tokenizer, TokenizerInfo, Params)> {
    let variant: Variant = args.variant.parse()?;
    let weights = tiny::open_tokenizer(&args.tokenizer)?;
    let params = weights.tokenizer_params(variant)?;
    let architecture = Architecture::infer(&params, weights.path())?;
    let name = args.tokenizer.file_name().unwrap_or(args.tokenizer.as_os_str()).to_string_lossy().into_owned();
    let info = TokenizerInfo {
        fingerprint: fingerprint(&params),
        name,
        variant: variant.name().into(),
        precision: runtime.precision.name().into(),
        details: Default::default(),
    };
    let on_device = params.to_kind_and_device(runtime.precision.kind(), runtime.device);
    let tokenizer = Tokenizer::from_params(architecture, &on_device);
    Ok((if runtime.route.own_kernels { tokenizer.for_inference() } else { tokenizer }, info, params))
}

/// The same tokenizer in exact mode, fp32 on the CPU, as a reference for tokens; `None` if `runtime` is that mode.
pub(crate) fn exact_tokenizer(args: &TokenizerArgs, runtime: &Runtime) -> anyhow::Result<Option<Mutex<Tokenizer>>> {
    if (runtime.precision, runtime.route) == (Precision::Fp32, Route::HOST) {
        return Ok(None);
    }
    Ok(Some(Mutex::new(tokenizer(args, &Runtime::EXACT)?.0)))
}

/// Model settings from the command line.
pub(super) fn known(args: &ArModelArgs) -> Known {
    Known { n_head: args.n_head, grid: args.grid }
}

/// A trained model on its device, and its weights as read; without a `variant`, the averaged weights if the run has them.
pub(super) fn ar_model(
    path: &Path,
    variant: Option<&str>,
    typed: &ArModelArgs,
    runtime: &Runtime,
) -> anyhow::Result<(ArModel, ArWeights)> {
    let file = ar_file(path, variant)?;
    let description = Description::of(&file)?.with_typed(known(typed))?;
    let weights = ArWeights::read(&file, &description)?;
    Ok((on_device(&weights, runtime), weights))
}

/// As [`ar_model`]; a grid that is not recorded is that of `cache`.
pub(super) fn ar_model_for(
    cache: &Path,
    path: &Path,
    variant: Option<&str>,
    n_head: Option<i64>,
    runtime: &Runtime,
) -> anyhow::Result<(ArModel, ArWeights)> {
    let file = ar_file(path, variant)?;
    let mut description = Description::of(&file)?.with_typed(n_head.into())?;
    description.require_heads()?;
    if description.block_size().is_none() {
        let grid = TokenCache::open(cache)?.grid();
        description = description.with(Known { n_head: None, grid: Some((grid.height, grid.width)) })?;
    }
    let weights = ArWeights::read(&file, &description)?;
    Ok((on_device(&weights, runtime), weights))
}

/// The file of the weights `variant` of `path`.
fn ar_file(path: &Path, variant: Option<&str>) -> anyhow::Result<Weights> {
    Ok(ArWeights::file_of(path, variant.map(str::parse::<Variant>).transpose()?)?)
}

/// Prints on stderr that the averaged weights are used, if `--model-variant` was not given.
pub(super) fn note_averages(weights: &ArWeights, variant: Option<&str>, global: &Global) {
    if variant.is_none() && weights.path.ends_with(EMA) && !global.quiet {
        eprintln!("using the averaged weights, {}; `--model-variant raw` selects the others", weights.path.display());
    }
}

fn on_device(weights: &ArWeights, runtime: &Runtime) -> ArModel {
    ArModel::for_inference(&weights.config, &weights.params, runtime)
}

/// Parses two numbers, `a,b`, or one for both.
pub(super) fn pair<T: std::str::FromStr + Copy>(flag: &str, text: &str) -> anyhow::Result<[T; 2]> {
    let numbers: Result<Vec<T>, _> = text.split(',').map(|part| part.trim().parse::<T>()).collect();
    match numbers.as_deref() {
        Ok([one]) => Ok([*one, *one]),
        Ok([low, high]) => Ok([*low, *high]),
        _ => {
            Err(Usage(format!("{flag} {text}: expected two numbers, low bits and high bits, for example 1.5,2.0"))
                .into())
        }
    }
}
