//! `bench ...`.

#[cfg(feature = "torch")]
use super::ConfigArgs;
use super::{AccessArgs, SourceArgs};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Which stage.
    #[command(subcommand)]
    pub command: BenchCommand,
}

/// `bench ...`.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Images a second from a source to views: on one thread, on all, and beside pure decoding.
    Ingest(BenchIngestArgs),
    /// Token grids a second from a cache, in shuffled order, on one thread.
    Loader(BenchLoaderArgs),
    /// Time of a training step: written out and by autograd, from the cache and with images encoded in every step.
    #[cfg(feature = "torch")]
    Train(Box<BenchTrainArgs>),
}

/// `bench ingest`.
#[derive(Debug, Args)]
pub struct BenchIngestArgs {
    /// Source and recipe.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Times that everything is measured; the median is what counts.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
}

/// `bench loader`.
#[derive(Debug, Args)]
pub struct BenchLoaderArgs {
    /// The cache [default: random grids in a temporary folder].
    pub dir: Option<PathBuf>,
    /// How it is read.
    #[command(flatten)]
    pub access: AccessArgs,
    /// Without DIR: so many grids.
    #[arg(long, default_value_t = 200_000, value_name = "N")]
    pub rows: usize,
    /// Grids a round.
    #[arg(long, default_value_t = 2_000_000, value_name = "N")]
    pub samples: usize,
    /// Times that everything is measured; the median is what counts.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
}

/// `bench train`.
#[cfg(feature = "torch")]
#[derive(Debug, Args)]
pub struct BenchTrainArgs {
    /// Configuration, as for `train ar`; dropout is turned off.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The token cache [default: synthetic tokens].
    #[arg(long, value_name = "DIR")]
    pub cache: Option<String>,
    /// The images that the cache was made of: also trains on them, encoding them anew in every step.
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
    /// Steps that are measured, after one that warms up.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10000))]
    pub steps: u32,
}
