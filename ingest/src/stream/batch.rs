//! Full batches of views: workers write every view straight into its slot.
//!
//! Which slot a view has depends on its image's number in the order only: the views of image i are the slots
//! `i * num_views` and following, counted through all batches. A bad image leaves its slots black.

use super::StreamConfig;
use super::ahead::read_ahead;
use super::loader::Loader;
use super::ordered::{Claims, Ordered, Work};
use super::slabs::{Parts, Slabs, ViewBuffer};
use crate::error::Bad;
use crate::recipe::Recipe;
use crate::source::Source;
use crate::stages::{StageCounters, StageTimes};
use std::fmt;
use std::sync::Arc;

/// An image of which a batch has slots.
#[derive(Debug, Clone)]
pub struct BatchImage {
    /// Position in the source, which knows the key (`Source::key`).
    pub index: usize,
    /// Class index, -1 if unknown.
    pub label: i32,
    /// Warnings of the decoder about damaged data that it still decoded.
    pub warnings: u32,
    /// Why there are no views, if there are none.
    pub outcome: Result<(), Bad>,
}

/// What lies in a slot of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSlot {
    /// The view's image: a position in [`ViewBatch::images`]. If that one is bad, the slot is black.
    pub image: usize,
    /// Number of the view, from 0; the image is complete with `Recipe::num_views` - 1.
    pub view: u32,
    /// Columns of the resized, unmirrored image to the left of the crop, in pixels.
    pub crop_x: i32,
    /// Rows of the resized image above the crop, in pixels.
    pub crop_y: i32,
    /// Whether the crop is mirrored left to right after it was cut out.
    pub flip: bool,
}

/// Views one after the other in memory. Dropping the batch gives its memory back to the stream, for a later one.
pub struct ViewBatch {
    parts: Parts,
    slabs: Arc<Slabs>,
}

impl ViewBatch {
    /// `[batch_views, size, size, 3]`, RGB, 0 to 255. Always of the same length: slots of bad images, and those after
    /// the last view of the stream, are black.
    pub fn pixels(&self) -> &[u8] {
        &self.parts.pixels
    }

    /// What lies in the slots, from the first one on, without gaps; only in the last batch there are fewer than slots.
    pub fn slots(&self) -> &[BatchSlot] {
        &self.parts.slots
    }

    /// The images whose views lie here, bad ones included, in order. An image whose views lie in several batches is in all
    /// of them.
    pub fn images(&self) -> &[BatchImage] {
        &self.parts.images
    }
}

impl fmt::Debug for ViewBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ViewBatch").field("slots", &self.parts.slots).field("images", &self.parts.images).finish()
    }
}

impl Drop for ViewBatch {
    fn drop(&mut self) {
        self.slabs.give_back(std::mem::take(&mut self.parts));
    }
}

/// The images of a source as batches of views, in the order given. Dropping it stops the workers and waits for them; batches
/// outlive it.
///
/// In the steady state a batch costs no allocation and no copy: a view is written once, by the resampler, into memory that
/// an earlier batch gave back. Batches that the consumer holds are its own; beside them there is memory for
/// `in_flight * num_views / batch_views + 2` batches at most.
///
/// # Panics
/// `next` passes on a panic of the order's iterator. A panic while an image is worked on makes that image bad instead.
pub struct BatchStream {
    images: Ordered<BatchWorker>,
    slabs: Arc<Slabs>,
    batch_views: usize,
    /// An image whose views did not all fit, and how many of them did.
    pending: Option<(Done, usize)>,
}

impl BatchStream {
    /// Starts to work through `order`, as [`ViewStream::spawn`](super::ViewStream::spawn), for batches of `batch_views`
    /// views, at least 1.
    pub fn spawn(
        source: Arc<Source>,
        order: impl Iterator<Item = usize> + Send + 'static,
        recipe: Recipe,
        batch_views: usize,
        config: StreamConfig,
    ) -> BatchStream {
        let batch_views = batch_views.max(1);
        // A recipe of size 0 makes every image fail; this only keeps its batches from being empty.
        let view_bytes = (recipe.size as usize * recipe.size as usize * 3).max(1);
        let views = recipe.num_views().max(1) as usize;
        let kept = config.in_flight.max(1).saturating_mul(views) / batch_views + 2;
        let slabs = Arc::new(Slabs::new(view_bytes, batch_views, kept));
        let counters = Arc::new(StageCounters::default());
        let worker =
            || BatchWorker { loader: Loader::new(Arc::clone(&source), recipe, config.limits, Arc::clone(&counters)) };
        let from = Arc::clone(&slabs);
        let claims = Claims { order: read_ahead(&source, order), reserve: Box::new(move || from.take(views)) };
        let images = Ordered::spawn(claims, worker, config.num_threads(), config.in_flight, Arc::clone(&counters));
        BatchStream { images, slabs, batch_views, pending: None }
    }

    /// The times so far.
    pub fn times(&self) -> StageTimes {
        self.images.counters().times()
    }

    /// The counters themselves, to be read from elsewhere, and to add the time of later stages to.
    pub fn counters(&self) -> Arc<StageCounters> {
        Arc::clone(self.images.counters())
    }

    /// Allocated memory in batches, the consumer's included.
    pub fn slabs(&self) -> usize {
        self.slabs.allocated()
    }

    /// Puts views of `done`, from number `first` on, into the batch; returns the first one that does not fit.
    fn fill(&self, parts: &mut Parts, done: &mut Done, first: usize) -> usize {
        let room = self.batch_views - parts.slots.len();
        let end = done.buffers.len().min(first + room);
        let image = parts.images.len();
        parts.images.push(done.image.clone());
        for (view, buffer) in done.buffers[first..end].iter_mut().enumerate() {
            let ViewBuffer { pixels, place } = buffer;
            // Pieces were split off one slab in this order: joining them moves no byte.
            parts.pixels.unsplit(std::mem::take(pixels));
            parts.slots.push(BatchSlot {
                image,
                view: (first + view) as u32,
                crop_x: place.x as i32,
                crop_y: place.y as i32,
                flip: place.flip,
            });
        }
        end
    }

    /// The last batch: unused slots are black.
    fn pad(&self, parts: &mut Parts) {
        let mut rest = self.slabs.rest();
        rest.fill(0);
        parts.pixels.unsplit(rest);
    }
}

impl Iterator for BatchStream {
    type Item = ViewBatch;

    fn next(&mut self) -> Option<ViewBatch> {
        let mut parts = self.slabs.empty_batch();
        while parts.slots.len() < self.batch_views {
            let pending = self.pending.take().or_else(|| self.images.next().map(|done| (done, 0)));
            let Some((mut done, first)) = pending else { break };
            let next = self.fill(&mut parts, &mut done, first);
            if next < done.buffers.len() {
                self.pending = Some((done, next));
            } else {
                self.slabs.give_back_buffers(done.buffers);
            }
        }
        if parts.slots.is_empty() {
            return None;
        }
        if parts.slots.len() < self.batch_views {
            self.pad(&mut parts);
        }
        Some(ViewBatch { parts, slabs: Arc::clone(&self.slabs) })
    }
}

/// An image with its views in their slots.
struct Done {
    image: BatchImage,
    buffers: Vec<ViewBuffer>,
}

struct BatchWorker {
    loader: Loader,
}

impl Work for BatchWorker {
    type Reserved = Vec<ViewBuffer>;
    type Output = Done;

    fn work(&mut self, index: usize, mut buffers: Vec<ViewBuffer>) -> Done {
        let loaded = self.loader.load(index, |cutter, plane| {
            cutter.begin(plane);
            for (view, buffer) in buffers.iter_mut().enumerate() {
                buffer.place = cutter.cut(plane, view, &mut buffer.pixels);
            }
        });
        if loaded.outcome.is_err() {
            buffers.iter_mut().for_each(|buffer| buffer.pixels.fill(0));
        }
        let source = &self.loader.source;
        let label = if index < source.len() { source.label(index) } else { -1 };
        Done { image: BatchImage { index, label, warnings: loaded.warnings, outcome: loaded.outcome }, buffers }
    }
}
