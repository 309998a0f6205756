//! The images that a tokenizer is validated on: centre crops in the order of their source.

use super::data::without_labels;
use crate::TrainError;
use std::path::Path;
use std::sync::Arc;
use tokengrid_ingest::{BadCounter, BadPolicy, Recipe, Source, SourceOptions, StreamConfig, ViewStream, Views};

/// The images of a source, each as the centre crop of one size.
#[derive(Debug)]
pub(super) struct ValidationSet {
    source: Arc<Source>,
    place: String,
    image_size: u32,
}

/// Some images of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    /// Number of images.
    pub images: usize,
    /// `[images, image_size, image_size, 3]`, RGB.
    pub pixels: Vec<u8>,
}

impl ValidationSet {
    /// Lists the images of a source, or the first `limit`; no image is read.
    ///
    /// # Errors
    /// No such source, or nothing in it.
    pub(super) fn open(path: &Path, image_size: u32, limit: Option<usize>) -> Result<ValidationSet, TrainError> {
        let source = Source::open(path, &without_labels(SourceOptions { limit, ..SourceOptions::default() }))?;
        Ok(ValidationSet { source: Arc::new(source), place: path.display().to_string(), image_size })
    }

    /// Where the images are.
    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    /// Number of images, broken ones included.
    pub(super) fn len(&self) -> usize {
        self.source.len()
    }

    /// Pixels on a side of every crop.
    pub(super) fn image_size(&self) -> u32 {
        self.image_size
    }

    /// The error where not one image was sound.
    pub(super) fn all_bad(&self) -> TrainError {
        let (key, reason) = (self.source.key(0).to_string(), "not one could be read and decoded".to_string());
        TrainError::TooManyBad { place: self.place.clone(), bad: self.len(), total: self.len(), key, reason }
    }

    /// All of them, decoded by threads in bounded memory, in the source's order. Broken ones are left out.
    pub(super) fn batches(&self, batch_size: usize) -> Batches {
        let recipe = Recipe { size: self.image_size, views: Views::Center, ..Recipe::default() };
        let order = 0..self.source.len();
        Batches {
            images: ViewStream::spawn(self.source.clone(), order, recipe, StreamConfig::default()),
            counter: BadCounter::new(BadPolicy::default(), self.source.len()),
            place: self.place.clone(),
            total: self.source.len(),
            batch_size: batch_size.max(1),
        }
    }
}

/// Batches of a [`ValidationSet`]; the last one may be smaller.
pub(super) struct Batches {
    images: ViewStream,
    counter: BadCounter,
    place: String,
    total: usize,
    batch_size: usize,
}

impl Iterator for Batches {
    type Item = Result<Batch, TrainError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut batch = Batch { images: 0, pixels: vec![] };
        while batch.images < self.batch_size {
            let Some(image) = self.images.next() else { break };
            match image.outcome {
                Ok(views) => {
                    batch.images += 1;
                    views.iter().for_each(|view| batch.pixels.extend_from_slice(&view.pixels));
                }
                Err(bad) if self.counter.bad(&image.key, &bad).is_err() => {
                    return Some(Err(TrainError::TooManyBad {
                        place: self.place.clone(),
                        bad: self.counter.bad_count(),
                        total: self.total,
                        key: image.key,
                        reason: bad.to_string(),
                    }));
                }
                Err(bad) => {
                    tracing::warn!("left out of the validation: cannot {} {}: {}", bad.stage, image.key, bad.reason)
                }
            }
        }
        (batch.images > 0).then_some(Ok(batch))
    }
}
