//! Pictures through the Inception network, into the sums that the figures need.

use crate::BATCH_BYTES_MAX;
use crate::EvalError;
use crate::inception::{Features, Inception, POOL3, Protocol, SPATIAL};
use crate::moments::Moments;
use crate::score::{Score, Scorer};
use tch::Tensor;
use tokengrid_model::ModelError;
use tokengrid_model::Picture;

/// What is wanted besides mean and covariance of pool3.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// Mean and covariance of the spatial features, for sFID.
    pub spatial: bool,
    /// An inception score over so many splits.
    pub splits: Option<usize>,
    /// The pool3 features themselves, for precision and recall: 8 KB per picture.
    pub features: bool,
}

/// Takes pictures of any size and holds a batch of one size at most.
pub struct Collector<'a> {
    inception: &'a Inception,
    protocol: Protocol,
    batch_size: usize,
    pending: Vec<u8>,
    /// Width and height of the pictures that are pending.
    size: (usize, usize),
    collected: Collected,
}

/// What is known of the pictures.
pub struct Collected {
    /// Of pool3.
    pub pool3: Moments,
    /// Of the spatial features, if wanted.
    pub spatial: Option<Moments>,
    scorer: Option<Scorer>,
    features: Option<Vec<f32>>,
}

impl<'a> Collector<'a> {
    /// For calls of `batch_size` pictures.
    pub fn new(inception: &'a Inception, protocol: Protocol, batch_size: usize, wanted: Wanted) -> Collector<'a> {
        let collected = Collected {
            pool3: Moments::new(POOL3),
            spatial: wanted.spatial.then(|| Moments::new(SPATIAL)),
            scorer: wanted.splits.map(Scorer::new),
            features: wanted.features.then(Vec::new),
        };
        Collector { inception, protocol, batch_size: batch_size.max(1), pending: vec![], size: (0, 0), collected }
    }

    /// Takes a picture.
    ///
    /// # Errors
    /// The device fails.
    pub fn push(&mut self, picture: &Picture) -> Result<(), EvalError> {
        let size = (picture.width, picture.height);
        if size != self.size {
            self.flush()?;
            self.size = size;
        }
        self.pending.extend(&picture.rgb);
        let is_full = self.pending.len() >= (self.batch_size * picture.rgb.len()).min(BATCH_BYTES_MAX);
        if is_full { self.flush() } else { Ok(()) }
    }

    /// Takes images that are floats already, f32 `[B, 3, H, W]` in [-1, 1], by the protocol of pytorch-fid.
    ///
    /// # Errors
    /// The device fails.
    pub(crate) fn push_input(&mut self, input_bchw: &Tensor) -> Result<(), EvalError> {
        self.flush()?;
        let features = self.inception.features_of_input(input_bchw)?;
        self.collected.add(&features)
    }

    fn flush(&mut self) -> Result<(), EvalError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let (width, height) = self.size;
        let features = self.inception.features(&self.pending, width, height, self.protocol)?;
        self.pending.clear();
        self.collected.add(&features)
    }

    /// What was collected.
    ///
    /// # Errors
    /// The device fails.
    pub fn finish(mut self) -> Result<Collected, EvalError> {
        self.flush()?;
        Ok(self.collected)
    }
}

impl Collected {
    fn add(&mut self, features: &Features) -> Result<(), EvalError> {
        let pool3 = values(&features.pool3)?;
        self.pool3.push(pool3.iter().copied().map(f64::from));
        if let Some(spatial) = &mut self.spatial {
            spatial.push(values(&features.spatial)?.into_iter().map(f64::from));
        }
        if let Some(scorer) = &mut self.scorer {
            let logits = values(&features.logits)?;
            logits.chunks_exact(super::inception::CLASSES).for_each(|logits| scorer.push(logits));
        }
        if let Some(kept) = &mut self.features {
            kept.extend(pool3);
        }
        Ok(())
    }

    /// The inception score, if wanted and there are pictures.
    pub fn score(&self) -> Option<Score> {
        self.scorer.as_ref().and_then(Scorer::score)
    }

    /// The pool3 features, f32 `[N, 2048]`, if wanted.
    pub fn features(&self) -> Option<Tensor> {
        self.features.as_ref().map(|values| Tensor::from_slice(values).view([-1, POOL3 as i64]))
    }
}

fn values(tensor: &Tensor) -> Result<Vec<f32>, EvalError> {
    let values = Vec::<f32>::try_from(&tensor.contiguous().view([-1]));
    Ok(values.map_err(ModelError::torch("copying features"))?)
}
