//! `weights convert`: writes copies as safetensors, under the names of this program or of the reference.

use super::open;
use crate::args::{ConvertArgs, Global, NamesArg};
use crate::exit::{CheckFailed, Usage};
use crate::terminal::print_json;
use crate::torch::model::known;
use serde_json::json;
use std::collections::HashMap;
use tch::{Kind, Tensor};
use tokengrid_model::ar::{ArWeights, Description};
use tokengrid_model::weights::{AR_PREFIX, FROZEN_PREFIX, Format, Part, pt_metadata};
use tokengrid_model::{Architecture, ModelError, Params, Variant};
use tokengrid_train::run::save_safetensors;

/// The file's contents: tensors and metadata.
struct Content {
    tensors: Vec<(String, Tensor)>,
    metadata: HashMap<String, String>,
}

/// Runs the command.
pub(super) fn run(args: &ConvertArgs, global: &Global) -> anyhow::Result<()> {
    if args.output.exists() {
        return Err(CheckFailed(format!("{} exists; remove it or choose another name", args.output.display())).into());
    }
    if args.tokenizer.is_some() && args.to != Some(NamesArg::Reference) {
        return Err(usage("--tokenizer goes with --to reference"));
    }
    let Content { mut tensors, metadata } = match (args.to, &args.variant) {
        (Some(_), Some(_)) => return Err(usage("--variant is for tokenizers, --to for autoregressive models")),
        (Some(names), None) => autoregressive(args, names)?,
        (None, Some(variant)) => tokenizer(args, variant.parse()?)?,
        (None, None) => everything(args)?,
    };
    if args.half {
        for (name, tensor) in &mut tensors {
            *tensor = halved(name, tensor)?;
        }
    }
    save_safetensors(&args.output, tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)), metadata)?;
    if global.json {
        return print_json(&json!({ "tensors": tensors.len(), "output": args.output }));
    }
    println!("{} tensors in {}", tensors.len(), args.output.display());
    Ok(())
}

fn usage(text: &str) -> anyhow::Error {
    Usage(text.into()).into()
}

/// All tensors under their own names, with the file's metadata and the settings of an autoregressive model in it.
fn everything(args: &ConvertArgs) -> anyhow::Result<Content> {
    let weights = open(&args.input)?;
    let tensors: Result<Vec<_>, ModelError> =
        weights.names().map(|name| Ok((name.to_string(), weights.parameter(name)?))).collect();
    let mut metadata = pt_metadata();
    if weights.format() == Format::Safetensors {
        metadata.extend(weights.facts().map(|(key, text)| (key.to_string(), text.to_string())));
    }
    if weights.has(Part::Autoregressive) && weights.check_explained().is_ok() {
        let description = Description::of(&weights)?.with_typed(known(&args.model))?;
        warn_about_open_question(&description);
        metadata.extend(description.metadata());
    }
    Ok(Content { tensors: tensors?, metadata })
}

/// One variant of a tokenizer, as `encoder.*` and `decoder.*`.
fn tokenizer(args: &ConvertArgs, variant: Variant) -> anyhow::Result<Content> {
    let weights = open(&args.input)?;
    let params = weights.tokenizer_params(variant)?;
    Architecture::infer(&params, weights.path())?;
    Ok(Content { tensors: named(&params, ""), metadata: pt_metadata() })
}

/// An autoregressive model, of a run or of the reference, under either's names.
fn autoregressive(args: &ConvertArgs, names: NamesArg) -> anyhow::Result<Content> {
    let weights = open(&args.input)?;
    let description = Description::of(&weights)?.with_typed(known(&args.model))?;
    description.require_heads()?;
    warn_about_open_question(&description);
    let params = ArWeights::params_of(&weights, &description)?;
    let mut tensors = named(&params, if names == NamesArg::Reference { AR_PREFIX } else { "" });
    if let Some(path) = &args.tokenizer {
        let weights = open(path)?;
        let params = weights.tokenizer_params(Variant::Raw)?;
        Architecture::infer(&params, weights.path())?;
        tensors.extend(named(&params, FROZEN_PREFIX));
    }
    Ok(Content { tensors, metadata: description.metadata() })
}

/// Warns about model settings that the new file will not record either.
fn warn_about_open_question(description: &Description) {
    if let Some(question) = description.open_question() {
        tracing::warn!("the new file does not record all settings of the model: {question}");
    }
}

fn named(params: &Params, prefix: &str) -> Vec<(String, Tensor)> {
    params.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.shallow_clone())).collect()
}

fn halved(name: &str, tensor: &Tensor) -> anyhow::Result<Tensor> {
    if !matches!(tensor.kind(), Kind::Float | Kind::Double | Kind::BFloat16) {
        return Ok(tensor.shallow_clone());
    }
    let halved = tensor.to_kind(Kind::Half);
    if halved.isfinite().all().int64_value(&[]) == 0 {
        let text =
            format!("tensor `{name}` has values beyond half precision, whose largest is 65504; leave out --half");
        return Err(CheckFailed(text).into());
    }
    Ok(halved)
}
