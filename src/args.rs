//! What can be typed. Everything here is what the user sees in `--help`.

use clap::{ArgAction, Args, Parser, Subcommand};
use std::path::PathBuf;

/// Turns image data sets into 18-bit token grids once, and trains autoregressive image models from them.
///
/// The usual order: `tokenize` a folder of images into a cache, look at it with `cache info`, `train ar` from the cache,
/// `sample` from the trained model. `--tokenizer tiny` needs no download.
#[derive(Debug, Parser)]
#[command(name = "tokengrid", version = env!("TOKENGRID_VERSION"), arg_required_else_help = true)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub struct Global {
    /// Print exactly one JSON object on stdout.
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress, no warnings.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// More log lines on stderr (twice: everything).
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// CPU threads to use [default: one a core].
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Decode and resize a whole data set: a check-up, or PNGs of what the tokenizer would see.
    Ingest(IngestArgs),
    /// Look at a token cache, and check it.
    Cache(CacheArgs),
    /// The main job: images in, token cache out.
    #[cfg(feature = "torch")]
    Tokenize(TokenizeArgs),
    /// Take images through a tokenizer and back, side by side.
    #[cfg(feature = "torch")]
    Reconstruct(ReconstructArgs),
    /// Look into checkpoint files, and convert them.
    #[cfg(feature = "torch")]
    Weights(WeightsArgs),
    /// Train a tokenizer or an autoregressive model.
    #[cfg(feature = "torch")]
    Train(TrainArgs),
    /// Sample images from a trained autoregressive model.
    #[cfg(feature = "torch")]
    Sample(SampleArgs),
    /// Measure how good a model is.
    #[cfg(feature = "torch")]
    Eval(EvalArgs),
}

/// Where images come from and what is cut out of them.
#[derive(Debug, Args)]
pub struct SourceArgs {
    /// Images: a folder of class folders, a flat folder, or a list of files (.txt).
    pub source: PathBuf,
    /// Side of the square images in pixels.
    #[arg(long, default_value_t = 256, value_name = "PIXELS")]
    pub size: u32,
    /// Views an image: center, center+flip, random-crop:K, ten-crop, ten-crop:1.1.
    #[arg(long, default_value = "center", value_name = "RECIPE")]
    pub views: String,
    /// Seed of random crops: the same seed, image and view give the same crop everywhere.
    #[arg(long, default_value_t = 0, value_name = "S")]
    pub seed: u64,
    /// Leave out files of this name; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub exclude: Vec<String>,
    /// Only the first N images.
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

/// `ingest`.
#[derive(Debug, Args)]
pub struct IngestArgs {
    /// Source and recipe.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Write lossless PNGs `<key>.<view>.png` to this folder.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Write the report (the object that --json prints) to this file.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// `cache`.
#[derive(Debug, Args)]
pub struct CacheArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: CacheCommand,
}

/// `cache ...`.
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// What is in a cache: rows, sizes, tokenizer, recipe, shards.
    Info {
        /// The cache's folder.
        dir: PathBuf,
    },
    /// Check every checksum and every count; exit status 1 names what is damaged.
    Verify {
        /// The cache's folder.
        dir: PathBuf,
    },
    /// One row: label, key, view, crop, tokens.
    Show {
        /// The cache's folder.
        dir: PathBuf,
        /// The row, counted from 0.
        #[arg(long, default_value_t = 0, value_name = "ROW")]
        index: usize,
    },
}

/// Where to compute.
#[cfg(feature = "torch")]
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
#[cfg(feature = "torch")]
#[derive(Debug, Args)]
pub struct TokenizerArgs {
    /// Tokenizer weights: .ckpt / .pt / .pth, .safetensors, or `tiny`, which is built in.
    #[arg(long, value_name = "WEIGHTS")]
    pub tokenizer: PathBuf,
    /// Which copy of the weights: raw, or ema (their moving average).
    #[arg(long, default_value = "raw", value_name = "raw|ema")]
    pub variant: String,
}

/// `tokenize`.
#[cfg(feature = "torch")]
#[derive(Debug, Args)]
pub struct TokenizeArgs {
    /// Source and recipe.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Tokenizer.
    #[command(flatten)]
    pub tokenizer: TokenizerArgs,
    /// Device.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Folder of the cache. Running the same command again continues it.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Views an encoder call.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub batch_size: u32,
    /// This process, counted from 0 [default: RANK, then SLURM_PROCID, then 0].
    #[arg(long, value_name = "R")]
    pub rank: Option<u32>,
    /// Processes that share the job [default: WORLD_SIZE, then SLURM_NTASKS, then 1].
    #[arg(long, value_name = "W")]
    pub world_size: Option<u32>,
    /// Images that cannot be decoded: `quarantine` notes them and goes on, `fail` stops at the first.
    #[arg(long, default_value = "quarantine", value_name = "POLICY")]
    pub on_bad: String,
    /// Stop when more than this share of all images is bad.
    #[arg(long, default_value_t = 0.01, value_name = "SHARE")]
    pub max_bad_fraction: f64,
    /// Start anew where there is a cache already.
    #[arg(long)]
    pub overwrite: bool,
    /// Say what would be done: rows, bytes, files, free disk.
    #[arg(long)]
    pub dry_run: bool,
}

/// `reconstruct`.
#[cfg(feature = "torch")]
#[derive(Debug, Args)]
pub struct ReconstructArgs {
    /// Image files.
    #[arg(required = true)]
    pub images: Vec<PathBuf>,
    /// Tokenizer.
    #[command(flatten)]
    pub tokenizer: TokenizerArgs,
    /// Device.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Side of the square images in pixels.
    #[arg(long, default_value_t = 256, value_name = "PIXELS")]
    pub size: u32,
    /// Folder for the pictures: original left, reconstruction right.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// `weights`.
#[cfg(feature = "torch")]
#[derive(Debug, Args)]
pub struct WeightsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: WeightsCommand,
}

/// `weights ...`.
#[cfg(feature = "torch")]
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

/// `train`.
#[cfg(feature = "torch")]
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// What to train.
    #[command(subcommand)]
    pub command: TrainCommand,
}

/// Where a run's settings come from.
#[cfg(feature = "torch")]
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// A TOML file; see the guide for its keys.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Override one key, for example train.max_steps=100 or model.preset=tiny; may be repeated.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
    /// Start anew where there is a run already.
    #[arg(long)]
    pub overwrite: bool,
    /// cpu, cuda or cuda:N [default: cuda when there is one].
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
}

/// `train ...`.
#[cfg(feature = "torch")]
#[derive(Debug, Subcommand)]
pub enum TrainCommand {
    /// Train the autoregressive model straight from a token cache.
    Ar {
        /// Configuration.
        #[command(flatten)]
        config: ConfigArgs,
        /// The token cache.
        #[arg(long, value_name = "DIR")]
        cache: Option<String>,
        /// A second cache, for the validation loss.
        #[arg(long, value_name = "DIR")]
        val_cache: Option<String>,
        /// The run's folder. Running the same command again continues from its latest checkpoint.
        #[arg(long, default_value = "runs/ar", value_name = "DIR")]
        out: PathBuf,
    },
    /// Train a tokenizer on photographs.
    Tokenizer {
        /// Configuration.
        #[command(flatten)]
        config: ConfigArgs,
        /// Training images: a folder, or a list of files.
        #[arg(long, value_name = "SOURCE")]
        data: Option<String>,
        /// The run's folder. Running the same command again continues from its latest checkpoint.
        #[arg(long, default_value = "runs/tokenizer", value_name = "DIR")]
        out: PathBuf,
    },
    /// Draw the loss curves of runs.
    Plot {
        /// Folders of runs.
        #[arg(required = true)]
        runs: Vec<PathBuf>,
        /// Which value of metrics.jsonl.
        #[arg(long, default_value = "train/loss")]
        key: String,
        /// The picture.
        #[arg(long, value_name = "FILE.png")]
        out: PathBuf,
    },
}

/// `sample`.
#[cfg(feature = "torch")]
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

/// `eval`.
#[cfg(feature = "torch")]
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// What to measure.
    #[command(subcommand)]
    pub command: EvalCommand,
}

/// `eval ...`.
#[cfg(feature = "torch")]
#[derive(Debug, Subcommand)]
pub enum EvalCommand {
    /// Teacher-forced loss of an autoregressive model over a cache, in nats a token.
    Ar {
        /// A run's folder, one of its checkpoints, or a file.
        #[arg(long, value_name = "FILE|DIR")]
        checkpoint: PathBuf,
        /// The token cache.
        #[arg(long, value_name = "DIR")]
        cache: PathBuf,
        /// Device.
        #[command(flatten)]
        device: DeviceArgs,
        /// Attention heads, for checkpoints without a config beside them [default: dim / 64].
        #[arg(long, value_name = "N")]
        n_head: Option<i64>,
        /// Only the first N rows.
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
}
