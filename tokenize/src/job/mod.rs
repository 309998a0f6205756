//! The tokenize job: every image of a source through the encoder once, into a cache.
//!
//! | module | what it is for |
//! |---|---|
//! | `pass`, `encode` | batches through the encoder; views to tokens |
//! | `assemble` | batches back to images |
//! | `margins`, `drift` | histograms of the encoder's output; bits that differ from the exact mode |
//! | `writer` | images to the cache |
//! | `report` | progress, and the job's outcome |
//!
//! Three stages, joined by bounded queues, work at the same time: decoding threads (`ingest`), the encoder on this thread,
//! and a writer thread. Order is kept throughout. Whatever stops the job, the same call continues it.

mod assemble;
mod drift;
mod encode;
mod margins;
mod pass;
mod report;
mod writer;

use crate::TokenizeError;
pub use assemble::{EncodedImage, EncodedView};
use crossbeam::channel::bounded;
pub use drift::Drift;
pub use encode::{Encoding, Tokens, ViewEncoder};
use report::Counters;
pub use report::{Outcome, Progress};
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use tokengrid_cache::{CacheWriter, GridSpec, JobSpec, OpenMode, SourceInfo, Split, TokenizerInfo};
use tokengrid_ingest::{BadCounter, BadPolicy, Limits, Recipe, Source};
use tokengrid_model::weights::tensors_fingerprint;
use tokengrid_model::{ModelError, Runtime, Tokenizer};

/// Encoded images that may wait for the writer.
const WRITER_QUEUE: usize = 64;

/// Everything that a job needs.
#[derive(Clone)]
pub struct Job<'a> {
    /// The images.
    pub source: Arc<Source>,
    /// Size, views and seed.
    pub recipe: Recipe,
    /// The first view that is encoded; those before it are in another cache already.
    pub first_view: u32,
    /// The split that all images belong to, if the cache is to have splits.
    pub split: Option<String>,
    /// The model, on its device.
    pub tokenizer: &'a Tokenizer,
    /// The same model in the exact mode, fp32 on the CPU, where `tokenizer` is not: to measure how many bits differ.
    pub exact: Option<&'a Mutex<Tokenizer>>,
    /// Its identity, as recorded in the cache.
    pub info: TokenizerInfo,
    /// Device and precision.
    pub runtime: Runtime,
    /// Views per encoder call.
    pub batch_size: usize,
    /// Decoding threads; 0: one per core.
    pub threads: usize,
    /// Rank of this process, `0 .. world_size`.
    pub rank: u32,
    /// Processes that share the job.
    pub world_size: u32,
    /// Limits on memory and time for one file.
    pub limits: Limits,
    /// What to do with broken inputs, and how many are too many.
    pub bad_policy: BadPolicy,
    /// Rows per row group: the most that a killed job loses.
    pub rows_per_group: usize,
    /// Start again where a cache exists.
    pub overwrite: bool,
}

impl Job<'_> {
    /// The grid that the recipe's size gives.
    ///
    /// # Errors
    /// A size that is not a multiple of the downsampling factor.
    pub fn grid(&self) -> Result<GridSpec, TokenizeError> {
        let (size, factor) = (self.recipe.size, self.tokenizer.architecture.factor());
        if size == 0 || !size.is_multiple_of(factor) {
            return Err(ModelError::Size { size, factor }.into());
        }
        let side = size / factor;
        Ok(GridSpec { height: side, width: side, bits: self.tokenizer.architecture.z_channels as u32 })
    }

    /// The job as the cache's writer needs it.
    ///
    /// # Errors
    /// As [`Job::grid`].
    ///
    /// # Panics
    /// When the text of [`Recipe::to_json`] is not JSON: a defect of that function.
    pub fn spec(&self) -> Result<JobSpec, TokenizeError> {
        let mut spec = JobSpec::new(self.grid()?, self.source.len(), self.num_views());
        spec.first_view = self.first_view;
        spec.splits =
            self.split.iter().map(|name| Split { name: name.clone(), images: [0, self.source.len()] }).collect();
        spec.tokenizer = self.info.clone();
        spec.recipe = serde_json::from_str(&self.recipe.to_json()).expect("a recipe is JSON");
        spec.source = SourceInfo {
            kind: self.source.kind().into(),
            location: self.source.root().display().to_string(),
            images: self.source.len(),
            excluded: self.source.excluded(),
            ..SourceInfo::default()
        };
        spec.classes = self.source.classes().to_vec();
        spec.rank = self.rank;
        spec.world_size = self.world_size;
        spec.rows_per_group = self.rows_per_group;
        Ok(spec)
    }

    /// Runs this rank's part, or the rest of it. `out` is created; `progress` is called at the beginning, and
    /// after every image.
    ///
    /// # Errors
    /// A folder of another job, a full disk, too many bad inputs, or [`TokenizeError::Cancelled`]; what was finished by
    /// then stays, and the same job continues from it.
    pub fn run(
        &self,
        out: &Path,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<Outcome, TokenizeError> {
        let started = Instant::now();
        let mode = if self.overwrite { OpenMode::Overwrite } else { OpenMode::Resume };
        let writer = CacheWriter::open(out, self.spec()?, mode)?;
        let bad = BadCounter::new(self.bad_policy, self.source.len()).resume(writer.num_quarantined());
        let mut counters = Counters::new(writer.images(), writer.next_image(), bad);
        counters.excluded = self.source.excluded();
        if writer.is_complete() {
            let finished = writer.finish()?;
            return Ok(counters.outcome(finished, started.elapsed(), None));
        }
        let stream = self.stream(writer.next_image()..writer.images().end);
        let stages = stream.counters();
        progress(&counters.progress());
        let (sender, receiver) = bounded(WRITER_QUEUE);
        let source = &*self.source;
        let (encoded, finished) = std::thread::scope(|scope| {
            // The receiver belongs to the writer: when it fails, a sender that waits for room in the queue gets an error.
            let writing = scope.spawn(|| writer::write(source, writer, receiver, &stages));
            let encoded = self.encode(stream, &sender, cancel, &mut counters, progress);
            drop(sender);
            (encoded, writing.join())
        });
        // The writer's own error explains why the encoder could not hand over its work.
        let finished = finished.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        encoded?;
        let finished = finished.ok_or(TokenizeError::Cancelled)?;
        Ok(counters.outcome(finished, started.elapsed(), Some(stages.times())))
    }

    /// Views per image that are encoded.
    pub fn num_views(&self) -> u32 {
        self.recipe.num_views().saturating_sub(self.first_view)
    }
}

/// A hash of the encoder's weights as they are used: names, shapes and fp32 values.
pub fn fingerprint(params: &tokengrid_model::Params) -> String {
    tensors_fingerprint(params.iter().filter(|(name, _)| name.starts_with("encoder.")))
}

/// As [`fingerprint`], of all tensors: it identifies the decoder as well.
pub fn fingerprint_of_all(params: &tokengrid_model::Params) -> String {
    tensors_fingerprint(params.iter())
}
