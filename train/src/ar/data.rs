//! Batches of the token cache.

use super::rows::{BegunRows, Rows};
use crate::TrainError;
use std::ops::Range;
use std::path::Path;
use tch::{Device, Tensor};
use tokengrid_cache::{Access, CacheError, Manifest, SampleOrder};
use tokengrid_model::ar::ModelConfig;
use tokengrid_model::rng::CounterRng;
use tokengrid_model::transfer::upload;

/// One batch, still on the host.
#[derive(Debug)]
pub struct HostBatch {
    /// Low bits, `[B * N]`, each in `0 .. vocab[0]`.
    pub pre: Vec<i64>,
    /// High bits, `[B * N]`, each in `0 .. vocab[1]`.
    pub post: Vec<i64>,
    /// Class of each sequence, `[B]`; `class_num` where it is unknown.
    pub class: Vec<i64>,
}

impl HostBatch {
    /// Random tokens and classes, determined by `number`: for measurements.
    pub fn synthetic(model: &ModelConfig, batch_size: usize, number: u64) -> HostBatch {
        let mut rng = CounterRng::new(&[number]);
        let mut below = |count: usize, limit: i64| (0..count).map(|_| rng.below(limit as u64) as i64).collect();
        let (tokens, [low, high]) = (batch_size * model.block_size as usize, model.vocab());
        HostBatch { pre: below(tokens, low), post: below(tokens, high), class: below(batch_size, model.class_num) }
    }

    /// Int64 tensors `pre [B, N]`, `post [B, N]`, `class [B]`: views of one tensor, so that there is one copy to the device.
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
    cache: Rows,
    /// The selected images: all, or those of a split.
    images: Range<usize>,
    low_bits: u32,
    class_num: i64,
}

impl Unpacker {
    /// Opens a cache and checks that it fits the model. One in a bucket is staged first.
    ///
    /// # Errors
    /// The cache is unreadable or unfinished, or its grid, bits per token or number of classes do not fit the model.
    pub fn open(path: &Path, model: &ModelConfig, access: Access) -> Result<Unpacker, TrainError> {
        Unpacker::of(Rows::open(path, access)?, model)
    }

    /// The same without staging anything: rows of a cache in a bucket are read by ranges until [`Unpacker::stage_behind`] has staged
    /// their shards.
    ///
    /// # Errors
    /// As for [`Unpacker::open`].
    pub(super) fn stream(path: &Path, model: &ModelConfig, access: Access) -> Result<Unpacker, TrainError> {
        Unpacker::of(Rows::stream(path, access)?, model)
    }

    fn of(cache: Rows, model: &ModelConfig) -> Result<Unpacker, TrainError> {
        let manifest = cache.manifest();
        let mismatch = |field, found: String, model: String| {
            Err(TrainError::CacheMismatch { path: cache.dir().into(), field, cache: found, model })
        };
        let (grid, side) = (manifest.grid_spec(), model.side() as u32);
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
        let largest = cache.largest_label();
        if i64::from(largest) >= model.class_num {
            let classes = format!("at most {} (model.class_num)", model.class_num);
            return mismatch("the number of classes", (largest + 1).to_string(), classes);
        }
        let (images, low_bits) = (0..manifest.images, model.factorized_bits[0]);
        Ok(Unpacker { images, low_bits, class_num: model.class_num, cache })
    }

    /// The same cache with the images of one split selected; `None` selects all.
    ///
    /// # Errors
    /// There is no such split.
    pub fn of_split(&self, split: Option<&str>) -> Result<Unpacker, TrainError> {
        let manifest = self.cache.manifest();
        let images = match split {
            None => Some(0..manifest.images),
            Some(name) => manifest.split_images(name),
        };
        let images = images.ok_or_else(|| TrainError::CacheMismatch {
            path: self.cache.dir().into(),
            field: "the split",
            cache: splits(manifest),
            model: format!("`{}` (data.split, data.val_split)", split.unwrap_or_default()),
        })?;
        Ok(Unpacker { images, ..self.clone() })
    }

    /// Checks that the tokens are those of the tokenizer with the fingerprint `trained_on`. An empty
    /// fingerprint on either side (imported tokens) passes.
    ///
    /// # Errors
    /// The fingerprints differ.
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

    /// Indices of the selected images in the cache.
    pub fn images(&self) -> Range<usize> {
        self.images.clone()
    }

    /// Indices of the rows of the selected images.
    pub fn rows(&self) -> Range<usize> {
        let views = self.cache.manifest().views as usize;
        self.images.start * views..self.images.end * views
    }

    /// The cache's manifest.
    pub fn manifest(&self) -> &Manifest {
        self.cache.manifest()
    }

    /// The order of training: epoch after epoch of these images.
    ///
    /// # Errors
    /// There are no images.
    pub(super) fn order(&self, seed: u64) -> Result<SampleOrder, TrainError> {
        if self.images.is_empty() {
            return Err(CacheError::Empty { path: self.cache.dir().into() }.into());
        }
        Ok(SampleOrder::new(seed, self.images.clone(), self.manifest().views as usize))
    }

    /// Begins to stage what is not staged of the cache, in the order in which `rows` need it.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn stage_behind(&self, rows: impl Iterator<Item = usize>) -> Result<(), TrainError> {
        self.cache.stage_behind(rows)
    }

    /// The given rows.
    ///
    /// # Errors
    /// Rows that are not staged cannot be read.
    pub fn unpack(&self, rows: &[usize]) -> Result<HostBatch, TrainError> {
        self.unpack_begun(self.begin(rows.to_vec())?)
    }

    /// Begins to read rows, which [`Unpacker::unpack_begun`] waits for.
    pub(super) fn begin(&self, rows: Vec<usize>) -> Result<BegunRows, TrainError> {
        self.cache.begin(rows)
    }

    /// Rows that were begun here.
    pub(super) fn unpack_begun(&self, rows: BegunRows) -> Result<HostBatch, TrainError> {
        let class = |&row: &usize| match self.cache.label(row) {
            unknown if unknown < 0 => self.class_num,
            label => i64::from(label),
        };
        let class: Vec<i64> = rows.rows().iter().map(class).collect();
        let tokens = class.len() * self.manifest().grid_spec().num_tokens();
        let (mut pre, mut post) = (vec![0; tokens], vec![0; tokens]);
        self.cache.unpack(rows, self.low_bits, &mut pre, &mut post)?;
        Ok(HostBatch { pre, post, class })
    }
}

/// Names of a cache's splits, for messages.
pub(super) fn splits(manifest: &Manifest) -> String {
    let names: Vec<String> = manifest.splits.iter().map(|split| format!("`{}`", split.name)).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}
