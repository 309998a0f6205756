//! The commands that compute with libtorch, one module each.

mod bench;
mod cache;
mod decoder;
mod demo;
mod eval;
mod free_space;
mod model;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod openmp;
mod plot;
mod process_group;
mod reconstruct;
mod sample;
mod tokenize;
mod train;
mod training_fid;
mod training_memory;
mod training_plan;
mod training_samples;
mod view;
mod weights;
#[cfg(target_os = "linux")]
mod working_folder;

use crate::args::{BenchCommand, Command, Global, ShowArgs, TokenizerArgs};
pub(crate) use cache::bit_order::bit_order;
pub(crate) use cache::check::check;
pub(crate) use cache::identity::tokenizer_identity;
pub(crate) use cache::near::find_near_image;
pub(crate) use cache::repair::repair;
use std::error::Error;
use tokengrid_cache::Manifest;
use tokengrid_eval::EvalError;
use tokengrid_model::ModelError;
use tokengrid_sample::SampleError;
use tokengrid_tokenize::TokenizeError;
use tokengrid_train::TrainError;

/// Whether this program is the one with libtorch.
pub(crate) const IS_HERE: bool = true;

/// Warnings to print at the start.
pub(crate) fn begin() {
    #[cfg(target_os = "linux")]
    working_folder::warn_if_deleted();
}

/// Stand-in for the function of `without_torch.rs`: this program has libtorch and is never replaced.
pub(crate) fn hand_over() -> anyhow::Error {
    anyhow::anyhow!("this is the program with libtorch")
}

/// Runs one of the commands that always need libtorch.
pub(crate) fn run(command: &Command, global: &Global) -> anyhow::Result<()> {
    match command {
        Command::Demo(args) => demo::run(args, global),
        Command::Tokenize(args) => tokenize::run(args, global),
        Command::Reconstruct(args) => reconstruct::run(args, global),
        Command::Weights(args) => weights::run(&args.command, global),
        Command::Train(args) => train::run(&args.command, global),
        Command::Sample(args) => sample::run(args, global),
        Command::Eval(args) => eval::run(&args.command, global),
        Command::View(args) => view::run(args, global),
        _ => unreachable!("commands without libtorch are run elsewhere"),
    }
}

/// Runs `bench` for the stages that need libtorch.
pub(crate) fn bench(command: &BenchCommand, global: &Global) -> anyhow::Result<()> {
    match command {
        BenchCommand::Encode(args) => bench::encode::run(args, global),
        BenchCommand::Exchange(args) => bench::exchange::run(args, global),
        BenchCommand::Train(args) => bench::train::run(args, global),
        BenchCommand::Sample(args) => bench::sample::run(args, global),
        _ => unreachable!("stages without libtorch are run elsewhere"),
    }
}

/// `cache show --image`: a row as a picture.
pub(crate) fn show_picture(
    manifest: &Manifest,
    tokens: &[u32],
    args: &ShowArgs,
    global: &Global,
) -> anyhow::Result<()> {
    let tokenizer = args.tokenizer.as_ref().expect("the parser asks for a tokenizer where a picture is wanted");
    let weights = TokenizerArgs { tokenizer: tokenizer.clone(), variant: args.variant.clone() };
    cache::picture::print(manifest, tokens, &weights, &args.device, global)
}

/// Whether a panic with this text is an expected error of libtorch, which is caught and reported as an error.
pub(crate) fn is_expected_panic(text: &str) -> bool {
    tokengrid_model::guard::is_expected(text)
}

/// Whether an error says that the user stopped the work. Errors that pass on another crate's as their own do not have it among their
/// causes, so these are looked into.
pub(crate) fn is_cancelled(cause: &(dyn Error + 'static)) -> bool {
    use tokengrid_cache::CacheError::Cancelled as CacheCancelled;
    use tokengrid_ingest::IngestError::Cancelled as IngestCancelled;
    let of_tokenize = cause.downcast_ref().is_some_and(|error| {
        use TokenizeError::{Cache, Cancelled, Ingest};
        matches!(error, Cancelled | Cache(CacheCancelled) | Ingest(IngestCancelled))
    });
    let of_train = cause.downcast_ref().is_some_and(|error| {
        use TrainError::{Cache, Cancelled, Ingest};
        matches!(error, Cancelled | Cache(CacheCancelled) | Ingest(IngestCancelled))
    });
    of_tokenize
        || of_train
        || matches!(cause.downcast_ref(), Some(SampleError::Cancelled))
        || matches!(cause.downcast_ref(), Some(EvalError::Stopped | EvalError::Ingest(IngestCancelled)))
}

/// Whether an error is about the arguments.
pub(crate) fn is_usage(cause: &(dyn Error + 'static)) -> bool {
    model_error(cause).is_some_and(ModelError::is_usage)
        || matches!(cause.downcast_ref(), Some(TrainError::Config { .. }))
        || matches!(cause.downcast_ref(), Some(SampleError::Setting { .. } | SampleError::Class { .. }))
}

/// The model's error in an error, possibly wrapped in that of a crate above it.
fn model_error<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a ModelError> {
    if let Some(TokenizeError::Model(error)) = cause.downcast_ref() {
        return Some(error);
    }
    if let Some(TrainError::Model(error)) = cause.downcast_ref() {
        return Some(error);
    }
    if let Some(SampleError::Model(error)) = cause.downcast_ref() {
        return Some(error);
    }
    if let Some(EvalError::Model(error)) = cause.downcast_ref() {
        return Some(error);
    }
    cause.downcast_ref()
}
