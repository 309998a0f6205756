//! Grids straight from the map, or by position from the files.

use crate::error::CacheError;
use crate::format::schema::TOKENS;
use crate::read::cache::TokenCache;
use crate::unpack::{unpack, unpack_factorized};
use std::fs::File;
use std::ops::Range;
use std::sync::{Arc, PoisonError};

/// Files that stay open for reads by position; there may be thousands of shards.
const OPEN_FILES_MAX: usize = 16;

impl TokenCache {
    /// The packed grid of a row, straight from the map and as it is there: `grid().row_bytes()` bytes.
    ///
    /// # Panics
    /// When `row` is not below [`TokenCache::num_rows`].
    #[inline]
    pub fn packed_row(&self, row: usize) -> &[u8] {
        let group = self.groups.find(row);
        let start = (row - group.rows.start) * self.row_bytes;
        &group.tokens[start..start + self.row_bytes]
    }

    /// The packed grids of consecutive rows, straight from the map: as many of the first of `rows` as lie side by side, which
    /// are those of one row group.
    ///
    /// # Panics
    /// When `rows.start` is not below [`TokenCache::num_rows`].
    pub fn packed_run(&self, rows: Range<usize>) -> &[u8] {
        let group = self.groups.find(rows.start);
        let start = rows.start - group.rows.start;
        let end = rows.end.clamp(rows.start, group.rows.end) - group.rows.start;
        &group.tokens[start * self.row_bytes..end * self.row_bytes]
    }

    /// Calls `visit` with the place in `rows` and the packed grid of each of `rows`, in order, while the next ones are
    /// on their way from memory: the fast way through rows in random order.
    ///
    /// # Panics
    /// When a row is not below [`TokenCache::num_rows`].
    #[inline]
    pub fn visit_packed(&self, rows: &[usize], mut visit: impl FnMut(usize, &[u8])) {
        let mut grids: [&[u8]; VISIT_ROWS] = [&[]; VISIT_ROWS];
        for (block, rows) in rows.chunks(VISIT_ROWS).enumerate() {
            // All places first: nothing below waits for the search of a row group.
            let grids = &mut grids[..rows.len()];
            grids.iter_mut().zip(rows).for_each(|(grid, row)| *grid = self.packed_row(*row));
            grids.iter().take(PREFETCH_ROWS).for_each(|grid| prefetch(grid));
            for (i, packed) in grids.iter().enumerate() {
                if let Some(next) = grids.get(i + PREFETCH_ROWS) {
                    prefetch(next);
                }
                visit(block * VISIT_ROWS + i, packed);
            }
        }
    }

    /// Unpacks the tokens of a row, raster order, into `grid().num_tokens()` elements.
    ///
    /// # Panics
    /// When `row` is not below [`TokenCache::num_rows`] or `out` has another length.
    pub fn tokens_into(&self, row: usize, out: &mut [u32]) {
        unpack(self.packed_row(row), self.grid.bits, out);
    }

    /// Unpacks the tokens of `rows` in two parts `[rows.len(), num_tokens]`, raster order: their `low_bits` lowest bits into
    /// `low`, the others into `high`. What training does with the rows that [`crate::Loader::next_rows`] chose.
    ///
    /// # Panics
    /// When a row is not below [`TokenCache::num_rows`], a part has another length than `rows.len() * num_tokens`, or
    /// `low_bits` is more than the grid's bits.
    pub fn factorized_into(&self, rows: &[usize], low_bits: u32, low: &mut [i64], high: &mut [i64]) {
        let num_tokens = self.grid.num_tokens();
        assert_eq!(
            (low.len(), high.len()),
            (rows.len() * num_tokens, rows.len() * num_tokens),
            "a number for each token"
        );
        let mut parts = low.chunks_exact_mut(num_tokens).zip(high.chunks_exact_mut(num_tokens));
        self.visit_packed(rows, |_, packed| {
            if let Some((low, high)) = parts.next() {
                unpack_factorized(packed, self.grid.bits, low_bits, low, high);
            }
        });
    }

    /// As [`TokenCache::packed_run`], after all grids of the row group were compared with their checksum: once for a cache that is
    /// open.
    ///
    /// # Errors
    /// [`CacheError::ColumnChecksum`].
    pub(crate) fn checked_run(&self, rows: Range<usize>) -> Result<&[u8], CacheError> {
        let group = self.groups.find(rows.start);
        let (index, group_index) = group.place;
        let (shard, bytes) = &self.shards[index];
        group.checked.make(|| shard.verify_column(bytes, group_index, TOKENS))?;
        Ok(self.packed_run(rows))
    }

    /// Reads the packed grids of consecutive rows into `out`, `grid().row_bytes()` bytes each: by position from the files,
    /// so that rows that are read once do not stay in this program's memory as mapped pages do.
    ///
    /// The first read of a row group compares all of its grids with their checksum (16,384 rows or 64 MiB at most), later ones of
    /// the same open cache do not.
    ///
    /// # Errors
    /// [`CacheError::RowOutOfRange`]; [`CacheError::ColumnChecksum`]; [`CacheError::Replaced`] and [`CacheError::Io`] when the file
    /// cannot be read; [`CacheError::Cancelled`].
    pub fn read_packed(&self, rows: Range<usize>, out: &mut Vec<u8>) -> Result<(), CacheError> {
        self.check_rows(&rows)?;
        let mut next = rows.start;
        while next < rows.end {
            let group = self.groups.find(next);
            let (index, group_index) = group.place;
            group.checked.make(|| {
                let (shard, bytes) = &self.shards[index];
                shard.verify_tokens(bytes, self.file_of(index).as_deref(), group_index)
            })?;
            next = group.rows.end;
        }
        self.read_unchecked(rows, out)
    }

    fn check_rows(&self, rows: &Range<usize>) -> Result<(), CacheError> {
        match rows.end > self.num_rows() {
            true => Err(CacheError::RowOutOfRange { row: rows.end - 1, num_rows: self.num_rows() }),
            false => Ok(()),
        }
    }

    /// As [`TokenCache::read_packed`], of grids as they are: for samples of rows whose groups are checked by what follows.
    ///
    /// # Errors
    /// As [`TokenCache::read_packed`], but for checksums.
    pub(crate) fn read_unchecked(&self, rows: Range<usize>, out: &mut Vec<u8>) -> Result<(), CacheError> {
        self.check_rows(&rows)?;
        out.resize(rows.len() * self.row_bytes, 0);
        let mut rest = out.as_mut_slice();
        let mut next = rows.start;
        while next < rows.end {
            let group = self.groups.find(next);
            let end = group.rows.end.min(rows.end);
            let (part, more) = rest.split_at_mut((end - next) * self.row_bytes);
            let start = (next - group.rows.start) * self.row_bytes;
            let (shard, bytes) = &self.shards[group.place.0];
            let file = self.file_of(group.place.0);
            shard.read_tokens(bytes, file.as_deref(), group.place.1, start, part)?;
            (rest, next) = (more, end);
        }
        Ok(())
    }

    /// The file of a shard, for reads by position; `None` where it is gone or another one has its name: what is mapped is
    /// still there.
    fn file_of(&self, shard: usize) -> Option<Arc<File>> {
        let handle = &self.shards[shard].0.handle;
        if let Some(file) = handle.opened() {
            return Some(file);
        }
        let mut open = self.open_files.lock().unwrap_or_else(PoisonError::into_inner);
        let file = handle.file().ok()?;
        open.push_back(shard);
        if open.len() > OPEN_FILES_MAX
            && let Some(oldest) = open.pop_front()
        {
            self.shards[oldest].0.handle.close();
        }
        Some(file)
    }
}

/// Rows whose places in the map are found at once: a usual batch.
const VISIT_ROWS: usize = 256;

/// Rows that are prefetched before the current one is used: enough to hide the latency of memory.
const PREFETCH_ROWS: usize = 8;

/// Asks for the cache lines of a row. A hint: it reads nothing and cannot fault.
#[inline]
fn prefetch(row: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in row.chunks(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: prefetching is defined for any address, and this one is inside `row`; SSE is part of x86_64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = row;
}
