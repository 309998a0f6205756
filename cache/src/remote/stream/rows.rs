//! Rows that are being read, from where they are.

use super::Shared;
use crate::error::CacheError;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use tokengrid_store::Fetch;

/// Rows with at most this number of bytes between them are read by one request: at 1 Gbit/s they take 0.1 ms, as does one of many requests
/// at a time where each takes 20 ms.
const GAP_BYTES_MAX: u64 = 16 << 10;

/// Bytes of one request at most, where rows lie side by side.
const SPAN_BYTES_MAX: u64 = 1 << 20;

/// Rows of a [`crate::StreamedCache`] that are being read. Dropped, they are not read any further.
///
/// For each row they take at most 16 KiB and the row's own bytes.
pub struct PendingRows {
    cache: Arc<Shared>,
    rows: Vec<usize>,
    /// Sorted, not overlapping.
    spans: Vec<Span>,
}

/// A range of a shard that was not staged at the time of the request.
struct Span {
    shard: usize,
    bytes: Range<u64>,
    fetch: Fetch,
}

impl PendingRows {
    pub(super) fn begin(cache: &Arc<Shared>, rows: Vec<usize>) -> Result<PendingRows, CacheError> {
        cache.check()?;
        let places = rows.iter().map(|row| cache.shard_of(*row)).filter(|(shard, _)| !cache.shards[*shard].is_staged());
        let grids: Vec<(usize, u64)> = places.map(|(shard, row)| (shard, cache.shards[shard].offset(row))).collect();
        let mut spans = Vec::new();
        for (shard, bytes) in joined(grids, cache.row_bytes as u64) {
            let object = &cache.shards[shard].object;
            let fetch = cache.bucket.fetch(&object.key, bytes.clone(), object.tag.as_deref())?;
            spans.push(Span { shard, bytes, fetch });
        }
        Ok(PendingRows { cache: Arc::clone(cache), rows, spans })
    }

    /// The requested rows, in their order.
    pub fn rows(&self) -> &[usize] {
        &self.rows
    }

    /// Waits for the rows and calls `visit` with the place in [`PendingRows::rows`] and the packed grid of each, in order.
    ///
    /// # Errors
    /// As the server says, after the retries; staging has failed; [`CacheError::RowChanged`].
    pub fn visit(self, mut visit: impl FnMut(usize, &[u8])) -> Result<(), CacheError> {
        let PendingRows { cache, rows, spans } = self;
        let mut read: Vec<(usize, Range<u64>, Bytes)> = Vec::with_capacity(spans.len());
        // What was staged meanwhile is not waited for.
        for Span { shard, bytes, fetch } in spans.into_iter().filter(|span| !cache.shards[span.shard].is_staged()) {
            // An orderly stop of the program ends a step that was begun, with these rows.
            read.push((shard, bytes, fetch.wait_through()?));
        }
        for (i, row) in rows.iter().enumerate() {
            let (index, row) = cache.shard_of(*row);
            let shard = &cache.shards[index];
            if let Some(packed) = shard.staged_row(row) {
                visit(i, packed);
                continue;
            }
            let offset = shard.offset(row);
            let after = read.partition_point(|(other, bytes, _)| (*other, bytes.start) <= (index, offset));
            let (_, bytes, content) = &read[after - 1];
            let start = (offset - bytes.start) as usize;
            let packed = &content[start..start + cache.row_bytes];
            shard.note(row, packed)?;
            visit(i, packed);
        }
        cache.check()
    }
}

impl std::fmt::Debug for PendingRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PendingRows({} rows by {} requests)", self.rows.len(), self.spans.len())
    }
}

/// The ranges by which grids at these offsets of shards are read, in order.
pub(in crate::remote) fn joined(mut grids: Vec<(usize, u64)>, row_bytes: u64) -> Vec<(usize, Range<u64>)> {
    grids.sort_unstable();
    grids.dedup();
    let mut spans: Vec<(usize, Range<u64>)> = Vec::new();
    for (shard, offset) in grids {
        let end = offset + row_bytes;
        match spans.last_mut() {
            Some((last, bytes))
                if *last == shard && offset <= bytes.end + GAP_BYTES_MAX && end - bytes.start <= SPAN_BYTES_MAX =>
            {
                bytes.end = end;
            }
            _ => spans.push((shard, offset..end)),
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_read_together_and_no_request_is_large() {
        let near = 100 + 576 + GAP_BYTES_MAX;
        assert_eq!(joined(vec![(0, near), (0, 100), (0, 100)], 576), [(0, 100..near + 576)]);
        assert_eq!(joined(vec![(0, near + 1), (0, 100)], 576), [(0, 100..676), (0, near + 1..near + 577)]);
        assert_eq!(joined(vec![(1, 4), (0, 4)], 576), [(0, 4..580), (1, 4..580)]);
        let all = joined((0..10_000).map(|row| (0, row * 576)).collect(), 576);
        assert!(all.iter().all(|(_, bytes)| bytes.end - bytes.start <= SPAN_BYTES_MAX));
        assert_eq!(all.iter().map(|(_, bytes)| bytes.end - bytes.start).sum::<u64>(), 5_760_000);
        // A grid that is larger than that is one request.
        assert_eq!(joined(vec![(0, 0)], 2 * SPAN_BYTES_MAX), [(0, 0..2 * SPAN_BYTES_MAX)]);
    }
}
