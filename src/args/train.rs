//! `train ...`.

use super::PresetArg;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `train`.
#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    /// What to train.
    #[command(subcommand)]
    pub command: TrainCommand,
}

/// Sources of a run's settings.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// A TOML file; see the documentation for its keys. A YAML file of the reference is converted, and keys that
    /// have no equivalent are listed.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Override one key, for example train.max_steps=100 or model.preset=tiny; may be repeated.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
    /// Only print the resolved configuration as TOML; with a name, that of this preset.
    #[arg(long, value_name = "PRESET", num_args = 0..=1)]
    pub print_config: Option<Option<String>>,
    /// Start again where there is a run already.
    #[arg(long)]
    pub overwrite: bool,
    /// cpu, cuda or cuda:N [default: cuda when there is one].
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
}

/// `train ar`.
#[derive(Debug, Args)]
pub(crate) struct TrainArArgs {
    /// Configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The token cache. Its grids are read one by one, without a comparison with their checksums: `cache verify` does that.
    #[arg(long, value_name = "DIR")]
    pub cache: Option<String>,
    /// The split of the cache to train on; `all` takes every image [default: `train` where the cache has it, else all].
    #[arg(long, value_name = "NAME")]
    pub split: Option<String>,
    /// A second cache, for the validation loss.
    #[arg(long, value_name = "DIR")]
    pub val_cache: Option<String>,
    /// The split to validate on, of the second cache where there is one [default: `val` where there is such a split and it is
    /// not trained on].
    #[arg(long, value_name = "NAME")]
    pub val_split: Option<String>,
    /// Micro-batches added up for one step; `auto`: as many as keep the reference's global batch of 768, or
    /// `train.global_batch`, on the processes of the run.
    #[arg(long, value_name = "N|auto", value_parser = grad_accum)]
    pub grad_accum: Option<String>,
    /// The cache's tokenizer, for the pictures of `train.sample_every` and the FID of `train.fid_every`: weights, or `tiny`.
    #[arg(long, value_name = "WEIGHTS")]
    pub tokenizer: Option<PathBuf>,
    /// Which copy of the tokenizer's weights: raw, or ema.
    #[arg(long, default_value = "raw", value_name = "raw|ema")]
    pub variant: String,
    /// The Inception weights of FID, for `train.fid_every`.
    #[arg(long, value_name = "FILE")]
    pub inception: Option<PathBuf>,
    /// Only print the memory, disk space and steps of the run. With --device cuda and --world-size, for GPUs that need not be
    /// present.
    #[arg(long)]
    pub dry_run: bool,
    /// The run's folder. Running the same command again continues from its latest checkpoint.
    #[arg(long, default_value = "runs/ar", value_name = "DIR")]
    pub out: PathBuf,
    /// This process, counted from 0 [default: RANK, then SLURM_PROCID, then 0].
    #[arg(long, value_name = "R")]
    pub rank: Option<u32>,
    /// Processes of the run [default: WORLD_SIZE, then SLURM_NTASKS, then 1].
    #[arg(long, value_name = "W")]
    pub world_size: Option<u32>,
}

/// `train ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum TrainCommand {
    /// Train the autoregressive model from a token cache.
    Ar(TrainArArgs),
    /// Train a tokenizer on images.
    Tokenizer {
        /// Configuration.
        #[command(flatten)]
        config: ConfigArgs,
        /// Training images: any source, as `ingest` takes it.
        #[arg(long, value_name = "SOURCE")]
        data: Option<String>,
        /// `open-magvit2`: leave out the image that the reference leaves out (n06596364_9591.JPEG).
        #[arg(long, value_name = "NAME")]
        preset: Option<PresetArg>,
        /// Leave out training images of this key or file name; may be repeated. @FILE: of the names in a file, a line each.
        #[arg(long, value_name = "NAME|@FILE")]
        exclude: Vec<String>,
        /// Images to validate on, any source.
        #[arg(long, value_name = "SOURCE")]
        val: Option<String>,
        /// The run's folder. Running the same command again continues from its latest checkpoint.
        #[arg(long, default_value = "runs/tokenizer", value_name = "DIR")]
        out: PathBuf,
        /// This process, counted from 0 [default: RANK, then SLURM_PROCID, then 0].
        #[arg(long, value_name = "R")]
        rank: Option<u32>,
        /// Processes of the run [default: WORLD_SIZE, then SLURM_NTASKS, then 1].
        #[arg(long, value_name = "W")]
        world_size: Option<u32>,
    },
    /// Draw the loss curves of runs.
    Plot {
        /// Folders of runs.
        #[arg(required = true)]
        runs: Vec<PathBuf>,
        /// The value of metrics.jsonl to plot.
        #[arg(long, default_value = "train/loss")]
        key: String,
        /// Smoothing of the curve by locally weighted linear regression: weight of a value relative to that of its neighbour,
        /// from 0 (no smoothing) to 0.999.
        #[arg(long, default_value_t = 0.9, value_name = "WEIGHT", value_parser = weight)]
        smooth: f64,
        /// The plot to write.
        #[arg(long, value_name = "FILE.png")]
        out: PathBuf,
    },
}

fn grad_accum(text: &str) -> Result<String, String> {
    let is_count = text.parse::<u32>().is_ok_and(|count| count > 0);
    if is_count || text == "auto" { Ok(text.into()) } else { Err("expected `auto` or a number from 1 on".into()) }
}

fn weight(text: &str) -> Result<f64, String> {
    let weight = text.parse().ok().filter(|weight| (0.0..=0.999).contains(weight));
    weight.ok_or_else(|| "expected a number from 0 to 0.999".into())
}
