//! Writing: what `tokengrid.CacheWriter` is made of.

use crate::job::Job;
use crate::{errors, interrupt};
use numpy::{PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokengrid_cache::{CacheError, CacheWriter, GridSpec, JobSpec, OpenMode, Row};

/// Published, rows, images, quarantined, content hash.
type Finished = (bool, usize, usize, usize, Option<String>);

/// A cache that is being written; empty once it is finished.
#[pyclass(frozen, module = "tokengrid._tokengrid")]
pub(crate) struct Writer {
    inner: Mutex<Option<CacheWriter>>,
    grid: GridSpec,
    views: usize,
    first_view: u32,
}

#[pymethods]
impl Writer {
    #[new]
    fn new(py: Python<'_>, path: PathBuf, job: &str, overwrite: bool, single_writer: bool) -> PyResult<Writer> {
        let job: Job = serde_json::from_str(job)
            .map_err(|error| errors::of_class(py, "CacheValueError", &format!("the job cannot be used: {error}")))?;
        let job = JobSpec::from(job);
        let (grid, views, first_view) = (job.grid, job.num_views as usize, job.first_view);
        if single_writer {
            tokengrid_cache::allow_single_writer();
        }
        let mode = if overwrite { OpenMode::Overwrite } else { OpenMode::Resume };
        let writer = interrupt::run(py, || CacheWriter::open(&path, job, mode))?;
        Ok(Writer { inner: Mutex::new(Some(writer)), grid, views, first_view })
    }

    #[getter]
    fn images(&self, py: Python<'_>) -> PyResult<(usize, usize)> {
        self.with(py, |writer| Ok((writer.images().start, writer.images().end)))
    }

    /// The first image that is not durable.
    #[getter]
    fn durable(&self, py: Python<'_>) -> PyResult<usize> {
        self.with(py, |writer| Ok(writer.next_image()))
    }

    #[getter]
    fn is_complete(&self, py: Python<'_>) -> PyResult<bool> {
        self.with(py, |writer| Ok(writer.is_complete()))
    }

    #[getter]
    fn num_quarantined(&self, py: Python<'_>) -> PyResult<usize> {
        self.with(py, |writer| Ok(writer.num_quarantined()))
    }

    /// Adds images `first..`: `tokens` is `[images * views, num_tokens]`, labels and keys have one entry per image, crops
    /// `[images * views, 3]` are x, y and 0 or 1 for mirrored. Returns how many images were added before `error`, if any.
    fn push(
        &self,
        py: Python<'_>,
        first: usize,
        tokens: PyReadonlyArray2<'_, i64>,
        labels: PyReadonlyArray1<'_, i64>,
        keys: Vec<String>,
        crops: PyReadonlyArray2<'_, i32>,
    ) -> PyResult<(usize, Option<PyErr>)> {
        let (num_tokens, views) = (self.grid.num_tokens(), self.views);
        let (tokens, labels, crops) = (tokens.as_slice()?, labels.as_slice()?, crops.as_slice()?);
        let shapes = (tokens.len(), labels.len(), crops.len());
        if shapes != (keys.len() * views * num_tokens, keys.len(), keys.len() * views * 3) {
            let text = format!("{} keys, but arrays of {shapes:?} elements", keys.len());
            return Err(errors::of_class(py, "CacheValueError", &text));
        }
        let grids = tokens.chunks_exact(views * num_tokens);
        let mut images = grids.zip(labels).zip(crops.chunks_exact(views * 3)).zip(&keys);
        let (mut added, mut failed) = (0, None);
        let mut narrow = Vec::new();
        let stopped = interrupt::in_pieces(py, || {
            let Some((((tokens, label), crops), key)) = images.next() else { return false };
            let pushed = self.try_with(|writer| {
                let image = first + added;
                self.narrow(image, key, tokens, &mut narrow)?;
                let label =
                    i32::try_from(*label).map_err(|_| invalid(image, key, "label", "-1 or a class index", *label))?;
                let grids = narrow.chunks_exact(num_tokens).zip(crops.as_chunks::<3>().0).zip(self.first_view..);
                let row = |((tokens, [crop_x, crop_y, flip]), view): ((_, &[i32; 3]), _)| Row {
                    tokens,
                    label,
                    key,
                    view,
                    crop_x: *crop_x,
                    crop_y: *crop_y,
                    flip: *flip != 0,
                };
                writer.push_image(image, &grids.map(row).collect::<Vec<_>>())
            });
            match pushed {
                Some(Ok(())) => added += 1,
                other => failed = Some(other.and_then(Result::err)),
            }
            failed.is_none()
        });
        let failed = failed.map(|error| error.map_or_else(|| closed(py), |error| errors::raise(py, &error)));
        Ok((added, failed.or(stopped.err())))
    }

    fn quarantine(&self, py: Python<'_>, image: usize, key: &str, reason: &str) -> PyResult<()> {
        self.with(py, |writer| writer.quarantine(image, key, "encode", reason))
    }

    fn checkpoint(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, CacheWriter::checkpoint)
    }

    fn finish(&self, py: Python<'_>) -> PyResult<Finished> {
        let writer = py.detach(|| self.lock().take()).ok_or_else(|| closed(py))?;
        // Not `interrupt::run`: what has begun to be written is finished.
        let finished = py.detach(|| writer.finish()).map_err(|error| errors::raise(py, &error))?;
        Ok((finished.published, finished.rows, finished.images, finished.quarantined, finished.content_hash))
    }

    /// Closes the writer and unlocks the folder. What is durable stays.
    fn close(&self, py: Python<'_>) {
        py.detach(|| drop(self.lock().take()));
    }
}

impl Writer {
    fn lock(&self) -> MutexGuard<'_, Option<CacheWriter>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works with the writer, without the interpreter's lock.
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut CacheWriter) -> Result<T, CacheError> + Send,
    ) -> PyResult<T> {
        let result = py.detach(|| self.try_with(work));
        result.ok_or_else(|| closed(py))?.map_err(|error| errors::raise(py, &error))
    }

    /// Works with the writer; `None` once it is closed.
    fn try_with<T>(
        &self,
        work: impl FnOnce(&mut CacheWriter) -> Result<T, CacheError>,
    ) -> Option<Result<T, CacheError>> {
        self.lock().as_mut().map(work)
    }

    /// 64-bit tokens as the writer takes them.
    fn narrow(&self, image: usize, key: &str, tokens: &[i64], narrow: &mut Vec<u32>) -> Result<(), CacheError> {
        narrow.clear();
        let bits = self.grid.bits;
        if let Some(token) = tokens.iter().find(|token| !(0..1 << bits).contains(*token)) {
            return Err(invalid(image, key, "token", &format!("0 to 2^{bits} - 1"), *token));
        }
        narrow.extend(tokens.iter().map(|token| *token as u32));
        Ok(())
    }
}

fn invalid(image: usize, key: &str, what: &'static str, expected: &str, actual: i64) -> CacheError {
    CacheError::InvalidRow {
        image,
        key: key.to_owned(),
        what,
        expected: expected.to_owned(),
        actual: actual.to_string(),
    }
}

fn closed(py: Python<'_>) -> PyErr {
    errors::of_class(py, "CacheValueError", "the writer is closed: open another one to continue")
}
