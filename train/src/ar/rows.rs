//! The rows of a cache, which is on this machine, or on its way to it.

use crate::TrainError;
use std::path::Path;
use std::sync::Arc;
use tokengrid_cache::{Access, LeftOut, Manifest, PendingRows, StreamedCache, TokenCache, unpack_factorized};

/// A cache, open for reading rows.
#[derive(Debug, Clone)]
pub(super) enum Rows {
    /// All of its shards are mapped.
    Local(Arc<TokenCache>),
    /// Shards are staged while rows are read.
    Streamed(Arc<StreamedCache>),
}

/// Rows that are being read.
#[derive(Debug)]
pub(super) enum BegunRows {
    /// There is nothing to wait for.
    Local(Vec<usize>),
    Streamed(PendingRows),
}

impl BegunRows {
    pub(super) fn rows(&self) -> &[usize] {
        match self {
            BegunRows::Local(rows) => rows,
            BegunRows::Streamed(pending) => pending.rows(),
        }
    }
}

impl Rows {
    /// Stages a cache in a bucket first.
    pub(super) fn open(path: &Path, access: Access) -> Result<Rows, TrainError> {
        Ok(Rows::Local(Arc::new(TokenCache::open_with(path, access)?)))
    }

    /// Stages nothing.
    pub(super) fn stream(path: &Path, access: Access) -> Result<Rows, TrainError> {
        match StreamedCache::open(path, access)? {
            Some(streamed) => Ok(Rows::Streamed(Arc::new(streamed))),
            None => Rows::open(path, access),
        }
    }

    pub(super) fn stage_behind(&self, rows: impl Iterator<Item = usize>) -> Result<(), TrainError> {
        match self {
            Rows::Local(_) => Ok(()),
            Rows::Streamed(cache) => Ok(cache.stage_behind(rows, warn_of)?),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        match self {
            Rows::Local(cache) => cache.dir(),
            Rows::Streamed(cache) => cache.dir(),
        }
    }

    pub(super) fn manifest(&self) -> &Manifest {
        match self {
            Rows::Local(cache) => cache.manifest(),
            Rows::Streamed(cache) => cache.manifest(),
        }
    }

    pub(super) fn label(&self, row: usize) -> i32 {
        match self {
            Rows::Local(cache) => cache.label(row),
            Rows::Streamed(cache) => cache.label(row),
        }
    }

    /// -1 where no row has one.
    pub(super) fn largest_label(&self) -> i32 {
        (0..self.manifest().rows).map(|row| self.label(row)).max().unwrap_or(-1)
    }

    /// Begins to read rows, which [`Rows::unpack`] finishes.
    pub(super) fn begin(&self, rows: Vec<usize>) -> Result<BegunRows, TrainError> {
        match self {
            Rows::Local(_) => Ok(BegunRows::Local(rows)),
            Rows::Streamed(cache) => Ok(BegunRows::Streamed(cache.begin(rows)?)),
        }
    }

    /// Low and high bits of rows that were begun here, `[rows, num_tokens]` each.
    pub(super) fn unpack(
        &self,
        begun: BegunRows,
        low_bits: u32,
        low: &mut [i64],
        high: &mut [i64],
    ) -> Result<(), TrainError> {
        let grid = self.manifest().grid_spec();
        match (self, begun) {
            (Rows::Local(cache), begun) => cache.factorized_into(begun.rows(), low_bits, low, high),
            (_, BegunRows::Streamed(pending)) => {
                let parts = low.chunks_exact_mut(grid.num_tokens()).zip(high.chunks_exact_mut(grid.num_tokens()));
                let mut parts = parts.into_iter();
                pending.visit(|_, packed| {
                    if let Some((low, high)) = parts.next() {
                        unpack_factorized(packed, grid.bits, low_bits, low, high);
                    }
                })?;
            }
            (Rows::Streamed(_), BegunRows::Local(_)) => unreachable!("rows are begun where they are unpacked"),
        }
        Ok(())
    }
}

fn warn_of(left_out: &LeftOut) {
    let LeftOut { dir, shards, num_shards } = left_out;
    // No rate: what the requests so far allow differs by an order of magnitude from what the run will see.
    tracing::warn!(
        "{}: the stage folder has no room for {shards} of {num_shards} shards, whose rows are read from the bucket every time \
         (data_wait_fraction in metrics.jsonl is the share of the time that this takes); free some space, raise --stage-size, or name another folder with --stage-dir",
        dir.display()
    );
}
