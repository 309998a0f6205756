//! The command line. Documentation comments here are the texts of `--help`.

mod bench;
mod cache;
mod demo;
mod eval;
mod model;
mod sample;
mod source;
mod tokenize;
mod train;
mod urls;
mod view;

// Each of the two programs uses a part of each.
pub(crate) use bench::*;
pub(crate) use cache::*;
pub(crate) use demo::*;
pub(crate) use eval::*;
pub(crate) use model::*;
pub(crate) use sample::*;
pub(crate) use source::*;
pub(crate) use tokenize::*;
pub(crate) use train::*;
pub(crate) use view::*;

use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand};

/// Turns image data sets into 18-bit token grids once, and trains autoregressive image models from them.
///
/// The usual order: `tokenize` a folder of images into a cache, look at it with `cache info`, `train ar` from the cache,
/// `sample` from the trained model. `--tokenizer tiny` needs no download.
#[derive(Debug, Parser)]
#[command(name = "tokengrid", version = env!("TOKENGRID_VERSION"), arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The parser of [`Cli`], which refuses URLs where they are not supported.
pub(crate) fn command() -> clap::Command {
    urls::refuse_elsewhere(Cli::command(), "")
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Print exactly one JSON object on stdout.
    #[arg(long, global = true)]
    pub json: bool,
    /// Print no progress and no warnings.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// More log lines on stderr (twice: everything).
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// CPU threads to use, at most four per core [default: one per core, shared among the processes of a job].
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Memory for images being decoded, over all threads, as in 512M or 4G; an image that needs more is bad [default: an
    /// eighth of the process's limit, shared by a job's processes on one machine].
    #[arg(long, global = true, value_name = "SIZE", value_parser = memory_size)]
    pub memory: Option<u64>,
    /// Folder for local copies of files from object stores, kept for later runs [default: tokengrid/stage in the user's cache
    /// folder].
    #[arg(long, global = true, value_name = "DIR", env = "TOKENGRID_STAGE_DIR", hide_env = true)]
    pub stage_dir: Option<std::path::PathBuf>,
    /// Size limit of that folder, as in 500G; the least recently used files are removed [default: 90% of the free space].
    #[arg(long, global = true, value_name = "SIZE", value_parser = memory_size)]
    pub stage_size: Option<u64>,
    /// Reads of object stores in flight at a time [default: 256].
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub requests: Option<u16>,
}

/// Bytes with an optional K, M, G or T, which are powers of 1024; an iB or B may follow.
fn memory_size(text: &str) -> Result<u64, String> {
    let expected =
        || format!("'{text}' is not a size; expected a number above 0 with K, M, G or T, for example 512M or 4G");
    let lower = text.trim().to_ascii_lowercase();
    let number = lower.trim_end_matches('b').trim_end_matches('i');
    let digits = number.trim_end_matches(['k', 'm', 'g', 't']);
    let shift = match &number[digits.len()..] {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(expected()),
    };
    let count: u64 = digits.trim_end().parse().map_err(|_| expected())?;
    count.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or_else(expected)
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The whole pipeline on built-in photographs: from image files to sampled pictures.
    Demo(DemoArgs),
    /// Decode and resize a whole data set, to check it or to write PNGs of the tokenizer's input.
    Ingest(IngestArgs),
    /// Inspect, check and convert token caches.
    Cache(CacheArgs),
    /// Browse a token cache in a web browser.
    View(ViewArgs),
    /// Measure the speed of one stage on this machine.
    Bench(BenchArgs),
    /// Encode images into a token cache.
    Tokenize(TokenizeArgs),
    /// Encode and decode images, and write originals and reconstructions side by side.
    Reconstruct(ReconstructArgs),
    /// Inspect and convert checkpoint files.
    Weights(WeightsArgs),
    /// Train a tokenizer or an autoregressive model.
    Train(TrainArgs),
    /// Sample images from a trained autoregressive model.
    Sample(Box<SampleArgs>),
    /// Measure the quality of a model.
    Eval(EvalArgs),
    /// Print completions for a shell: `tokengrid completions bash > ~/.local/share/bash-completion/completions/tokengrid`.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages to a folder.
    #[command(hide = true)]
    Manuals {
        /// The folder.
        dir: std::path::PathBuf,
    },
}
