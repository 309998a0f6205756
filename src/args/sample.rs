//! `sample`.

use super::{DeviceArgs, TokenizerArgs};
use clap::Args;
use std::path::PathBuf;

/// `sample`.
#[derive(Debug, Args)]
pub struct SampleArgs {
    /// A run's folder, one of its checkpoints, or a file (.safetensors, or the reference's .ckpt).
    #[arg(long, value_name = "FILE|DIR")]
    pub checkpoint: PathBuf,
    /// Tokenizer.
    #[command(flatten)]
    pub tokenizer: TokenizerArgs,
    /// Device.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// `all`, or class indices: 207,88.
    #[arg(long, default_value = "all", value_name = "LIST")]
    pub classes: String,
    /// Images a class.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub num_per_class: u32,
    /// Classifier-free guidance for low and high bits; 1 is off.
    #[arg(long, default_value = "1,1", value_name = "A,B")]
    pub cfg_scale: String,
    /// Temperature for low and high bits.
    #[arg(long, default_value = "1,1", value_name = "A,B")]
    pub temperature: String,
    /// Most likely tokens to choose from, for low and high bits; 0 is all, 1,1 is greedy.
    #[arg(long, default_value = "0,0", value_name = "A,B")]
    pub top_k: String,
    /// Probability mass to choose from, for low and high bits; 1 is all.
    #[arg(long, default_value = "1,1", value_name = "A,B")]
    pub top_p: String,
    /// An image depends on the seed, its class and its number, not on the batch.
    #[arg(long, default_value_t = 0, value_name = "S")]
    pub seed: u64,
    /// Images a batch.
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub batch_size: u32,
    /// Attention heads, for checkpoints without a config beside them [default: dim / 64].
    #[arg(long, value_name = "N")]
    pub n_head: Option<i64>,
    /// Folder for pictures, tokens and the grid. Running the same command again continues.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Also write all images as one npz (`arr_0`, bytes [N, H, W, 3]) for the ADM evaluation suite.
    #[arg(long, value_name = "FILE")]
    pub npz: Option<PathBuf>,
    /// Also write all tokens as one array, int32 [N, H*W], class by class.
    #[arg(long, value_name = "FILE.npy")]
    pub tokens: Option<PathBuf>,
    /// Replace the images of another run in the folder.
    #[arg(long)]
    pub overwrite: bool,
}
