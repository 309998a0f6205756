//! `tokengrid weights ...`: what is in a checkpoint, and copies of it as safetensors.

mod convert;
mod info;

use crate::args::{Global, WeightsCommand};

/// Runs the command.
pub fn run(command: &WeightsCommand, global: &Global) -> anyhow::Result<()> {
    match command {
        WeightsCommand::Info { file, n_head } => info::run(file, *n_head, global),
        WeightsCommand::Convert(args) => convert::run(args, global),
    }
}
