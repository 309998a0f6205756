//! The stream of batches: which rows, in which order. What `tokengrid.Loader` and `tokengrid.torch.TokenStream` are made of.

use crate::cache::Cache;
use crate::{errors, rows};
use numpy::{PyArray1, PyReadwriteArray1, PyReadwriteArray2};
use pyo3::prelude::*;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokengrid_cache as tokens;

/// Rows and labels of a batch.
type Chosen<'py> = (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<i64>>);

/// A place in the stream of batches.
#[pyclass(frozen, module = "tokengrid._tokengrid")]
pub(crate) struct Loader {
    inner: Mutex<tokens::Loader>,
}

#[pymethods]
impl Loader {
    #[new]
    fn new(
        py: Python<'_>,
        cache: &Cache,
        batch_size: usize,
        seed: u64,
        rank: usize,
        world_size: usize,
        images: (usize, usize),
    ) -> PyResult<Loader> {
        let config = tokens::LoaderConfig { seed, batch_size, rank, world_size };
        let loader = tokens::Loader::over(Arc::clone(&cache.inner), config, images.0..images.1);
        Ok(Loader { inner: Mutex::new(loader.map_err(|error| errors::raise(py, &error))?) })
    }

    /// Samples that the whole job has consumed.
    #[getter]
    fn position(&self) -> u64 {
        self.lock().position()
    }

    #[getter]
    fn seed(&self) -> u64 {
        self.lock().config().seed
    }

    #[getter]
    fn epoch(&self) -> u64 {
        self.lock().epoch()
    }

    #[getter]
    fn epoch_fraction(&self) -> f64 {
        self.lock().epoch_fraction()
    }

    #[getter]
    fn global_batch_size(&self) -> u64 {
        self.lock().global_batch_size()
    }

    fn restore(&self, seed: u64, position: u64) {
        self.lock().restore(tokens::LoaderState { seed, position });
    }

    /// Tokens and labels of this process's slice of the global batch at a position, behind which the loader then stands.
    fn read_batch(
        &self,
        py: Python<'_>,
        position: u64,
        mut tokens: PyReadwriteArray2<'_, i64>,
        mut labels: PyReadwriteArray1<'_, i64>,
    ) -> PyResult<()> {
        let mut rows = Vec::new();
        let cache = {
            let mut loader = self.lock();
            loader.seek(position);
            loader.next_rows(&mut rows);
            Arc::clone(loader.cache())
        };
        rows::fill_batch(py, &cache, &rows, tokens.as_slice_mut()?, labels.as_slice_mut()?)
    }

    /// Rows and labels of this process's slice of the next global batch.
    fn next_batch<'py>(&self, py: Python<'py>) -> Chosen<'py> {
        let mut rows = Vec::new();
        let mut loader = self.lock();
        loader.next_rows(&mut rows);
        let labels = PyArray1::from_iter(py, rows.iter().map(|row| i64::from(loader.cache().label(*row))));
        (PyArray1::from_iter(py, rows.iter().map(|row| *row as i64)), labels)
    }
}

impl Loader {
    /// Held for microseconds and never while the interpreter's lock is released: no thread can wait for both.
    fn lock(&self) -> MutexGuard<'_, tokens::Loader> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
