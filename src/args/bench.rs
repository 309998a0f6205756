//! `bench ...`.

use super::{AccessArgs, AmongArgs, ArModelArgs, ConfigArgs, DeviceArgs, SourceArgs};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// The stage to measure.
    #[command(subcommand)]
    pub command: BenchCommand,
}

/// `bench ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Images per second from a source to views: on one thread, on all, and compared with decoding alone.
    Ingest(BenchIngestArgs),
    /// Images per second through the tokenizer's encoder, compared with libtorch's own operations.
    Encode(BenchEncodeArgs),
    /// Token grids per second from a cache, in shuffled order, on one thread.
    Loader(BenchLoaderArgs),
    /// Time of a training step: fused and by autograd, from the cache and with images encoded in every step.
    Train(Box<BenchTrainArgs>),
    /// Milliseconds for several processes to sum gradients; started as `train ar` is started.
    Exchange(BenchExchangeArgs),
    /// Images per second sampled from an autoregressive model, at several batch sizes.
    Sample(Box<BenchSampleArgs>),
}

/// `bench ingest`.
#[derive(Debug, Args)]
pub(crate) struct BenchIngestArgs {
    /// Source and recipe.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Number of measurements; the median is reported.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
}

/// `bench encode`.
#[derive(Debug, Args)]
pub(crate) struct BenchEncodeArgs {
    /// Tokenizer weights, or `tiny` [default: weights by formula for --architecture].
    #[arg(long, value_name = "WEIGHTS")]
    pub tokenizer: Option<PathBuf>,
    /// Which copy of the weights: raw, or ema.
    #[arg(long, default_value = "raw", value_name = "raw|ema")]
    pub variant: String,
    /// Without --tokenizer: imagenet_256_L or imagenet_128_L, at full size.
    #[arg(long, default_value = "imagenet_256_L", value_name = "NAME")]
    pub architecture: String,
    /// Device.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Side of the views in pixels.
    #[arg(long, default_value_t = 256, value_name = "PIXELS")]
    pub size: u32,
    /// Views per call.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub batch_size: u32,
    /// Number of measurements; the median is reported.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
}

/// `bench loader`.
#[derive(Debug, Args)]
pub(crate) struct BenchLoaderArgs {
    /// The cache [default: random grids in a temporary folder].
    pub dir: Option<PathBuf>,
    /// How its files are read.
    #[command(flatten)]
    pub access: AccessArgs,
    /// Without DIR: number of random grids.
    #[arg(long, default_value_t = 200_000, value_name = "N")]
    pub rows: usize,
    /// Grids per round.
    #[arg(long, default_value_t = 2_000_000, value_name = "N")]
    pub samples: usize,
    /// Number of measurements; the median is reported.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
}

/// `bench train`.
#[derive(Debug, Args)]
pub(crate) struct BenchTrainArgs {
    /// Configuration, as for `train ar`; dropout is turned off unless --dropout is given.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The token cache [default: synthetic tokens].
    #[arg(long, value_name = "DIR")]
    pub cache: Option<String>,
    /// The images that the cache was made from: also measures training that encodes them in every step.
    #[arg(long, value_name = "SOURCE", requires = "cache", requires = "tokenizer")]
    pub source: Option<PathBuf>,
    /// The tokenizer that the cache was made with.
    #[arg(long, value_name = "WEIGHTS", requires = "source")]
    pub tokenizer: Option<PathBuf>,
    /// Which copy of its weights: raw or ema.
    #[arg(long, default_value = "raw", value_name = "raw|ema")]
    pub variant: String,
    /// Also measure the step that autograd computes.
    #[arg(long)]
    pub autograd: bool,
    /// Keep the configuration's dropout, as in training.
    #[arg(long, conflicts_with = "autograd")]
    pub dropout: bool,
    /// Measured steps, after one warm-up step.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10000))]
    pub steps: u32,
}

/// `bench exchange`.
#[derive(Debug, Args)]
pub(crate) struct BenchExchangeArgs {
    /// Count of float32 values to sum.
    #[arg(long, default_value_t = 17_700_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000_000))]
    pub numbers: u64,
    /// Bytes per bucket; all buckets are exchanged concurrently. The default is that of `train ar`.
    #[arg(long, default_value_t = 25 << 20, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(4..))]
    pub bucket_bytes: u64,
    /// Device.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Number of measurements, after one warm-up; the median is reported.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// The processes that exchange.
    #[command(flatten)]
    pub among: AmongArgs,
}

/// `bench sample`.
#[derive(Debug, Args)]
pub(crate) struct BenchSampleArgs {
    /// Without --checkpoint: the model, as for `train ar`, with fresh weights.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// A trained model, as for `sample`.
    #[arg(long, value_name = "FILE|DIR")]
    pub checkpoint: Option<PathBuf>,
    /// Model settings that the checkpoint does not record.
    #[command(flatten)]
    pub model: ArModelArgs,
    /// fp32, tf32, bf16 or fp16.
    #[arg(long, default_value = "fp32")]
    pub precision: String,
    /// On a GPU: capture the step of a token as a CUDA graph and repeat it. No GPU has run it yet.
    #[arg(long)]
    pub cuda_graph: bool,
    /// Images per batch; several sizes take turns.
    #[arg(long, default_value = "8", value_name = "N,...", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub batch_size: Vec<u32>,
    /// Guidance scale for low and high bits; 1 turns guidance off and halves the work.
    #[arg(long, default_value = "2,2", value_name = "A,B")]
    pub cfg_scale: String,
    /// Most likely tokens to choose from, for low and high bits; 0 is all.
    #[arg(long, default_value = "0,0", value_name = "A,B")]
    pub top_k: String,
    /// Probability mass to choose from, for low and high bits; 1 is all.
    #[arg(long, default_value = "1,1", value_name = "A,B")]
    pub top_p: String,
    /// Number of measurements, after one warm-up; the median is reported.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
}
