//! Many images at once: workers read, decode and resize; the consumer gets the results in the order that it asked for.
//!
//! There is one lock and no channel. A worker claims the next position of the order only while fewer than `in_flight`
//! claimed images are undelivered, so at most that many images exist at any moment, decoded or being decoded. The position
//! that the consumer waits for was claimed before all later ones, so a full house always contains it: nothing can deadlock.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crate::crop::{View, views_with};
use crate::decode::{Limits, RgbImage, decode_rgb_into};
use crate::error::{Bad, Stage};
use crate::recipe::Recipe;
use crate::resample::Resampler;
use crate::source::Source;
use crate::stages::{StageCounters, StageTimes};

/// Buffers that grew beyond this for one image are given back before the next, in bytes.
const KEPT_BUFFER_BYTES: usize = 64 << 20;

/// An image of the stream: its views, or why there are none.
#[derive(Debug, Clone)]
pub struct ImageViews {
    /// Position in the source.
    pub index: usize,
    /// The image's name in the source.
    pub key: String,
    /// Class index, -1 if unknown.
    pub label: i32,
    /// Complaints of the decoder about data that it decoded all the same.
    pub warnings: u32,
    /// `Recipe::num_views` views, in order.
    pub outcome: Result<Vec<View>, Bad>,
}

/// How a stream works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamConfig {
    /// Worker threads; 0 stands for one a processor core.
    pub threads: usize,
    /// Images that may be claimed by workers or wait for the consumer at any moment; at least 1.
    ///
    /// Memory is bounded by `in_flight` x the views of an image, plus for each worker one file and one decoded image.
    pub in_flight: usize,
    /// What one file may cost.
    pub limits: Limits,
}

impl Default for StreamConfig {
    /// A thread a core, four images a thread.
    fn default() -> Self {
        let threads = available_threads();
        StreamConfig { threads, in_flight: 4 * threads, limits: Limits::default() }
    }
}

fn available_threads() -> usize {
    thread::available_parallelism().map_or(1, |n| n.get())
}

/// The images of a source as views, in the order given. Dropping it stops the workers and waits for them.
///
/// # Panics
/// `next` passes on a panic of the order's iterator. A panic while an image is worked on makes that image bad instead.
pub struct ViewStream {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Works in `next` itself, should the system refuse every thread.
    inline: Option<Worker>,
}

impl ViewStream {
    /// Starts to work through `order`, positions in `source`; one that the source does not have yields a bad image.
    ///
    /// The iterator is asked under the stream's lock: it should be quick, and must not wait for the stream.
    pub fn spawn(
        source: Arc<Source>,
        order: impl Iterator<Item = usize> + Send + 'static,
        recipe: Recipe,
        config: StreamConfig,
    ) -> ViewStream {
        let state =
            State { order: Some(Box::new(order)), slots: VecDeque::new(), first: 0, cancelled: false, panic: None };
        let in_flight = config.in_flight.max(1);
        let counters = Arc::new(StageCounters::default());
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            room: Condvar::new(),
            ready: Condvar::new(),
            in_flight,
            counters,
        });
        let worker = || Worker::new(Arc::clone(&shared), Arc::clone(&source), recipe, config.limits);
        let threads = if config.threads == 0 { available_threads() } else { config.threads };
        let start = |i: usize| {
            let worker = worker();
            thread::Builder::new().name(format!("ingest-{i}")).spawn(move || worker.run()).ok()
        };
        let workers: Vec<_> = (0..threads.min(in_flight)).filter_map(start).collect();
        let inline = workers.is_empty().then(worker);
        ViewStream { shared, workers, inline }
    }

    /// The times so far.
    pub fn times(&self) -> StageTimes {
        self.shared.counters.times()
    }

    /// The counters themselves, to be read from elsewhere while the stream is consumed.
    pub fn counters(&self) -> Arc<StageCounters> {
        Arc::clone(&self.shared.counters)
    }
}

impl Iterator for ViewStream {
    type Item = ImageViews;

    fn next(&mut self) -> Option<ImageViews> {
        if let Some(worker) = &mut self.inline {
            worker.work_once();
        }
        let mut state = self.shared.lock();
        loop {
            if let Some(panic) = state.panic.take() {
                drop(state);
                resume_unwind(panic);
            }
            if let Some(Slot::Done(_)) = state.slots.front() {
                let Some(Slot::Done(image)) = state.slots.pop_front() else { return None };
                state.first += 1;
                drop(state);
                self.shared.room.notify_one();
                return Some(*image);
            }
            if state.order.is_none() && state.slots.is_empty() {
                return None;
            }
            let since = Instant::now();
            state = self.shared.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
            self.shared.counters.add_starved(since);
        }
    }
}

impl Drop for ViewStream {
    fn drop(&mut self) {
        let order = {
            let mut state = self.shared.lock();
            state.cancelled = true;
            state.order.take()
        };
        self.shared.room.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches what happens inside it; there is nothing left to report.
            let _ = worker.join();
        }
        drop(order);
    }
}

/// What workers and consumer share.
struct Shared {
    state: Mutex<State>,
    /// Workers wait here for room.
    room: Condvar,
    /// The consumer waits here for an image.
    ready: Condvar,
    in_flight: usize,
    counters: Arc<StageCounters>,
}

struct State {
    /// What is still to be claimed; `None` when exhausted.
    order: Option<Box<dyn Iterator<Item = usize> + Send>>,
    /// Claimed and undelivered images, the first being number `first` of the order. Never longer than `in_flight`.
    slots: VecDeque<Slot>,
    first: u64,
    cancelled: bool,
    /// A panic of the order's iterator, for the consumer.
    panic: Option<Box<dyn Any + Send>>,
}

enum Slot {
    Working,
    Done(Box<ImageViews>),
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims the next position, waiting for room: (number in the order, position in the source).
    fn claim(&self) -> Option<(u64, usize)> {
        let mut state = self.lock();
        while state.slots.len() >= self.in_flight && !state.cancelled {
            let since = Instant::now();
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            self.counters.add_blocked(since);
        }
        if state.cancelled {
            return None;
        }
        let order = state.order.as_mut()?;
        let index = catch_unwind(AssertUnwindSafe(|| order.next())).unwrap_or_else(|panic| {
            state.panic = Some(panic);
            None
        });
        let Some(index) = index else {
            state.order = None;
            drop(state);
            self.ready.notify_all();
            self.room.notify_all();
            return None;
        };
        let number = state.first + state.slots.len() as u64;
        state.slots.push_back(Slot::Working);
        Some((number, index))
    }

    fn deliver(&self, number: u64, image: ImageViews) {
        let mut state = self.lock();
        let place = (number - state.first) as usize;
        state.slots[place] = Slot::Done(Box::new(image));
        drop(state);
        if place == 0 {
            self.ready.notify_one();
        }
    }
}

/// One thread's tools.
struct Worker {
    shared: Arc<Shared>,
    source: Arc<Source>,
    recipe: Recipe,
    limits: Limits,
    file: Vec<u8>,
    image: RgbImage,
    resampler: Resampler,
}

impl Worker {
    fn new(shared: Arc<Shared>, source: Arc<Source>, recipe: Recipe, limits: Limits) -> Worker {
        let (file, image, resampler) = (Vec::new(), RgbImage::default(), Resampler::default());
        Worker { shared, source, recipe, limits, file, image, resampler }
    }

    fn run(mut self) {
        while self.work_once() {}
    }

    /// Claims and delivers one image; false when there is none left.
    fn work_once(&mut self) -> bool {
        let Some((number, index)) = self.shared.claim() else { return false };
        let image = self.load(index);
        self.shared.counters.add_image(image.outcome.is_ok());
        self.shared.deliver(number, image);
        true
    }

    fn load(&mut self, index: usize) -> ImageViews {
        if index >= self.source.len() {
            let reason = format!("no image {index} in a source of {}", self.source.len());
            let outcome = Err(Bad { stage: Stage::Read, reason });
            return ImageViews { index, key: format!("#{index}"), label: -1, warnings: 0, outcome };
        }
        let mut stage = Stage::Read;
        let outcome = catch_unwind(AssertUnwindSafe(|| self.try_load(index, &mut stage)));
        let outcome = outcome.unwrap_or_else(|panic| {
            // Whatever the panic left half-done goes.
            (self.file, self.image, self.resampler) = (Vec::new(), RgbImage::default(), Resampler::default());
            Err(Bad { stage, reason: format!("internal error: {}", panic_text(&*panic)) })
        });
        self.shrink();
        let (key, label) = (self.source.key(index).to_owned(), self.source.label(index));
        let warnings = if outcome.is_ok() { self.image.warnings } else { 0 };
        ImageViews { index, key, label, warnings, outcome }
    }

    fn try_load(&mut self, index: usize, stage: &mut Stage) -> Result<Vec<View>, Bad> {
        let counters = &self.shared.counters;
        counters
            .timed(Stage::Read, || self.source.read(index, &mut self.file))
            .map_err(|e| Bad::new(Stage::Read, &e))?;
        counters.add_bytes(self.file.len());
        *stage = Stage::Decode;
        counters
            .timed(Stage::Decode, || decode_rgb_into(&self.file, &self.limits, &mut self.image))
            .map_err(|e| Bad::new(Stage::Decode, &e))?;
        *stage = Stage::Resize;
        let key = self.source.key(index);
        counters
            .timed(Stage::Resize, || views_with(&mut self.resampler, &self.image, key, &self.recipe))
            .map_err(|e| Bad::new(Stage::Resize, &e))
    }

    /// One huge image must not make every worker huge for good.
    fn shrink(&mut self) {
        if self.file.capacity() > KEPT_BUFFER_BYTES {
            self.file = Vec::new();
        }
        if self.image.pixels.capacity() > KEPT_BUFFER_BYTES {
            self.image.pixels = Vec::new();
        }
        self.resampler.shrink(KEPT_BUFFER_BYTES);
    }
}

/// A panic's message, if it has one.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without a message")
}
