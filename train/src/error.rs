//! Errors of training.

use std::path::{Path, PathBuf};
use tokengrid_cache::CacheError;
use tokengrid_ingest::IngestError;
use tokengrid_store::StoreError;

/// Errors of this crate. The text says what was wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A configuration file, flag or `--set` with an invalid value.
    #[error("{place}: {what}")]
    Config {
        /// File and key.
        place: String,
        /// What is wrong and what would be right.
        what: String,
    },
    /// A file of the run's folder could not be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The run's folder belongs to another configuration.
    #[error(
        "{} was started with another configuration: `{key}` was {was}, now it is {now}; use another `--out`, or the \
         configuration in its config.toml",
        path.display()
    )]
    OtherRun {
        /// The run's folder.
        path: PathBuf,
        /// The first differing key.
        key: String,
        /// The value there.
        was: String,
        /// The value now.
        now: String,
    },
    /// Another process trains in the run's folder.
    #[error("{} is in use: {holder} trains in it; wait for its end, or choose another --out", path.display())]
    InUse {
        /// The run's folder.
        path: PathBuf,
        /// Who holds it.
        holder: String,
    },
    /// A checkpoint's file is broken.
    #[error("{} is not a checkpoint of this program: {what}", path.display())]
    Checkpoint {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Cache and model do not fit together.
    #[error("cache {} does not fit the model: {field} is {cache}, the model needs {model}", path.display())]
    CacheMismatch {
        /// The cache.
        path: PathBuf,
        /// Which property.
        field: &'static str,
        /// Its value in the cache.
        cache: String,
        /// The value of the model.
        model: String,
    },
    /// The loss, a gradient or a weight stopped being finite.
    #[error("{what} not finite at step {step}; {}", after_divergence(last.as_deref()))]
    Diverged {
        /// The step.
        step: u64,
        /// What is not finite, as the beginning of a sentence.
        what: String,
        /// The last checkpoint, if there is one yet.
        last: Option<PathBuf>,
    },
    /// Gradients overflow in fp16 however little the loss is scaled.
    #[error(
        "gradients overflow in fp16 at step {step} even with a loss scale of {factor} (the loss: {loss}); {}",
        after_overflow(last.as_deref())
    )]
    Overflow {
        /// The step.
        step: u64,
        /// What the loss would be scaled with next.
        factor: f64,
        /// The loss, in nats per token.
        loss: f64,
        /// The last checkpoint, if there is one yet.
        last: Option<PathBuf>,
    },
    /// One of a run's processes ended before the others.
    #[error("process {rank} of this run is gone; its own message says why. Start all processes again to continue")]
    ProcessGone {
        /// Which one.
        rank: usize,
    },
    /// The processes of a run do not come together, or one of them failed.
    #[error("{what}")]
    ProcessGroup {
        /// Which ones, and what to do.
        what: String,
    },
    /// More images of a source are broken than a run tolerates.
    #[error(
        "{place}: {bad} of {total} images are bad (the last one: `{key}`: {reason}); this is hardly the data set that was \
         meant: `tokengrid ingest {place}` lists every bad image"
    )]
    TooManyBad {
        /// The source.
        place: String,
        /// Bad images so far.
        bad: usize,
        /// Images of the source.
        total: usize,
        /// The last bad image.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The server of a cache or of images failed while a model was trained.
    #[error("the run ended after step {step}, since its data could not be read; {}", after_interruption(*last))]
    Interrupted {
        /// Steps done.
        step: u64,
        /// The step of the last checkpoint, if there is one yet.
        last: Option<u64>,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file of the configuration that lies in a bucket holds something else than it should.
    #[error("{what}")]
    File {
        /// What is wrong, and in which object.
        what: String,
    },
    /// Stopped by the user; the state at the last step is in `checkpoints/latest`.
    #[error("stopped; run the same command again to continue")]
    Cancelled,
    /// The tensor library failed.
    #[error("libtorch failed: {}", .0.to_string().lines().next().unwrap_or_default())]
    Torch(#[from] tch::TchError),
    /// Weights or device.
    #[error(transparent)]
    Model(#[from] tokengrid_model::ModelError),
    /// The token cache.
    #[error(transparent)]
    Cache(#[from] tokengrid_cache::CacheError),
    /// The image source.
    #[error(transparent)]
    Ingest(#[from] tokengrid_ingest::IngestError),
    /// Sample pictures could not be made.
    #[error("cannot make sample pictures at step {step}; set `train.sample_every` to 0 to continue without")]
    Sample {
        /// The step.
        step: u64,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The FID of samples could not be computed.
    #[error("cannot compute the FID at step {step}; set `train.fid_every` to 0 to continue without")]
    Fid {
        /// The step.
        step: u64,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A picture could not be drawn.
    #[error("cannot draw {}: {what}", path.display())]
    Plot {
        /// The picture.
        path: PathBuf,
        /// Why.
        what: String,
    },
}

impl TrainError {
    /// Wraps an I/O failure with what was being done to which file.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> TrainError {
        let path = path.into();
        move |source| TrainError::Io { action, path, source }
    }

    /// Tells where the run continues, if it was a bucket's server that failed after `step`. A damaged object gives no such
    /// advice, since steps may have used it.
    pub(crate) fn interrupted(self, step: u64, last: Option<u64>) -> TrainError {
        match self {
            TrainError::Cache(CacheError::Store(error)) if !matches!(error, StoreError::Checksum { .. }) => {
                TrainError::Interrupted { step, last, source: Box::new(error) }
            }
            TrainError::Ingest(error @ (IngestError::Outage { .. } | IngestError::Store(_))) => {
                TrainError::Interrupted { step, last, source: Box::new(error) }
            }
            error => error,
        }
    }

    /// Wraps an error in a file of a run's checkpoint and names the way back to an earlier one.
    pub fn damaged(checkpoint: &Path) -> impl FnOnce(TrainError) -> TrainError {
        let path = checkpoint.into();
        move |error| {
            let what = format!("{error}; remove its folder to continue from the checkpoint before it");
            TrainError::Checkpoint { path, what }
        }
    }
}

fn after_divergence(last: Option<&Path>) -> String {
    match last {
        Some(last) => format!(
            "the last checkpoint ({}) is intact: lower the learning rate, or train in bf16 or fp32, and run again with `--out` \
             of a new folder and `train.init_from`",
            last.display()
        ),
        None => "there is no checkpoint yet: run again with a lower learning rate, or in bf16 or fp32, and with `--overwrite`"
            .into(),
    }
}

fn after_interruption(last: Option<u64>) -> String {
    match last {
        Some(last) => {
            format!("the last checkpoint is that of step {last}: the same command, run again, continues from there")
        }
        None => "there is no checkpoint yet: the same command, run again, starts from the beginning".into(),
    }
}

fn after_overflow(last: Option<&Path>) -> String {
    match last {
        Some(last) => format!(
            "the last checkpoint ({}) is intact: run again with `train.precision=bf16` or `fp32` to continue from it, or start \
             anew with a lower learning rate",
            last.display()
        ),
        None => "there is no checkpoint yet: run again with `train.precision=bf16` or `fp32`, or with a lower learning rate \
                 and `--overwrite`"
            .into(),
    }
}
