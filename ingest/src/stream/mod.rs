//! Many images at once: workers read, decode and resize; the consumer gets the results in the requested order.
//!
//! [`ViewStream`] yields images, [`BatchStream`] full batches of views for an encoder. Both are an `Ordered` (module
//! `ordered`: threads, order, bounded memory) of what a `Loader` (module `loader`: one image from file to crops) makes.
//! [`WholeStream`] yields whole pictures.

mod ahead;
mod batch;
mod loader;
mod ordered;
mod slabs;
mod whole;

use crate::crop::View;
use crate::decode::Limits;
use crate::error::Bad;
use crate::recipe::Recipe;
use crate::source::Source;
use crate::stages::{StageCounters, StageTimes};
use ahead::read_ahead;
pub use batch::{BatchImage, BatchSlot, BatchStream, ViewBatch};
pub use loader::views_of_file;
use loader::{Loader, internal_error};
use ordered::{Claims, Ordered, Work};
use std::sync::Arc;
use std::thread;
pub use whole::{AcceptSize, WholeImage, WholeStream};

/// An image of the stream: its views, or why there are none.
#[derive(Debug, Clone)]
pub struct ImageViews {
    /// Position in the source.
    pub index: usize,
    /// The image's name in the source.
    pub key: String,
    /// Class index, -1 if unknown.
    pub label: i32,
    /// Warnings of the decoder about damaged data that it still decoded.
    pub warnings: u32,
    /// `Recipe::num_views` views, in order.
    pub outcome: Result<Vec<View>, Bad>,
}

/// How a stream works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamConfig {
    /// Worker threads; 0 stands for one per processor core.
    pub threads: usize,
    /// Images that may be claimed by workers or wait for the consumer at any moment; at least 1.
    ///
    /// Memory is bounded by `in_flight` x the views of an image ([`BatchStream`]: rounded up to whole batches, and two
    /// further batches), plus for each worker one file, one decoded image and the resampler's buffers.
    pub in_flight: usize,
    /// What one file may cost.
    pub limits: Limits,
}

impl Default for StreamConfig {
    /// One thread per core, four images in flight per thread.
    fn default() -> Self {
        let threads = available_threads();
        StreamConfig { threads, in_flight: 4 * threads, limits: Limits::default() }
    }
}

impl StreamConfig {
    /// The resulting number of threads.
    fn num_threads(&self) -> usize {
        if self.threads == 0 { available_threads() } else { self.threads }
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
    images: Ordered<ViewWorker>,
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
        let counters = Arc::new(StageCounters::default());
        let worker =
            || ViewWorker { loader: Loader::new(Arc::clone(&source), recipe, config.limits, Arc::clone(&counters)) };
        let claims = Claims { order: read_ahead(&source, order), reserve: Box::new(|| ()) };
        let images = Ordered::spawn(claims, worker, config.num_threads(), config.in_flight, Arc::clone(&counters));
        ViewStream { images }
    }

    /// The times so far.
    pub fn times(&self) -> StageTimes {
        self.images.counters().times()
    }

    /// The counters themselves, to be read from elsewhere while the stream is consumed.
    pub fn counters(&self) -> Arc<StageCounters> {
        Arc::clone(self.images.counters())
    }
}

impl Iterator for ViewStream {
    type Item = ImageViews;

    fn next(&mut self) -> Option<ImageViews> {
        self.images.next()
    }
}

struct ViewWorker {
    loader: Loader,
}

impl Work for ViewWorker {
    type Reserved = ();
    type Output = ImageViews;

    fn work(&mut self, index: usize, (): ()) -> ImageViews {
        let loaded = self.loader.load(index, |cutter, plane| cutter.views(plane));
        let source = &self.loader.source;
        let known = index < source.len();
        let key = if known { source.key(index).to_owned() } else { format!("#{index}") };
        let label = if known { source.label(index) } else { -1 };
        ImageViews { index, key, label, warnings: loaded.warnings, outcome: loaded.outcome }
    }
}
