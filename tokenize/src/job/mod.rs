//! The tokenize job: every image of a source through the encoder once, into a cache.
//!
//! Three stages, joined by bounded queues, work at the same time: decoding threads (`ingest`), the encoder on this thread,
//! and a writer thread. Order is kept throughout. Whatever stops the job, the same call continues it.

mod assemble;
mod report;

pub use report::{Outcome, Progress};

use crate::model::Tokenizer;
use crate::{Runtime, TokenizeError, lfq, pixels};
use assemble::{Assembler, Encoded, PendingImage};
use crossbeam::channel::{Receiver, Sender, bounded};
use report::Counters;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tch::{Device, Tensor};
use tokengrid_cache::{CacheWriter, Finished, GridSpec, JobSpec, OpenMode, Row, SourceInfo, TokenizerInfo};
use tokengrid_ingest::{Limits, Recipe, Source, StreamConfig, ViewStream};

/// Encoded images that may wait for the writer.
const WRITER_QUEUE: usize = 64;

/// What to do with an input that cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBad {
    /// Note it in the cache and go on.
    Quarantine,
    /// Stop with an error.
    Fail,
}

/// Everything that a job needs.
pub struct Job<'a> {
    /// The images.
    pub source: Arc<Source>,
    /// Size, views and seed.
    pub recipe: Recipe,
    /// The model, on its device.
    pub tokenizer: &'a Tokenizer,
    /// Its identity, as recorded in the cache.
    pub info: TokenizerInfo,
    /// Device and precision.
    pub runtime: Runtime,
    /// Views an encoder call.
    pub batch_size: usize,
    /// Decoding threads; 0: one a core.
    pub threads: usize,
    /// This process.
    pub rank: u32,
    /// Processes that share the job.
    pub world_size: u32,
    /// What to do with broken inputs.
    pub on_bad: OnBad,
    /// Share of broken inputs, of all, beyond which the job stops.
    pub max_bad_fraction: f64,
    /// Start anew where a cache exists.
    pub overwrite: bool,
}

impl Job<'_> {
    /// The grid that the recipe's size gives.
    ///
    /// # Errors
    /// A size that is no multiple of the downsampling factor.
    pub fn grid(&self) -> Result<GridSpec, TokenizeError> {
        let (size, factor) = (self.recipe.size, self.tokenizer.architecture.factor());
        if size == 0 || !size.is_multiple_of(factor) {
            return Err(TokenizeError::Size { size, factor });
        }
        let side = size / factor;
        Ok(GridSpec { height: side, width: side, bits: self.tokenizer.architecture.z_channels as u32 })
    }

    fn spec(&self) -> Result<JobSpec, TokenizeError> {
        let mut spec = JobSpec::new(self.grid()?, self.source.len(), self.recipe.num_views());
        spec.tokenizer = self.info.clone();
        spec.recipe = serde_json::from_str(&self.recipe.to_json()).expect("a recipe is JSON");
        spec.source = SourceInfo {
            kind: self.source.kind().into(),
            location: self.source.root().display().to_string(),
            images: self.source.len(),
            excluded: self.source.excluded(),
        };
        spec.classes = self.source.classes().to_vec();
        spec.rank = self.rank;
        spec.world_size = self.world_size;
        Ok(spec)
    }

    /// Runs this rank's part, or what is left of it. `out` is created; `progress` is called after every batch.
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
        let mut counters = Counters::new(writer.images(), writer.next_image());
        if writer.is_complete() {
            let finished = writer.finish()?;
            return Ok(counters.outcome(finished, started.elapsed(), None));
        }
        let (sender, receiver) = bounded(WRITER_QUEUE);
        let order = writer.next_image()..writer.images().end;
        let (encoded, finished) = std::thread::scope(|scope| {
            let writing = scope.spawn(move || write(writer, &receiver));
            let encoded = self.encode(order, sender, cancel, &mut counters, progress);
            (encoded, writing.join())
        });
        // The writer's own error explains why the encoder could not hand over its work.
        let finished = finished.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let times = encoded?;
        let finished = finished.ok_or(TokenizeError::Cancelled)?;
        Ok(counters.outcome(finished, started.elapsed(), Some(times)))
    }

    /// Decodes ahead, encodes batch by batch, hands images over in order.
    fn encode(
        &self,
        order: std::ops::Range<usize>,
        sender: Sender<Message>,
        cancel: &AtomicBool,
        counters: &mut Counters,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<tokengrid_ingest::StageTimes, TokenizeError> {
        let in_flight = (2 * self.batch_size / self.recipe.num_views().max(1) as usize).max(8);
        let config = StreamConfig { threads: self.threads, in_flight, limits: Limits::default() };
        let mut stream = ViewStream::spawn(self.source.clone(), order, self.recipe, config);
        let mut assembler = Assembler::new(self.batch_size, self.recipe.size);
        loop {
            let images = stream.next();
            let at_end = images.is_none();
            if let Some(image) = images {
                self.check_bad(&image, counters)?;
                assembler.push(image);
            }
            while assembler.has_batch() || (at_end && assembler.has_rest()) {
                let started = Instant::now();
                let tokens = self.encode_batch(assembler.batch_pixels(), counters)?;
                assembler.fill(&tokens, self.grid()?.num_tokens());
                counters.encode += started.elapsed();
            }
            for image in assembler.finished() {
                counters.add(&image);
                if sender.send(Message::Image(image)).is_err() {
                    return Ok(stream.times());
                }
                progress(&counters.progress());
            }
            if cancel.load(Ordering::Relaxed) {
                let _ = sender.send(Message::Stop);
                return Ok(stream.times());
            }
            if at_end {
                let _ = sender.send(Message::Done);
                return Ok(stream.times());
            }
        }
    }

    /// Tokens of one full batch (the last one is padded, so every call has the same shape).
    fn encode_batch(&self, pixels: &[u8], counters: &mut Counters) -> Result<Vec<u32>, TokenizeError> {
        let _no_grad = tch::no_grad_guard();
        let side = i64::from(self.recipe.size);
        let images_bchw = pixels::to_input(pixels, self.batch_size as i64, side, side, self.runtime.device);
        let h_bzhw = self.tokenizer.encoder.forward(&images_bchw);
        counters.bits_in_margin += lfq::bits_in_margin(&h_bzhw) as u64;
        counters.bits += h_bzhw.numel() as u64;
        let tokens: Tensor = lfq::tokens_of(&h_bzhw).to_device(Device::Cpu).contiguous().view([-1]);
        let tokens = Vec::<i32>::try_from(&tokens).map_err(TokenizeError::torch("copying tokens"))?;
        Ok(tokens.into_iter().map(|token| token as u32).collect())
    }

    fn check_bad(&self, image: &tokengrid_ingest::ImageViews, counters: &mut Counters) -> Result<(), TokenizeError> {
        const ALWAYS_ALLOWED: usize = 10;
        let Err(bad) = &image.outcome else { return Ok(()) };
        if self.on_bad == OnBad::Fail {
            let (key, stage, reason) = (image.key.clone(), bad.stage.to_string(), bad.reason.clone());
            return Err(TokenizeError::BadImage { key, stage, reason });
        }
        tracing::warn!(key = image.key, stage = %bad.stage, reason = bad.reason, "set aside");
        counters.bad += 1;
        let allowed = (self.max_bad_fraction * self.source.len() as f64).max(ALWAYS_ALLOWED as f64);
        if counters.bad as f64 > allowed {
            let (bad, seen, percent) = (counters.bad, counters.seen(), 100.0 * self.max_bad_fraction);
            return Err(TokenizeError::TooManyBad { bad, seen, percent });
        }
        Ok(())
    }
}

/// From the encoder to the writer.
enum Message {
    Image(PendingImage),
    Stop,
    Done,
}

/// The writer's thread. `None`: it was told to stop; everything it had received is durable.
fn write(mut writer: CacheWriter, messages: &Receiver<Message>) -> Result<Option<Finished>, TokenizeError> {
    for message in messages {
        match message {
            Message::Image(image) => match &image.outcome {
                Ok(views) => writer.push_image(image.index, &rows(&image, views))?,
                Err(bad) => writer.quarantine(image.index, &image.key, &bad.stage.to_string(), &bad.reason)?,
            },
            Message::Done => return Ok(Some(writer.finish()?)),
            Message::Stop => break,
        }
    }
    // Told to stop, or the encoder failed: keep what there is.
    writer.checkpoint()?;
    Ok(None)
}

fn rows<'a>(image: &'a PendingImage, views: &'a [Encoded]) -> Vec<Row<'a>> {
    let row = |view: &'a Encoded| Row {
        tokens: &view.tokens,
        label: image.label,
        key: &image.key,
        view: view.view,
        crop_x: view.crop_x,
        crop_y: view.crop_y,
        flip: view.flip,
    };
    views.iter().map(row).collect()
}

/// A hash of the encoder's weights as they are used: names, shapes and fp32 values.
pub fn fingerprint(params: &crate::Params) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, tensor) in params.iter().filter(|(name, _)| name.starts_with("encoder.")) {
        let tensor = tensor.to_kind(tch::Kind::Float).to_device(Device::Cpu).contiguous();
        let mut bytes = vec![0u8; tensor.numel() * 4];
        tensor.copy_data_u8(&mut bytes, tensor.numel());
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
        for size in tensor.size() {
            hasher.update(&size.to_le_bytes());
        }
        hasher.update(&bytes);
    }
    hasher.finalize().to_hex()[..32].to_string()
}
