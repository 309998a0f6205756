//! `tokengrid weights ...`: what is in a checkpoint, and copies of it as safetensors.

use crate::args::{Global, WeightsCommand};
use crate::exit::CheckFailed;
use crate::terminal::print_json;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use tch::Kind;
use tokengrid_tokenize::weights::save_safetensors;
use tokengrid_tokenize::{Architecture, Variant, Weights, tiny};

/// Runs the command.
pub fn run(command: &WeightsCommand, global: &Global) -> anyhow::Result<()> {
    match command {
        WeightsCommand::Info { file } => info(file, global),
        WeightsCommand::Convert { input, output, half } => convert(input, output, *half, global),
    }
}

fn info(file: &Path, global: &Global) -> anyhow::Result<()> {
    let weights = tiny::open_named(file)?;
    let numel = |shape: &[i64]| shape.iter().product::<i64>();
    let total: i64 = weights.entries().map(|(_, entry)| numel(&entry.shape)).sum();
    let tokenizer = architecture(&weights);
    if global.json {
        let tensors: serde_json::Map<String, Value> =
            weights.entries().map(|(name, entry)| (name.to_string(), json!(entry.shape))).collect();
        let architecture = tokenizer.map(|a| json!({ "tokenizer": a, "params": a.num_params(), "factor": a.factor() }));
        return print_json(
            &json!({ "file": file, "parameters": total, "architecture": architecture, "tensors": tensors }),
        );
    }
    for (name, entry) in weights.entries() {
        println!("{:<64} {:>12}  {:?}", name, format!("{:?}", entry.shape), entry.kind);
    }
    println!("{} tensors, {total} numbers", weights.entries().count());
    if let Some(a) = tokenizer {
        let (encoder, decoder) = a.num_params();
        println!(
            "tokenizer: ch {}, ch_mult {:?}, {} residual blocks, {} bits, {}x downsampling; encoder {encoder}, decoder {decoder} parameters",
            a.ch,
            a.ch_mult,
            a.num_res_blocks,
            a.z_channels,
            a.factor()
        );
        println!("variants: raw{}", if weights.tokenizer_params(Variant::Ema).is_ok() { ", ema" } else { "" });
    }
    Ok(())
}

/// The tokenizer in a file, if there is one.
fn architecture(weights: &Weights) -> Option<Architecture> {
    let params = weights.tokenizer_params(Variant::Raw).ok()?;
    Architecture::infer(&params, weights.path()).ok()
}

fn convert(input: &Path, output: &Path, half: bool, global: &Global) -> anyhow::Result<()> {
    if output.exists() {
        return Err(CheckFailed(format!("{} exists; remove it or choose another name", output.display())).into());
    }
    let weights = Weights::open(input)?;
    let tensors: Result<Vec<_>, _> = weights.names().map(|name| Ok((name, weights.tensor(name)?))).collect();
    let tensors: Vec<(&str, tch::Tensor)> =
        tensors.map_err(|e: tokengrid_tokenize::TokenizeError| anyhow::Error::from(e))?;
    let stored = |tensor: &tch::Tensor| match tensor.kind() {
        Kind::Float | Kind::Double | Kind::BFloat16 if half => tensor.to_kind(Kind::Half),
        _ => tensor.shallow_clone(),
    };
    let tensors: Vec<(&str, tch::Tensor)> = tensors.iter().map(|(name, tensor)| (*name, stored(tensor))).collect();
    save_safetensors(output, tensors.iter().map(|(name, tensor)| (*name, tensor)), HashMap::new())?;
    if global.json {
        return print_json(&json!({ "tensors": tensors.len(), "output": output }));
    }
    println!("{} tensors in {}", tensors.len(), output.display());
    Ok(())
}
