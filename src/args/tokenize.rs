//! `tokenize` and `reconstruct`.

use super::{BadArgs, DeviceArgs, SourceArgs, TokenizerArgs};
use clap::Args;
use std::path::PathBuf;

/// `tokenize`.
#[derive(Debug, Args)]
pub(crate) struct TokenizeArgs {
    /// Source and recipe.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Tokenizer.
    #[command(flatten)]
    pub tokenizer: TokenizerArgs,
    /// Device.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Folder of the cache, or a URL: s3://bucket/prefix, gs://, az://. Running the same command again continues it, for a URL
    /// on any machine.
    #[arg(long, value_name = "DIR|URL")]
    pub out: PathBuf,
    /// With a URL: no other process writes there. Allows stores without conditional writes, where two writers would not be
    /// detected.
    #[arg(long)]
    pub single_writer: bool,
    /// Views per encoder call.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub batch_size: u32,
    /// Encode only the views from this one on, to add them by `cache merge` to a cache that lacks them.
    #[arg(long, default_value_t = 0, value_name = "VIEW")]
    pub first_view: u32,
    /// Rows between two checkpoints; a killed job continues from the last one.
    #[arg(long, default_value_t = 16_384, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rows_per_group: u32,
    /// This process, counted from 0 [default: RANK, then SLURM_PROCID, then 0].
    #[arg(long, value_name = "R")]
    pub rank: Option<u32>,
    /// Processes that share the job [default: WORLD_SIZE, then SLURM_NTASKS, then 1].
    #[arg(long, value_name = "W")]
    pub world_size: Option<u32>,
    /// Bad images.
    #[command(flatten)]
    pub bad: BadArgs,
    /// Write the report (the object that --json prints) to this file.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Add to the cache in --out more views of its images or, with --split, another split. They are encoded beside the cache
    /// and merged with it; the merged cache then replaces the old one.
    #[arg(long, conflicts_with_all = ["overwrite", "first_view"])]
    pub add: bool,
    /// The split that the images belong to: train, val, ...
    #[arg(long, value_name = "NAME")]
    pub split: Option<String>,
    /// Start again where there is a cache already.
    #[arg(long)]
    pub overwrite: bool,
    /// Only print the plan: rows, bytes, files, free disk space.
    #[arg(long)]
    pub dry_run: bool,
}

/// `reconstruct`.
#[derive(Debug, Args)]
pub(crate) struct ReconstructArgs {
    /// Image files, and folders of them.
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// Tokenizer.
    #[command(flatten)]
    pub tokenizer: TokenizerArgs,
    /// Device.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Side of the square that the centre is resized to, or `original`: all pixels as they are, with a mid-grey margin for the
    /// tokenizer where a side is not a multiple of its factor.
    #[arg(long, default_value = "256", value_name = "PIXELS|original")]
    pub size: String,
    /// Folder for the pictures: original left, reconstruction right.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Replace pictures of an earlier run.
    #[arg(long)]
    pub overwrite: bool,
}
