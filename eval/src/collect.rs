//! Pictures through the Inception network, into the sums that the metrics need.

use crate::EvalError;
use crate::inception::{Inception, POOL3, Protocol, SPATIAL};
use crate::measure::{Measure, Numbered};
use crate::moments::Moments;
use crate::score::{Score, Scorer};
use serde::{Deserialize, Serialize};
use tch::Tensor;
use tokengrid_model::ModelError;
use tokengrid_model::Picture;

/// Metrics that are wanted besides mean and covariance of pool3.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// Mean and covariance of the spatial features, for sFID.
    pub spatial: bool,
    /// The inception score, over this number of splits.
    pub splits: Option<usize>,
    /// The pool3 features themselves, for precision and recall: 8 KiB per picture.
    pub features: bool,
}

/// The network with its preprocessing and the selection of its outputs.
pub struct Reader<'a> {
    /// The network.
    pub inception: &'a Inception,
    /// Preprocessing of the pictures.
    pub protocol: Protocol,
    /// Which outputs are kept.
    pub wanted: Figures,
}

/// Features of one picture, as far as they are wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pool3: Vec<f32>,
    spatial: Option<Vec<f32>>,
    logits: Option<Vec<f32>>,
}

impl Reader<'_> {
    /// Computes the features of pictures of one size.
    ///
    /// # Errors
    /// The device fails.
    pub fn read(&self, pictures: &[&Picture]) -> Result<Vec<Row>, EvalError> {
        let Some(first) = pictures.first() else { return Ok(vec![]) };
        let rgb: Vec<u8> = pictures.iter().flat_map(|picture| &picture.rgb).copied().collect();
        let features = self.inception.features(&rgb, first.width, first.height, self.protocol)?;
        let part = |is_wanted: bool, values: &Tensor| is_wanted.then(|| rows(values)).transpose();
        let mut spatial = part(self.wanted.spatial, &features.spatial)?.map(Vec::into_iter);
        let mut logits = part(self.wanted.splits.is_some(), &features.logits)?.map(Vec::into_iter);
        let row = |pool3| Row {
            pool3,
            spatial: spatial.as_mut().and_then(Iterator::next),
            logits: logits.as_mut().and_then(Iterator::next),
        };
        Ok(rows(&features.pool3)?.into_iter().map(row).collect())
    }
}

impl Measure for Reader<'_> {
    type Figures = Row;

    fn measure(&mut self, pictures: Vec<Numbered>) -> Result<Vec<Row>, EvalError> {
        self.read(&pictures.iter().map(|numbered| &numbered.picture).collect::<Vec<_>>())
    }
}

/// Sums over the pictures so far.
pub struct Collected {
    /// Moments of the pool3 features.
    pub pool3: Moments,
    /// Moments of the spatial features, if wanted.
    pub spatial: Option<Moments>,
    scorer: Option<Scorer>,
    features: Option<Vec<f32>>,
}

impl Collected {
    /// Empty sums.
    pub fn new(wanted: Figures) -> Collected {
        Collected {
            pool3: Moments::new(POOL3),
            spatial: wanted.spatial.then(|| Moments::new(SPATIAL)),
            scorer: wanted.splits.map(Scorer::new),
            features: wanted.features.then(Vec::new),
        }
    }

    /// Adds a picture.
    pub fn add(&mut self, row: Row) {
        let wide = |values: &[f32]| values.iter().copied().map(f64::from).collect::<Vec<f64>>();
        self.pool3.push(wide(&row.pool3));
        if let (Some(moments), Some(spatial)) = (&mut self.spatial, &row.spatial) {
            moments.push(wide(spatial));
        }
        if let (Some(scorer), Some(logits)) = (&mut self.scorer, &row.logits) {
            scorer.push(logits);
        }
        if let Some(kept) = &mut self.features {
            kept.extend(row.pool3);
        }
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

/// The rows of a matrix, on the host.
pub(crate) fn rows(matrix: &Tensor) -> Result<Vec<Vec<f32>>, EvalError> {
    let width = matrix.size()[1] as usize;
    let values =
        Vec::<f32>::try_from(&matrix.contiguous().view([-1])).map_err(ModelError::torch("copying features"))?;
    Ok(values.chunks_exact(width).map(<[f32]>::to_vec).collect())
}
