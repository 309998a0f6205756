//! Rows that are copied from other files. A continued job must find the inputs that it began with: rows that an earlier run
//! wrote are compared with those of the inputs, whatever their paths.

use crate::error::CacheError;
use crate::format::hash::ContentSum;
use crate::format::job::JobSpec;
use crate::format::pack::pack;
use crate::format::row::{Row, row_hash};
use crate::format::split::Split;
use crate::progress::copied;
use crate::shard::group::check_rows;
use crate::write::writer::{CacheWriter, Finished, OpenMode};
use std::path::{Path, PathBuf};

/// A writer that is given all images of its job, also those that are there already.
///
/// Dropped before anything was durable, it takes away what it made, so that the next attempt may be another job.
pub(crate) struct CopyWriter {
    out: PathBuf,
    /// `None` once it is finished.
    writer: Option<CacheWriter>,
    /// Images below this one were written by an earlier run.
    resumed: usize,
    /// Of their rows, as the inputs give them.
    replayed: ContentSum,
    is_compared: bool,
    packed: Vec<u8>,
}

impl CopyWriter {
    /// As [`CacheWriter::open`], for a job of one process.
    pub(crate) fn open(out: &Path, job: JobSpec, mode: OpenMode) -> Result<CopyWriter, CacheError> {
        let packed = vec![0; job.grid.row_bytes()];
        let writer = CacheWriter::open(out, job, mode)?;
        let resumed = writer.next_image();
        let replayed = ContentSum::default();
        Ok(CopyWriter { out: out.into(), writer: Some(writer), resumed, replayed, is_compared: false, packed })
    }

    /// The next image, with all its rows.
    ///
    /// # Errors
    /// [`CacheError::InputsDiffer`]; otherwise as [`CacheWriter::push_image`].
    pub(crate) fn push_image(&mut self, index: usize, rows: &[Row<'_>]) -> Result<(), CacheError> {
        if index >= self.resumed {
            self.compare()?;
            self.writer().push_image(index, rows)?;
        }
        let Some(CacheWriter { job, .. }) = &self.writer else { unreachable!("it is not finished") };
        copied(index + 1, job.source.images);
        if index >= self.resumed {
            return Ok(());
        }
        check_rows(job, index, rows)?;
        let split = Split::name_of(&job.splits, index);
        for row in rows {
            self.packed.fill(0);
            pack(row.tokens, job.grid.bits, &mut self.packed);
            self.replayed.add_row(&row_hash(job.grid, split, row, &self.packed));
        }
        Ok(())
    }

    /// The next image, which has no rows.
    ///
    /// # Errors
    /// As [`CopyWriter::push_image`].
    pub(crate) fn quarantine(&mut self, index: usize, key: &str, stage: &str, why: &str) -> Result<(), CacheError> {
        if index < self.resumed {
            return Ok(());
        }
        self.compare()?;
        self.writer().quarantine(index, key, stage, why)
    }

    /// As [`CacheWriter::finish`].
    pub(crate) fn finish(mut self) -> Result<Finished, CacheError> {
        self.compare()?;
        self.writer.take().expect("it is finished once").finish()
    }

    fn writer(&mut self) -> &mut CacheWriter {
        self.writer.as_mut().expect("it is not finished")
    }

    fn compare(&mut self) -> Result<(), CacheError> {
        if self.is_compared {
            return Ok(());
        }
        self.is_compared = true;
        let replayed = self.replayed;
        if self.writer().durable_content() == replayed {
            return Ok(());
        }
        Err(CacheError::InputsDiffer { path: self.out.clone(), images: self.resumed })
    }
}

impl Drop for CopyWriter {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.withdraw();
        }
    }
}
