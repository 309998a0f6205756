//! Random crops of photographs, decoded in the background.
//!
//! Crop n of a run is a pure function of (seed, n): a run that resumes sees the crops that it would have seen.

use super::config::TokenizerTrainSection;
use crate::TrainError;
use crate::rng::CounterRng;
use crossbeam::channel::{Receiver, bounded};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokengrid_ingest::{Limits, Region, Resampler, RgbImage, Source, SourceOptions, decode_rgb, target_size};

/// The photographs of a source that can be decoded.
#[derive(Debug)]
pub struct PhotoSet {
    source: Source,
    usable: Vec<usize>,
}

impl PhotoSet {
    /// Lists the photographs and decodes each once, so that a broken one is reported now and not in the middle.
    ///
    /// # Errors
    /// No such source, or nothing in it that can be decoded.
    pub fn open(path: &Path) -> Result<PhotoSet, TrainError> {
        let source = Source::open(path, &SourceOptions::default())?;
        let mut bytes = vec![];
        let mut usable = vec![];
        for index in 0..source.len() {
            match read_photo(&source, index, &mut bytes) {
                Ok(_) => usable.push(index),
                Err(reason) => tracing::warn!(key = source.key(index), reason, "left out"),
            }
        }
        if usable.is_empty() {
            let what = format!("none of its {} files could be decoded", source.len());
            return Err(TrainError::NoImages { place: path.display().to_string(), what });
        }
        Ok(PhotoSet { source, usable })
    }

    /// Number of photographs.
    pub fn len(&self) -> usize {
        self.usable.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.usable.is_empty()
    }

    /// The photograph of crop `n`: every photograph once an epoch, in an order of its own each epoch.
    fn photo_of(&self, seed: u64, n: u64) -> usize {
        let (epoch, place) = (n / self.usable.len() as u64, n % self.usable.len() as u64);
        let mut order = self.usable.clone();
        CounterRng::new(&[seed, 1, epoch]).shuffle(&mut order);
        order[place as usize]
    }
}

fn read_photo(source: &Source, index: usize, bytes: &mut Vec<u8>) -> Result<RgbImage, String> {
    source.read(index, bytes).map_err(|e| e.to_string())?;
    decode_rgb(bytes, &Limits::default()).map_err(|e| e.to_string())
}

/// Batches of crops `[B, S, S, 3]` as bytes, made ahead of time by one thread.
#[derive(Debug)]
pub struct Crops {
    batches: Option<Receiver<Vec<u8>>>,
    worker: Option<JoinHandle<()>>,
}

impl Crops {
    /// Starts at crop `position`.
    pub fn start(photos: Arc<PhotoSet>, train: &TokenizerTrainSection, position: u64) -> Crops {
        let (sender, batches) = bounded(4);
        let train = train.clone();
        let worker = std::thread::spawn(move || {
            let mut maker = CropMaker { photos, resampler: Resampler::default(), bytes: vec![], train };
            for batch in (position..).step_by(maker.train.batch_size) {
                if sender.send(maker.batch(batch)).is_err() {
                    return;
                }
            }
        });
        Crops { batches: Some(batches), worker: Some(worker) }
    }

    /// The next batch.
    ///
    /// # Panics
    /// When the decoding thread died.
    pub fn next_batch(&mut self) -> Vec<u8> {
        let batches = self.batches.as_ref().expect("the receiver lives as long as the crops");
        batches.recv().expect("the decoding thread runs until its receiver is gone")
    }
}

impl Drop for Crops {
    fn drop(&mut self) {
        drop(self.batches.take());
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

struct CropMaker {
    photos: Arc<PhotoSet>,
    resampler: Resampler,
    bytes: Vec<u8>,
    train: TokenizerTrainSection,
}

impl CropMaker {
    fn batch(&mut self, position: u64) -> Vec<u8> {
        let mut batch = vec![];
        let mut crop = vec![];
        for n in position..position + self.train.batch_size as u64 {
            self.crop(n, &mut crop);
            batch.extend_from_slice(&crop);
        }
        batch
    }

    fn crop(&mut self, n: u64, crop: &mut Vec<u8>) {
        let (seed, side) = (self.train.seed as u64, self.train.image_size);
        let index = self.photos.photo_of(seed, n);
        let photo = read_photo(&self.photos.source, index, &mut self.bytes);
        // Decoded when the set was opened: if the file is gone by now, a gray crop costs less than the run.
        let photo = photo.unwrap_or(RgbImage { width: 1, height: 1, pixels: vec![127; 3], warnings: 0 });
        let mut rng = CounterRng::new(&[seed, 2, n]);
        let [low, high] = self.train.scale;
        // Never beyond the photograph's own resolution, so that no crop is blown up.
        let largest = (f64::from(photo.width.min(photo.height)) / f64::from(side)).clamp(low, high.max(low));
        let shorter = (f64::from(side) * (low + (largest - low) * rng.uniform())) as u32;
        let (width, height) = target_size(photo.width, photo.height, shorter.max(side)).unwrap_or((side, side));
        let left = rng.below(u64::from(width - side) + 1) as u32;
        let top = rng.below(u64::from(height - side) + 1) as u32;
        self.resampler.resize_region(&photo, (width, height), Region { left, top, width: side, height: side }, crop);
        if self.train.flip && rng.below(2) == 1 {
            mirror(crop, side as usize);
        }
    }
}

fn mirror(rgb: &mut [u8], width: usize) {
    for row in rgb.chunks_exact_mut(width * 3) {
        for x in 0..width / 2 {
            for c in 0..3 {
                row.swap(x * 3 + c, (width - 1 - x) * 3 + c);
            }
        }
    }
}
