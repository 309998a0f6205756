//! `weights info`: every tensor, its part, and the models in the file.

use super::open;
use crate::args::{ArModelArgs, Global};
use crate::printable::line;
use crate::terminal::print_json;
use crate::torch::model::known;
use serde_json::{Map, Value, json};
use std::path::Path;
use tch::Kind;
use tokengrid_model::ar::{Description, Known};
use tokengrid_model::weights::{Entry, Part};
use tokengrid_model::{Architecture, Variant, Weights};

/// Most tensors that are named for values that are not finite.
const NOT_FINITE_SHOWN: usize = 10;
/// Most names that are shown of tensors outside any known model.
const UNEXPLAINED_SHOWN: usize = 10;
/// Keys of a training checkpoint with its progress.
const PROGRESS: [&str; 5] = ["epoch", "global_step", "step", "iteration", "pytorch-lightning_version"];

/// Runs the command.
pub(super) fn run(file: &Path, model: &ArModelArgs, global: &Global) -> anyhow::Result<()> {
    let weights = open(file)?;
    let report = Report::of(&weights, known(model))?;
    if global.json {
        return print_json(&report.json(&weights));
    }
    report.print(&weights);
    Ok(())
}

/// The report about a file.
struct Report {
    tokenizer: Option<Architecture>,
    ar: Option<Description>,
    /// Why a model whose tensors are here cannot be used.
    problems: Vec<String>,
    unexplained: Vec<String>,
}

impl Report {
    fn of(weights: &Weights, known: Known) -> anyhow::Result<Report> {
        let mut problems = not_finite(weights);
        let tokenizer = weights.has(Part::Tokenizer).then(|| {
            let params = weights.tokenizer_params(Variant::Raw)?;
            Architecture::infer(&params, weights.path())
        });
        let tokenizer = tokenizer.and_then(|found| found.map_err(|e| problems.push(e.to_string())).ok());
        let ar = weights.has(Part::Autoregressive).then(|| Description::of(weights));
        let ar = ar.and_then(|found| found.map_err(|e| problems.push(e.to_string())).ok());
        let ar = ar.map(|description| description.with_typed(known)).transpose()?;
        problems.extend(ar.as_ref().and_then(Description::open_question));
        let unexplained = weights.names().filter(|name| Part::of(name) == Part::Unexplained);
        let unexplained = unexplained.map(str::to_string).collect();
        problems.dedup();
        Ok(Report { tokenizer, ar, problems, unexplained })
    }

    fn json(&self, weights: &Weights) -> Value {
        let tensors: Map<String, Value> = weights.entries().map(|(name, e)| (name.into(), json!(e.shape))).collect();
        let dtypes: Map<String, Value> = weights.entries().map(|(name, e)| (name.into(), json!(dtype(e)))).collect();
        let parts: Map<String, Value> = weights
            .parts()
            .into_iter()
            .map(|(part, (tensors, numel))| (part.name().into(), json!({ "tensors": tensors, "parameters": numel })))
            .collect();
        let tokenizer = self.tokenizer.as_ref().map(|a| {
            json!({ "tokenizer": a, "params": a.num_params(), "factor": a.factor(), "grids": grids(a),
                    "variants": variants(weights) })
        });
        let ar =
            self.ar.as_ref().map(|model| json!({ "model": model.to_json(), "params": model.model().num_params() }));
        json!({
            "file": weights.path(), "format": weights.format().name(), "parameters": total(weights),
            "architecture": tokenizer, "ar": ar, "parts": parts, "skipped": skipped(weights),
            "unexplained": self.unexplained, "problems": self.problems, "training": progress(weights),
            "notes": weights.notes(),
            "tensors": tensors, "dtypes": dtypes,
        })
    }

    fn print(&self, weights: &Weights) {
        for (name, entry) in weights.entries() {
            println!("{:<64} {:>16}  {}", line(name), format!("{:?}", entry.shape), dtype(entry));
        }
        println!("{}: {}", line(&weights.path().to_string_lossy()), weights.format().name());
        weights.notes().iter().for_each(|note| println!("{}", line(note)));
        println!("{} tensors, {} numbers", weights.entries().count(), total(weights));
        for (part, (tensors, numel)) in weights.parts() {
            println!("  {tensors} of them, {numel} numbers: {}", part.name());
        }
        if let Some(a) = &self.tokenizer {
            let (encoder, decoder) = a.num_params();
            println!(
                "tokenizer: ch {}, ch_mult {:?}, {} residual blocks, {} bits, {}x downsampling; encoder {encoder}, decoder {decoder} parameters",
                a.ch,
                a.ch_mult,
                a.num_res_blocks,
                a.z_channels,
                a.factor()
            );
            let grids = grids(a).into_iter().map(|(size, [h, w])| format!("{h} x {w} at {size} pixels"));
            println!("tokens per image: {}", grids.collect::<Vec<_>>().join(", "));
            println!("variants: {}", variants(weights).join(", "));
        }
        if let Some(description) = &self.ar {
            let model = description.model();
            let number = |number: Option<i64>| number.map_or("an unknown number of".to_owned(), |n| n.to_string());
            println!(
                "autoregressive model: dim {}, {} heads, {} + {} layers, bits {:?}, {} classes, {} tokens per image; {} parameters",
                model.dim,
                number(description.n_head()),
                model.spatial_n_layer,
                model.factorized_n_layer,
                model.factorized_bits,
                model.class_num,
                number(description.block_size()),
                model.num_params()
            );
        }
        println!("skipped when the models are loaded (training only): {} tensors", skipped(weights));
        for (key, value) in progress(weights) {
            println!("{key}: {}", line(value.as_str().unwrap_or_default()));
        }
        if !self.unexplained.is_empty() {
            let shown: Vec<&str> = self.unexplained.iter().take(UNEXPLAINED_SHOWN).map(String::as_str).collect();
            println!("{} tensors that no model accounts for: {}", self.unexplained.len(), line(&shown.join(", ")));
        }
        self.problems.iter().for_each(|problem| println!("problem: {}", line(problem)));
    }
}

/// Tensors of a model, or of its averages, with values that are not finite.
fn not_finite(weights: &Weights) -> Vec<String> {
    let is_used = |name: &&str| matches!(Part::of(name), Part::Tokenizer | Part::TokenizerEma | Part::Autoregressive);
    let checked = weights.names().filter(is_used).filter_map(|name| weights.check_finite(name).err());
    checked.take(NOT_FINITE_SHOWN).map(|error| error.to_string()).collect()
}

/// Number of values in all tensors.
fn total(weights: &Weights) -> i64 {
    weights.entries().map(|(_, entry)| entry.numel()).sum()
}

/// Number of tensors that inference ignores: losses, averages, and tensors outside the state dictionary.
fn skipped(weights: &Weights) -> usize {
    let of = |part| weights.parts().get(&part).map_or(0, |(tensors, _)| *tensors);
    of(Part::Loss) + of(Part::EmaOfTraining) + weights.num_other_tensors()
}

fn variants(weights: &Weights) -> Vec<&'static str> {
    let ema = weights.has_ema().then_some("ema");
    std::iter::once("raw").chain(ema).collect()
}

/// Possible image sizes in pixels, with the token grid of each.
fn grids(a: &Architecture) -> Vec<(u32, [u32; 2])> {
    let fitting = [128, 256, 512].into_iter().filter(|size| size % a.factor() == 0);
    fitting.map(|size| (size, [size / a.factor(); 2])).collect()
}

/// Progress of the training, if the file records it.
fn progress(weights: &Weights) -> Map<String, Value> {
    let known = PROGRESS.iter().filter_map(|key| Some((key.to_string(), json!(weights.fact(key)?))));
    known.collect()
}

/// PyTorch's names of data types.
fn dtype(entry: &Entry) -> &'static str {
    match entry.kind {
        Kind::Double => "float64",
        Kind::Float => "float32",
        Kind::Half => "float16",
        Kind::BFloat16 => "bfloat16",
        Kind::Int64 => "int64",
        Kind::Int => "int32",
        Kind::Int16 => "int16",
        Kind::Int8 => "int8",
        Kind::Uint8 => "uint8",
        Kind::Bool => "bool",
        _ => "unknown",
    }
}
