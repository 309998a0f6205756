//! Training crops of a source, decoded in the background.
//!
//! The stream is one epoch after the other; an epoch takes every image once, in the order of a keyed permutation of
//! (seed, epoch). Crop n of the stream is a pure function of (seed, n): a run that resumes sees the crops that it would
//! have seen, for any number of threads or processes. Global batch g is crops `[g * B * W, (g + 1) * B * W)`, for W
//! processes of batch size B, and process r takes the r-th slice of B.
//!
//! Images are read one by one, in the order of the stream. A broken one is replaced by the next sound one of the source, and
//! counted.

use super::crop::{CropConfig, Cutter};
use crate::TrainError;
use crossbeam::channel::{Receiver, Sender, bounded};
use std::collections::HashSet;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokengrid_cache::{Permutation, derive_key};
use tokengrid_ingest::{Bad, BadCounter, BadPolicy, Source, SourceOptions, Stage};

/// Purpose of derived keys: the order of an epoch.
const ORDER: u64 = 3;

/// Crops that wait for the trainer, in batches.
const BATCHES_AHEAD: usize = 2;

/// The images of a source, and which of them turned out to be broken.
#[derive(Debug)]
pub(super) struct ImageSet {
    source: Source,
    place: String,
    bad: Mutex<BadImages>,
}

#[derive(Debug)]
struct BadImages {
    known: HashSet<usize>,
    counter: BadCounter,
    /// What ended the run: the first refusal, which every thread reports.
    refused: Option<Refusal>,
}

#[derive(Debug, Clone)]
struct Refusal {
    bad: usize,
    key: String,
    reason: String,
}

/// Ignores labels, so that a source with invalid ones can be trained on.
pub(super) fn without_labels(options: SourceOptions) -> SourceOptions {
    SourceOptions { label_column: Some("none".into()), ..options }
}

/// Refuses a run's folder below a folder that links or lists of the source name: its pictures would become images.
pub(super) fn check_apart(out: &Path, source: &Source) -> Result<(), TrainError> {
    let Some(folder) = source.linked_folder_around(out) else { return Ok(()) };
    let what = format!("it lies in {}, which belongs to the images; give a folder elsewhere", folder.display());
    Err(TrainError::Config { place: format!("--out {}", out.display()), what })
}

impl ImageSet {
    /// Where the images are.
    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    /// Lists the images of a source, without those whose key or file name is in `exclude`; no image is read.
    ///
    /// # Errors
    /// No such source, or nothing in it.
    pub(super) fn open(path: &Path, exclude: &[String]) -> Result<ImageSet, TrainError> {
        let source = Source::open(
            path,
            &without_labels(SourceOptions { exclude: exclude.to_vec(), ..SourceOptions::default() }),
        )?;
        source.notes().iter().for_each(|note| tracing::warn!("{}: {note}", path.display()));
        let counter = BadCounter::new(BadPolicy::default(), source.len());
        let bad = Mutex::new(BadImages { known: HashSet::new(), counter, refused: None });
        Ok(ImageSet { source, place: path.display().to_string(), bad })
    }

    /// Number of images, broken ones included: an epoch.
    pub(super) fn len(&self) -> usize {
        self.source.len()
    }

    /// Images that were left out.
    pub(super) fn excluded(&self) -> usize {
        self.source.excluded()
    }

    /// Images that turned out to be broken so far.
    pub(crate) fn num_bad(&self) -> usize {
        self.bad.lock().unwrap_or_else(PoisonError::into_inner).known.len()
    }

    /// The image of crop `n`.
    fn image_of(&self, seed: u64, n: u64) -> usize {
        let len = self.len() as u64;
        Permutation::new(derive_key(seed, ORDER, n / len), len).apply(n % len) as usize
    }

    /// The result of `make` for image `index`, or for the first sound one after it.
    fn first_sound<T>(
        &self,
        index: usize,
        file: &mut Vec<u8>,
        mut make: impl FnMut(&[u8], &str) -> Result<T, Bad>,
    ) -> Result<T, TrainError> {
        for index in (index..self.len()).chain(0..index) {
            if self.is_known_bad(index) {
                continue;
            }
            let read = self.source.read(index, file);
            if read.is_err() {
                // The image is as good as any other if it is the server that does not answer.
                self.source.check_reachable()?;
            }
            let made = read
                .map_err(|e| Bad { stage: Stage::Read, reason: e.to_string() })
                .and_then(|()| make(file, self.source.key(index)));
            match made {
                Ok(made) => return Ok(made),
                Err(bad) => self.note_bad(index, &bad)?,
            }
        }
        let (key, reason) = (self.source.key(index).to_owned(), "not one could be read and decoded".to_owned());
        Err(self.too_many_bad(Refusal { bad: self.len(), key, reason }))
    }

    fn is_known_bad(&self, index: usize) -> bool {
        self.bad.lock().unwrap_or_else(PoisonError::into_inner).known.contains(&index)
    }

    fn note_bad(&self, index: usize, bad: &Bad) -> Result<(), TrainError> {
        let mut images = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(refusal) = &images.refused {
            return Err(self.too_many_bad(refusal.clone()));
        }
        if !images.known.insert(index) {
            return Ok(()); // another thread was faster
        }
        let key = self.source.key(index);
        tracing::warn!("cannot {} {key}: {}; the next one takes its place", bad.stage, bad.reason);
        if images.counter.bad(key, bad).is_ok() {
            return Ok(());
        }
        let refusal = Refusal { bad: images.counter.bad_count(), key: key.to_owned(), reason: bad.to_string() };
        images.refused = Some(refusal.clone());
        Err(self.too_many_bad(refusal))
    }

    fn too_many_bad(&self, refusal: Refusal) -> TrainError {
        let Refusal { bad, key, reason } = refusal;
        TrainError::TooManyBad { place: self.place.clone(), bad, total: self.len(), key, reason }
    }
}

/// Batches of crops, made ahead of time by several threads. Dropping it stops them.
///
/// Thread w of T makes this process's crops w, w + T, w + 2 T, ... into its own queue, and batches are taken from the
/// queues in turn: the order is fixed, and so is the memory.
#[derive(Debug)]
pub(super) struct Crops {
    batch_bytes: usize,
    batch_size: usize,
    queues: Vec<Receiver<Result<Vec<u8>, TrainError>>>,
    threads: Vec<JoinHandle<()>>,
    next: usize,
    waited: Duration,
}

impl Crops {
    /// Starts at crop `position` of the stream, counted over all processes.
    ///
    /// # Panics
    /// When `batch_size` or `world_size` is 0, or the system refuses a thread.
    pub(super) fn start(images: Arc<ImageSet>, config: CropConfig, position: u64) -> Crops {
        assert!(config.batch_size > 0 && config.world_size > 0, "checked with the configuration");
        let available = || std::thread::available_parallelism().map_or(1, |n| n.get());
        let num_threads = if config.threads == 0 { available() } else { config.threads };
        let capacity = (BATCHES_AHEAD * config.batch_size).div_ceil(num_threads);
        let (mut queues, mut threads) = (vec![], vec![]);
        for first in 0..num_threads {
            let (sender, queue) = bounded(capacity);
            let (images, config) = (images.clone(), config.clone());
            let numbers = (first as u64..).step_by(num_threads).map({
                let config = config.clone();
                move |own| crop_number(own, position, &config)
            });
            threads.push(std::thread::spawn(move || make_crops(&images, &config, numbers, &sender)));
            queues.push(queue);
        }
        let batch_bytes = config.batch_size * config.side as usize * config.side as usize * 3;
        Crops { batch_bytes, batch_size: config.batch_size, queues, threads, next: 0, waited: Duration::ZERO }
    }

    /// The next batch of this process, `[B, side, side, 3]` bytes.
    ///
    /// # Errors
    /// Too many images are broken. Nothing comes after that.
    ///
    /// # Panics
    /// Passes on a panic of a thread; when it is called after an error.
    pub(super) fn next_batch(&mut self) -> Result<Vec<u8>, TrainError> {
        let started = Instant::now();
        let mut batch = Vec::with_capacity(self.batch_bytes);
        for _ in 0..self.batch_size {
            let Ok(crop) = self.queues[self.next].recv() else { self.pass_on_panic() };
            batch.extend_from_slice(&crop?);
            self.next = (self.next + 1) % self.queues.len();
        }
        self.waited += started.elapsed();
        Ok(batch)
    }

    /// The thread whose turn it is has ended.
    fn pass_on_panic(&mut self) -> ! {
        let ended = self.threads.swap_remove(self.next).join();
        resume_unwind(ended.expect_err("a thread ends after an error or a panic only"))
    }

    /// Time spent waiting for crops since the last call.
    pub(crate) fn take_waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }
}

impl Drop for Crops {
    fn drop(&mut self) {
        self.queues.clear();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Number in the stream of this process's crop `own`, counted from `position`.
fn crop_number(own: u64, position: u64, config: &CropConfig) -> u64 {
    let (batch_size, world_size) = (config.batch_size as u64, config.world_size as u64);
    let (batch, within) = (own / batch_size, own % batch_size);
    position + (batch * world_size + config.rank as u64) * batch_size + within
}

fn make_crops(
    images: &ImageSet,
    config: &CropConfig,
    numbers: impl Iterator<Item = u64>,
    sender: &Sender<Result<Vec<u8>, TrainError>>,
) {
    let (mut cutter, mut file) = (Cutter::default(), vec![]);
    for n in numbers {
        let index = images.image_of(config.seed, n);
        let crop = images.first_sound(index, &mut file, |file, key| cutter.crop(file, key, n, config));
        let failed = crop.is_err();
        if sender.send(crop).is_err() || failed {
            return;
        }
    }
}

#[cfg(test)]
#[path = "data_tests.rs"]
mod tests;
