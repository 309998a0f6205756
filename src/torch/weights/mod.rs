//! `tokengrid weights ...`: contents of checkpoints, and copies as safetensors.

mod convert;
mod info;

use crate::args::{Global, WeightsCommand};
use std::path::Path;
use tokengrid_model::ar::ArWeights;
use tokengrid_model::{Weights, tiny};

/// Runs the command.
pub(super) fn run(command: &WeightsCommand, global: &Global) -> anyhow::Result<()> {
    match command {
        WeightsCommand::Info { file, model } => info::run(file, model, global),
        WeightsCommand::Convert(args) => convert::run(args, global),
    }
}

/// A checkpoint, the model of a run's newest checkpoint, or `tiny`.
fn open(path: &Path) -> anyhow::Result<Weights> {
    Ok(if path.is_dir() { ArWeights::file(path)? } else { tiny::open_tokenizer(path)? })
}
