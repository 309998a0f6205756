//! What every command with a model takes, and the commands about weights.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Where to compute.
#[derive(Debug, Args)]
pub struct DeviceArgs {
    /// cpu, cuda or cuda:N [default: cuda when there is one].
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// fp32 (exact), tf32, bf16 or fp16.
    #[arg(long, default_value = "fp32")]
    pub precision: String,
}

/// Which tokenizer.
#[derive(Debug, Args)]
pub struct TokenizerArgs {
    /// Tokenizer weights: .ckpt / .pt / .pth, .safetensors, or `tiny`, which is built in.
    #[arg(long, value_name = "WEIGHTS")]
    pub tokenizer: PathBuf,
    /// Which copy of the weights: raw, or ema (their moving average).
    #[arg(long, default_value = "raw", value_name = "raw|ema")]
    pub variant: String,
}

/// `weights`.
#[derive(Debug, Args)]
pub struct WeightsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: WeightsCommand,
}

/// `weights ...`.
#[derive(Debug, Subcommand)]
pub enum WeightsCommand {
    /// Names and shapes, the inferred architecture, parameter counts.
    Info {
        /// A checkpoint, or `tiny`.
        file: PathBuf,
    },
    /// Copy all tensors to a safetensors file. Nothing in a pickle is executed.
    Convert {
        /// A checkpoint.
        input: PathBuf,
        /// The safetensors file to write.
        output: PathBuf,
        /// Store floating-point tensors in half precision.
        #[arg(long)]
        half: bool,
    },
}
