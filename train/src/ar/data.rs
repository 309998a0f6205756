//! Batches of the token cache, unpacked ahead of time.

use super::share::MicroBatch;
use crate::TrainError;
use crossbeam::channel::{Receiver, bounded};
use std::ops::Range;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tch::{Device, Tensor};
use tokengrid_cache::{Access, Loader, Manifest, TokenCache};
use tokengrid_model::ar::ModelConfig;
use tokengrid_model::rng::CounterRng;
use tokengrid_model::transfer::upload;

/// One batch, still on the host.
#[derive(Debug)]
pub struct HostBatch {
    /// Low bits, `[B * N]`.
    pub pre: Vec<i64>,
    /// High bits, `[B * N]`.
    pub post: Vec<i64>,
    /// Class of each sequence, `class_num` where it is unknown.
    pub class: Vec<i64>,
}

impl HostBatch {
    /// Tokens and classes that mean nothing, the same for the same `number`: for measurements.
    pub fn synthetic(model: &ModelConfig, batch_size: usize, number: u64) -> HostBatch {
        let mut rng = CounterRng::new(&[number]);
        let mut below = |count: usize, limit: i64| (0..count).map(|_| rng.below(limit as u64) as i64).collect();
        let (tokens, [low, high]) = (batch_size * model.block_size as usize, model.vocab());
        HostBatch { pre: below(tokens, low), post: below(tokens, high), class: below(batch_size, model.class_num) }
    }

    /// Tensors `pre [B, N]`, `post [B, N]`, `class [B]`: parts of one, so that there is one copy.
    pub fn to_device(&self, device: Device) -> [Tensor; 3] {
        unpacked(&upload(&self.packed(), device), self.class.len() as i64)
    }

    /// Low bits, high bits and classes one after the other, int64 `[2 B N + B]`.
    pub(super) fn packed(&self) -> Tensor {
        Tensor::from_slice(&[&self.pre[..], &self.post, &self.class].concat())
    }
}

/// The parts of what [`HostBatch::packed`] gives, for B samples: `pre [B, N]`, `post [B, N]`, `class [B]`.
pub(super) fn unpacked(all: &Tensor, batch: i64) -> [Tensor; 3] {
    let tokens = (all.size()[0] - batch) / 2;
    let grid = |from: i64| all.narrow(0, from, tokens).view([batch, -1]);
    [grid(0), grid(tokens), all.narrow(0, 2 * tokens, batch)]
}

/// Unpacks rows of a cache for one model.
#[derive(Debug, Clone)]
pub struct Unpacker {
    cache: Arc<TokenCache>,
    /// The images that count: all, or those of a split.
    images: Range<usize>,
    low_bits: u32,
    class_num: i64,
}

impl Unpacker {
    /// Opens a cache and checks that it fits the model.
    ///
    /// # Errors
    /// An unreadable or unfinished cache, or one of another grid, width of tokens or number of classes.
    pub fn open(path: &Path, model: &ModelConfig, access: Access) -> Result<Unpacker, TrainError> {
        let cache = TokenCache::open_with(path, access)?;
        let mismatch = |field, cache: String, model: String| {
            Err(TrainError::CacheMismatch { path: path.into(), field, cache, model })
        };
        let (grid, side) = (cache.grid(), model.side() as u32);
        if (grid.height, grid.width) != (side, side) {
            return mismatch("the grid", grid.to_string(), format!("{side}x{side} (model.block_size)"));
        }
        if grid.bits != model.bits() {
            return mismatch(
                "bits per token",
                grid.bits.to_string(),
                format!("{} (model.factorized_bits)", model.bits()),
            );
        }
        let largest = (0..cache.num_rows()).map(|row| cache.label(row)).max().unwrap_or(-1);
        if i64::from(largest) >= model.class_num {
            let classes = format!("at most {} (model.class_num)", model.class_num);
            return mismatch("the number of classes", (largest + 1).to_string(), classes);
        }
        let (images, low_bits) = (0..cache.num_images(), model.factorized_bits[0]);
        Ok(Unpacker { cache: Arc::new(cache), images, low_bits, class_num: model.class_num })
    }

    /// The same cache, of which only the images of a split count; all of them for `None`.
    ///
    /// # Errors
    /// There is no such split.
    pub fn of_split(&self, split: Option<&str>) -> Result<Unpacker, TrainError> {
        let all = 0..self.cache.num_images();
        let images = match split {
            None => Some(all),
            Some(name) => self.cache.split_images(name),
        };
        let images = images.ok_or_else(|| TrainError::CacheMismatch {
            path: self.cache.dir().into(),
            field: "the split",
            cache: splits(self.cache.manifest()),
            model: format!("`{}` (data.split, data.val_split)", split.unwrap_or_default()),
        })?;
        Ok(Unpacker { images, ..self.clone() })
    }

    /// Checks that the tokens are those of the tokenizer with the fingerprint `trained_on`. Where either is not known, as with
    /// imported tokens, nothing can be said.
    ///
    /// # Errors
    /// They are another tokenizer's.
    pub fn check_tokenizer(&self, trained_on: &str) -> Result<(), TrainError> {
        let found = &self.cache.manifest().tokenizer;
        if found.fingerprint.is_empty() || trained_on.is_empty() || found.fingerprint == trained_on {
            return Ok(());
        }
        Err(TrainError::CacheMismatch {
            path: self.cache.dir().into(),
            field: "the tokenizer",
            cache: format!("{} ({})", found.name, found.fingerprint),
            model: format!("that of the tokens it is trained on ({trained_on})"),
        })
    }

    /// The images that count, by their place in the cache.
    pub fn images(&self) -> Range<usize> {
        self.images.clone()
    }

    /// Their rows.
    pub fn rows(&self) -> Range<usize> {
        let views = self.cache.num_views();
        self.images.start * views..self.images.end * views
    }

    /// The cache.
    pub fn cache(&self) -> &Arc<TokenCache> {
        &self.cache
    }

    /// The given rows.
    pub fn unpack(&self, rows: &[usize]) -> HostBatch {
        let n = self.cache.grid().num_tokens();
        let (mut pre, mut post) = (vec![0; rows.len() * n], vec![0; rows.len() * n]);
        self.cache.factorized_into(rows, self.low_bits, &mut pre, &mut post);
        let class = |&row: &usize| match self.cache.label(row) {
            unknown if unknown < 0 => self.class_num,
            label => i64::from(label),
        };
        HostBatch { pre, post, class: rows.iter().map(class).collect() }
    }
}

/// Names of a cache's splits, for messages.
pub(super) fn splits(manifest: &Manifest) -> String {
    let names: Vec<String> = manifest.splits.iter().map(|split| format!("`{}`", split.name)).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// A loader whose batches are unpacked by a thread of their own, two ahead.
#[derive(Debug)]
pub(super) struct Prefetch {
    batches: Option<Receiver<HostBatch>>,
    worker: Option<JoinHandle<()>>,
    waited: Duration,
}

impl Prefetch {
    /// Starts at the loader's position; in each step, `blocks` of the `global_batch` samples are this process's.
    pub(super) fn start(
        mut loader: Loader,
        unpacker: Unpacker,
        blocks: Vec<MicroBatch>,
        global_batch: usize,
    ) -> Prefetch {
        let (sender, batches) = bounded(2);
        let worker = std::thread::spawn(move || {
            let (mut rows, mut position) = (vec![], loader.position());
            if blocks.is_empty() {
                return; // more processes than samples: this one has none
            }
            loop {
                for MicroBatch { samples, .. } in &blocks {
                    loader.rows_at(position + samples.start as u64, samples.len(), &mut rows);
                    if sender.send(unpacker.unpack(&rows)).is_err() {
                        return;
                    }
                }
                position += global_batch as u64;
            }
        });
        Prefetch { batches: Some(batches), worker: Some(worker), waited: Duration::ZERO }
    }

    /// The next batch.
    ///
    /// # Panics
    /// Passes on a panic of the unpacking thread.
    pub(super) fn next_batch(&mut self) -> HostBatch {
        let started = Instant::now();
        let batches = self.batches.as_ref().expect("the receiver lives as long as the prefetcher");
        let batch = batches.recv();
        self.waited += started.elapsed();
        batch.unwrap_or_else(|_| {
            // The thread runs until its receiver is gone, so it panicked.
            let ended = self.worker.take().map(JoinHandle::join);
            resume_unwind(ended.and_then(Result::err).expect("the unpacking thread ends by a panic only"))
        })
    }

    /// Time spent waiting for data since the last call.
    pub(crate) fn take_waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        drop(self.batches.take());
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}
