//! Memory for batches: one slab each, lent view by view, joined again without a copy, and reused.

use super::batch::{BatchImage, BatchSlot};
use crate::crop::Place;
use bytes::BytesMut;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One view's part of a slab, from its claim to the finished batch.
#[derive(Debug)]
pub(super) struct ViewBuffer {
    pub pixels: BytesMut,
    pub place: Place,
}

/// What a batch is made of.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub pixels: BytesMut,
    pub slots: Vec<BatchSlot>,
    pub images: Vec<BatchImage>,
}

/// The slabs of one stream.
#[derive(Debug)]
pub(super) struct Slabs {
    view_bytes: usize,
    batch_views: usize,
    /// Slabs that are kept for later batches; only a consumer that collects batches returns more.
    kept: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The part of the current slab that is not lent yet.
    current: BytesMut,
    /// Slabs that came back.
    free: Vec<BytesMut>,
    /// Memory of the lists of batches and of claims.
    batch_lists: Vec<(Vec<BatchSlot>, Vec<BatchImage>)>,
    buffer_lists: Vec<Vec<ViewBuffer>>,
    allocated: usize,
}

impl Slabs {
    pub(super) fn new(view_bytes: usize, batch_views: usize, kept: usize) -> Slabs {
        Slabs { view_bytes, batch_views, kept, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next `count` views' parts, in order; a slab's end and the next one's beginning where they meet.
    pub(super) fn take(&self, count: usize) -> Vec<ViewBuffer> {
        let mut state = self.lock();
        let mut buffers = state.buffer_lists.pop().unwrap_or_default();
        for _ in 0..count {
            if state.current.is_empty() {
                state.current = self.whole_slab(&mut state);
            }
            let pixels = state.current.split_to(self.view_bytes);
            buffers.push(ViewBuffer { pixels, place: Place::default() });
        }
        buffers
    }

    fn whole_slab(&self, state: &mut State) -> BytesMut {
        state.free.pop().unwrap_or_else(|| {
            state.allocated += 1;
            BytesMut::zeroed(self.view_bytes * self.batch_views)
        })
    }

    /// Bytes of the current slab that are not lent yet.
    pub(super) fn rest(&self) -> BytesMut {
        std::mem::take(&mut self.lock().current)
    }

    /// Empty lists for the next batch, whose pixels are still to come.
    pub(super) fn empty_batch(&self) -> Parts {
        let (slots, images) = self.lock().batch_lists.pop().unwrap_or_default();
        Parts { pixels: BytesMut::new(), slots, images }
    }

    pub(super) fn give_back_buffers(&self, mut buffers: Vec<ViewBuffer>) {
        buffers.clear();
        self.lock().buffer_lists.push(buffers);
    }

    /// Takes a batch back that is no longer needed.
    pub(super) fn give_back(&self, parts: Parts) {
        let Parts { pixels, mut slots, mut images } = parts;
        slots.clear();
        images.clear();
        let mut state = self.lock();
        if state.batch_lists.len() < self.kept {
            state.batch_lists.push((slots, images));
        }
        if state.free.len() < self.kept {
            state.free.push(pixels);
        } else {
            state.allocated -= 1;
        }
    }

    /// Slabs that were allocated and not given back to the system.
    pub(super) fn allocated(&self) -> usize {
        self.lock().allocated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn view_buffers_are_joined_to_the_slab_without_a_copy() {
        let slabs = Slabs::new(12, 4, 2);
        let buffers: Vec<ViewBuffer> = [slabs.take(3), slabs.take(2)].into_iter().flatten().collect();
        let addresses: Vec<*const u8> = buffers.iter().map(|buffer| buffer.pixels.as_ptr()).collect();
        let mut whole = BytesMut::new();
        for buffer in buffers.into_iter().take(4) {
            whole.unsplit(buffer.pixels);
        }
        assert_eq!((whole.len(), whole.as_ptr()), (48, addresses[0]));
        assert!(addresses[..4].windows(2).all(|pair| pair[1] as usize - pair[0] as usize == 12));
        assert_eq!(slabs.allocated(), 2, "the fifth view lies in the next slab");
        slabs.give_back(Parts { pixels: whole, ..Parts::default() });
        slabs.rest();
        assert_eq!(slabs.take(1)[0].pixels.as_ptr(), addresses[0], "the memory is reused");
        assert_eq!(slabs.allocated(), 2);
    }
}
