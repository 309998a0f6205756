//! Images of object stores are requested ahead of their use: many requests are in flight while workers decode.

use crate::memory::{Reserve, reserve_ahead};
use crate::source::Source;
use std::collections::VecDeque;
use std::sync::Arc;
use tokengrid_store::in_flight_max;

/// Limit in bytes of images that are requested ahead of the workers; less where the memory for images is small, of which they are a part. An image of unknown size counts
/// as [`UNKNOWN_BYTES`].
const BYTES_MAX: u64 = 64 << 20;
const UNKNOWN_BYTES: u64 = 1 << 20;

/// Passes the order on unchanged, and begins to read the images of a remote source.
pub(super) fn read_ahead(
    source: &Arc<Source>,
    order: impl Iterator<Item = usize> + Send + 'static,
) -> Box<dyn Iterator<Item = usize> + Send> {
    if !source.is_remote() {
        return Box::new(order);
    }
    source.forget_ahead();
    Box::new(Ahead {
        source: Arc::clone(source),
        order,
        waiting: VecDeque::new(),
        bytes: 0,
        reserve: reserve_ahead(BYTES_MAX),
    })
}

struct Ahead<O> {
    source: Arc<Source>,
    order: O,
    /// Requested positions, with their memory claims.
    waiting: VecDeque<(usize, u64)>,
    bytes: u64,
    reserve: Reserve,
}

impl<O: Iterator<Item = usize>> Iterator for Ahead<O> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        while self.waiting.len() < in_flight_max() && (self.bytes < self.reserve.bytes() || self.waiting.is_empty()) {
            let Some(index) = self.order.next() else { break };
            let bytes = self.source.fetch_ahead(index).map_or(0, |bytes| bytes.unwrap_or(UNKNOWN_BYTES));
            self.waiting.push_back((index, bytes));
            self.bytes += bytes;
        }
        let (index, bytes) = self.waiting.pop_front()?;
        self.bytes -= bytes;
        Some(index)
    }
}
