//! `train ...`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `train`.
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// What to train.
    #[command(subcommand)]
    pub command: TrainCommand,
}

/// Where a run's settings come from.
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
        /// Images to validate on, any source.
        #[arg(long, value_name = "SOURCE")]
        val: Option<String>,
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
