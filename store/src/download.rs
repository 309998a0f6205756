//! Objects as streams: large ranges with read-ahead, in order, in bounded memory.

use crate::bucket::{Bucket, Object};
use crate::error::StoreError;
use crate::fetch::Fetch;
use bytes::Bytes;
use std::collections::VecDeque;

/// Bytes of one range: large enough that neither latency nor the price per request matters.
pub const RANGE_BYTES: u64 = 8 << 20;

/// Ranges that are being read or wait, ahead of the one that is consumed: a stream holds at most `READ_AHEAD + 1` ranges, 40 MiB.
pub const READ_AHEAD: usize = 4;

/// The bytes of an object in order.
pub struct Download<'a> {
    bucket: &'a Bucket,
    object: &'a Object,
    next: u64,
    ahead: VecDeque<Fetch>,
}

impl Bucket {
    /// Streams an object in the version that was listed.
    pub fn download<'a>(&'a self, object: &'a Object) -> Download<'a> {
        Download { bucket: self, object, next: 0, ahead: VecDeque::with_capacity(READ_AHEAD) }
    }
}

impl Download<'_> {
    /// The next range, of [`RANGE_BYTES`] except for the last; `None` at the end.
    ///
    /// # Errors
    /// As [`Fetch::wait`].
    pub fn next_range(&mut self) -> Result<Option<Bytes>, StoreError> {
        while self.ahead.len() < READ_AHEAD && self.next < self.object.bytes {
            let end = (self.next + RANGE_BYTES).min(self.object.bytes);
            self.ahead.push_back(self.bucket.fetch(&self.object.key, self.next..end, self.object.tag.as_deref())?);
            self.next = end;
        }
        self.ahead.pop_front().map(Fetch::wait).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_delivered_in_order_with_a_bounded_number_of_ranges_in_flight() {
        let bucket = Bucket::in_memory();
        let bytes: Vec<u8> = (0..7 * RANGE_BYTES + 5).map(|i| (i / 1000) as u8).collect();
        bucket.put("a/b", bytes.clone().into()).unwrap();
        let object = bucket.head("a/b").unwrap().unwrap();
        let (mut download, mut got) = (bucket.download(&object), Vec::new());
        while let Some(part) = download.next_range().unwrap() {
            assert!(download.ahead.len() < READ_AHEAD && part.len() as u64 <= RANGE_BYTES);
            got.extend_from_slice(&part);
        }
        assert!(got == bytes);
    }

    #[test]
    fn an_object_that_changes_while_it_is_read_is_an_error() {
        let bucket = Bucket::in_memory();
        bucket.put("a", vec![1; 100].into()).unwrap();
        let object = bucket.head("a").unwrap().unwrap();
        bucket.put("a", vec![2; 100].into()).unwrap();
        assert!(matches!(bucket.download(&object).next_range(), Err(StoreError::Changed { .. })));
    }
}
