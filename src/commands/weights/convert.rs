//! `weights convert`: copies as safetensors, under the names of this program or of the reference.

use crate::args::{ConvertArgs, Global, NamesArg};
use crate::exit::{CheckFailed, Usage};
use crate::terminal::print_json;
use serde_json::json;
use std::collections::HashMap;
use tch::{Kind, Tensor};
use tokengrid_tokenize::weights::{AR_PREFIX, FROZEN_PREFIX, save_safetensors};
use tokengrid_tokenize::{Architecture, Params, Variant, Weights, tiny};
use tokengrid_train::ar::ArWeights;

/// What will be written.
struct Content {
    tensors: Vec<(String, Tensor)>,
    metadata: HashMap<String, String>,
}

/// Runs the command.
pub fn run(args: &ConvertArgs, global: &Global) -> anyhow::Result<()> {
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
        (None, None) => everything(&Weights::open(&args.input)?)?,
    };
    if args.half {
        tensors.iter_mut().for_each(|(_, tensor)| *tensor = halved(tensor));
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

/// All tensors under the names that they have.
fn everything(weights: &Weights) -> anyhow::Result<Content> {
    let tensors: Result<Vec<_>, _> =
        weights.names().map(|name| Ok((name.to_string(), weights.tensor(name)?))).collect();
    Ok(Content { tensors: tensors.map_err(|e: tokengrid_tokenize::TokenizeError| e)?, metadata: pt() })
}

/// One variant of a tokenizer, as `encoder.*` and `decoder.*`.
fn tokenizer(args: &ConvertArgs, variant: Variant) -> anyhow::Result<Content> {
    let weights = tiny::open_named(&args.input)?;
    let params = weights.tokenizer_params(variant)?;
    Architecture::infer(&params, weights.path())?;
    Ok(Content { tensors: named(&params, ""), metadata: pt() })
}

/// An autoregressive model, of a run or of the reference, under either's names.
fn autoregressive(args: &ConvertArgs, names: NamesArg) -> anyhow::Result<Content> {
    let weights = ArWeights::open(&args.input, args.n_head)?;
    let mut tensors = named(&weights.params, if names == NamesArg::Reference { AR_PREFIX } else { "" });
    if let Some(path) = &args.tokenizer {
        let weights = tiny::open_named(path)?;
        let params = weights.tokenizer_params(Variant::Raw)?;
        Architecture::infer(&params, weights.path())?;
        tensors.extend(named(&params, FROZEN_PREFIX));
    }
    Ok(Content { tensors, metadata: weights.metadata() })
}

fn named(params: &Params, prefix: &str) -> Vec<(String, Tensor)> {
    params.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.shallow_clone())).collect()
}

/// The mark by which other readers of safetensors know tensors in PyTorch's layout.
fn pt() -> HashMap<String, String> {
    HashMap::from([("format".to_string(), "pt".to_string())])
}

fn halved(tensor: &Tensor) -> Tensor {
    match tensor.kind() {
        Kind::Float | Kind::Double | Kind::BFloat16 => tensor.to_kind(Kind::Half),
        _ => tensor.shallow_clone(),
    }
}
