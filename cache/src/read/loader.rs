//! Batches in a true global shuffle, without a buffer, the same for any number of processes.

use crate::error::CacheError;
use crate::read::cache::TokenCache;
use crate::read::order::SampleOrder;
use crate::unpack::Kernels;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;

/// The share of a process in loading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoaderConfig {
    /// Selects the shuffle.
    pub seed: u64,
    /// Samples in a batch of this process.
    pub batch_size: usize,
    /// This process, `0..world_size`.
    pub rank: usize,
    /// Processes that share the stream.
    pub world_size: usize,
}

/// Where the stream of samples stands: all that a checkpoint needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoaderState {
    /// Selects the shuffle.
    pub seed: u64,
    /// Samples that the whole job (all processes) has consumed.
    pub position: u64,
}

/// One batch of one process. Its buffers are reused from call to call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The row of each sample.
    pub rows: Vec<usize>,
    /// The class index of each sample, -1 when unknown.
    pub labels: Vec<i64>,
    /// Tokens, `[batch_size, num_tokens]`, raster order.
    pub tokens: Vec<i64>,
}

/// An endless stream of batches over a cache.
///
/// The job's stream is one epoch after the other; an epoch visits every *image* exactly once, in the order of a keyed
/// permutation of (seed, epoch). Which view of the image is taken follows a permutation of (seed, image, block of
/// `num_views` epochs), so every view is used once before any is used again. Global batch g is samples
/// `[g * B * W, (g + 1) * B * W)` of the stream, for W processes of batch size B, and process r takes the r-th slice of
/// B: with the same `B * W` the global batches are the same for any W. Batches run on over the end of an epoch: nothing
/// is padded, dropped or repeated.
///
/// Grids are read as they are: rows come from all row groups, and it is row groups that have checksums. [`crate::verify()`] compares
/// them.
#[derive(Debug)]
pub struct Loader {
    cache: Arc<TokenCache>,
    config: LoaderConfig,
    /// The images that are loaded.
    images: Range<usize>,
    position: u64,
    order: SampleOrder,
}

impl Loader {
    /// A loader at the start of the stream.
    ///
    /// # Errors
    /// [`CacheError::Empty`]; [`CacheError::InvalidLoader`] for a batch size or world size of 0 or a rank out of range.
    pub fn new(cache: Arc<TokenCache>, config: LoaderConfig) -> Result<Loader, CacheError> {
        let images = 0..cache.num_images();
        Self::over(cache, config, images)
    }

    /// A loader of some of the images only, for example those of a split ([`TokenCache::split_images`]): an epoch is a
    /// pass over them.
    ///
    /// # Errors
    /// As [`Loader::new`]; [`CacheError::InvalidLoader`] when the cache has fewer images.
    pub fn over(cache: Arc<TokenCache>, config: LoaderConfig, images: Range<usize>) -> Result<Loader, CacheError> {
        for (field, value) in [("batch_size", config.batch_size), ("world_size", config.world_size)] {
            if value == 0 {
                return Err(CacheError::InvalidLoader { field, expected: "at least 1".into(), actual: "0".into() });
            }
        }
        if config.rank >= config.world_size {
            let expected = format!("less than world_size {}", config.world_size);
            return Err(CacheError::InvalidLoader { field: "rank", expected, actual: config.rank.to_string() });
        }
        if images.end > cache.num_images() {
            let expected = format!("within 0..{}", cache.num_images());
            return Err(CacheError::InvalidLoader { field: "images", expected, actual: format!("{images:?}") });
        }
        if images.is_empty() {
            return Err(CacheError::Empty { path: cache.dir().into() });
        }
        let order = SampleOrder::new(config.seed, images.clone(), cache.num_views());
        Ok(Loader { cache, config, images, position: 0, order })
    }

    /// The cache.
    pub fn cache(&self) -> &Arc<TokenCache> {
        &self.cache
    }

    /// The configuration.
    pub fn config(&self) -> LoaderConfig {
        self.config
    }

    /// What a checkpoint needs. Equal in all processes that have taken the same number of batches.
    pub fn state(&self) -> LoaderState {
        LoaderState { seed: self.config.seed, position: self.position }
    }

    /// Goes to where `state` was taken, in constant time. The number of processes and the batch size may differ from
    /// then; the seed becomes the state's.
    pub fn restore(&mut self, state: LoaderState) {
        self.config.seed = state.seed;
        self.position = state.position;
        self.order = SampleOrder::new(state.seed, self.images.clone(), self.cache.num_views());
    }

    /// Goes to a position of the stream, counted in samples of the whole job, in constant time.
    pub fn seek(&mut self, position: u64) {
        self.restore(LoaderState { seed: self.config.seed, position });
    }

    /// Samples that the whole job has consumed.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The epoch of the next sample: whole passes over the images.
    pub fn epoch(&self) -> u64 {
        self.position / self.images.len() as u64
    }

    /// Passes over the images, with the fraction of the running one.
    pub fn epoch_fraction(&self) -> f64 {
        self.position as f64 / self.images.len() as f64
    }

    /// Samples of one batch over all processes: `batch_size * world_size`.
    pub fn global_batch_size(&self) -> u64 {
        self.config.batch_size as u64 * self.config.world_size as u64
    }

    /// Takes this process's slice of the next global batch and moves past the whole of it.
    pub fn next_batch(&mut self, batch: &mut Batch) {
        self.next_rows(&mut batch.rows);
        let cache = &*self.cache;
        batch.labels.clear();
        batch.labels.extend(batch.rows.iter().map(|row| i64::from(cache.label(*row))));
        let num_tokens = cache.grid().num_tokens();
        batch.tokens.resize(batch.rows.len() * num_tokens, 0);
        let kernels = Kernels::best(cache.grid().bits);
        let mut grids = batch.tokens.chunks_exact_mut(num_tokens);
        cache.visit_packed(&batch.rows, |_, packed| {
            if let Some(tokens) = grids.next() {
                kernels.wide(packed, tokens);
            }
        });
    }

    /// As [`Loader::next_batch`], but only chooses the rows; the caller reads them as it likes, best with
    /// [`TokenCache::visit_packed`].
    pub fn next_rows(&mut self, rows: &mut Vec<usize>) {
        let first = self.position + self.config.rank as u64 * self.config.batch_size as u64;
        self.order.rows_at(first, self.config.batch_size, rows);
        self.position += self.global_batch_size();
    }
}
