//! Arguments of every command with a model, and of the `weights` commands.

use super::cache::grid;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Device and precision.
#[derive(Debug, Args)]
pub(crate) struct DeviceArgs {
    /// cpu, cuda or cuda:N [default: cuda when there is one].
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// fp32 (exact), tf32, bf16 or fp16.
    #[arg(long, default_value = "fp32")]
    pub precision: String,
}

/// The tokenizer.
#[derive(Debug, Args)]
pub(crate) struct TokenizerArgs {
    /// Tokenizer weights: .ckpt / .pt / .pth, .safetensors, or `tiny`, which is built in.
    #[arg(long, value_name = "WEIGHTS")]
    pub tokenizer: PathBuf,
    /// Which copy of the weights: raw, or ema (their moving average).
    #[arg(long, default_value = "raw", value_name = "raw|ema")]
    pub variant: String,
}

/// Settings that the tensors of an autoregressive model do not determine. Files of this program's runs record them, and
/// those of the published models are known.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ArModelArgs {
    /// Attention heads of the model, if its file does not record it.
    #[arg(long, value_name = "N")]
    pub n_head: Option<i64>,
    /// Height and width of the model's grid, in tokens, if its file does not record it: 16x16.
    #[arg(long, value_name = "HxW", value_parser = grid)]
    pub grid: Option<(u32, u32)>,
}

/// `weights`.
#[derive(Debug, Args)]
pub(crate) struct WeightsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: WeightsCommand,
}

/// `weights ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum WeightsCommand {
    /// Names and shapes, the inferred architecture, parameter counts.
    Info {
        /// A checkpoint, a run's folder, or `tiny`.
        file: PathBuf,
        /// Model settings that the file does not record.
        #[command(flatten)]
        model: ArModelArgs,
    },
    /// Copy tensors to a safetensors file. Nothing in a pickle is executed.
    ///
    /// Without --variant and --to, all tensors are copied under their own names.
    Convert(ConvertArgs),
}

/// `weights convert`.
#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// A checkpoint, a run's folder, or `tiny`.
    pub input: PathBuf,
    /// The safetensors file to write.
    pub output: PathBuf,
    /// Only a tokenizer's encoder and decoder: raw, or ema (their moving average).
    #[arg(long, value_name = "raw|ema")]
    pub variant: Option<String>,
    /// Only an autoregressive model, under the names of the reference's checkpoints or of this program's runs.
    #[arg(long, value_name = "NAMES")]
    pub to: Option<NamesArg>,
    /// With --to reference: the tokenizer to put in as `first_stage_model.*`.
    #[arg(long, value_name = "WEIGHTS")]
    pub tokenizer: Option<PathBuf>,
    /// Model settings that the file does not record.
    #[command(flatten)]
    pub model: ArModelArgs,
    /// Store floating-point tensors in half precision.
    #[arg(long)]
    pub half: bool,
}

/// Naming scheme of tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum NamesArg {
    /// `transformer.*`, and the tokenizer as `first_stage_model.*`.
    Reference,
    /// Without a prefix, as training runs keep them.
    Tokengrid,
}
