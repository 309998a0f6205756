//! Reading: what `tokengrid.TokenCache` is made of.

use crate::{errors, interrupt, rows};
use numpy::ndarray::ArrayView2;
use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadwriteArray1, PyReadwriteArray2};
use pyo3::prelude::*;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokengrid_cache::{Access, CacheError, ClassIndex, RowFilter, TokenCache, find_rows};

/// Key, label, view, crop_x, crop_y, flip.
type Meta = (String, i32, u32, i32, i32, bool);

/// What is wrong with a cache as (file, row group, what); then rows, shards and bytes that were read.
type Verified = (Vec<(String, Option<usize>, String)>, usize, usize, u64);

/// An open cache.
#[pyclass(frozen, module = "tokengrid._tokengrid")]
pub(crate) struct Cache {
    pub(crate) inner: Arc<TokenCache>,
}

#[pymethods]
impl Cache {
    #[new]
    fn new(py: Python<'_>, path: PathBuf, in_memory: bool) -> PyResult<Cache> {
        let access = if in_memory { Access::Copy } else { Access::Map };
        let cache = interrupt::run(py, || TokenCache::open_with(&path, access))?;
        Ok(Cache { inner: Arc::new(cache) })
    }

    #[getter]
    fn num_rows(&self) -> usize {
        self.inner.num_rows()
    }

    #[getter]
    fn num_images(&self) -> usize {
        self.inner.num_images()
    }

    #[getter]
    fn num_views(&self) -> usize {
        self.inner.num_views()
    }

    #[getter]
    fn first_view(&self) -> u32 {
        self.inner.manifest().first_view
    }

    #[getter]
    fn grid(&self) -> (u32, u32) {
        (self.inner.grid().height, self.inner.grid().width)
    }

    #[getter]
    fn bits(&self) -> u32 {
        self.inner.grid().bits
    }

    #[getter]
    fn row_bytes(&self) -> usize {
        self.inner.grid().row_bytes()
    }

    #[getter]
    fn content_hash(&self) -> &str {
        self.inner.content_hash()
    }

    /// The folder that holds the files: for a URL that of the staged copy.
    #[getter]
    fn local_dir(&self) -> PathBuf {
        self.inner.local_dir().to_owned()
    }

    #[getter]
    fn classes(&self) -> Vec<String> {
        self.inner.manifest().classes.clone()
    }

    /// Name, first image and the image after the last one of each split.
    #[getter]
    fn splits(&self) -> Vec<(String, usize, usize)> {
        let splits = self.inner.splits().into_iter();
        splits.map(|(name, images)| (name.to_owned(), images.start, images.end)).collect()
    }

    /// What `cache info --json` prints, as text.
    fn info(&self, py: Python<'_>) -> PyResult<String> {
        let cache = &self.inner;
        interrupt::run(py, || {
            let info = tokengrid_cache::inspect(cache.dir())?;
            Ok(serde_json::to_string(&info).expect("numbers, texts and maps of them"))
        })
    }

    /// The label of each image.
    fn image_labels<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<i32>> {
        let labels = (0..self.inner.num_images()).map(|image| self.inner.image_label(image));
        PyArray1::from_iter(py, labels)
    }

    /// Everything about rows `start..stop` but their tokens.
    fn metas(&self, py: Python<'_>, start: usize, stop: usize) -> PyResult<Vec<Meta>> {
        let metas = interrupt::run(py, || self.inner.metas(start..stop))?;
        Ok(metas
            .into_iter()
            .map(|meta| (meta.key, meta.label, meta.view, meta.crop_x, meta.crop_y, meta.flip))
            .collect())
    }

    /// Reads and checks every byte.
    fn verify(&self, py: Python<'_>) -> PyResult<Verified> {
        let report = interrupt::run(py, || tokengrid_cache::verify(self.inner.dir(), &mut |_, _| {}))?;
        let problems = report.problems.into_iter().map(|problem| (problem.shard, problem.row_group, problem.what));
        Ok((problems.collect(), report.rows, report.shards, report.bytes))
    }

    /// The rows that have all of what is given.
    fn find<'py>(
        &self,
        py: Python<'py>,
        key: Option<String>,
        label: Option<i32>,
        view: Option<u32>,
        shard: Option<usize>,
    ) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let filter = RowFilter { label, view, shard, key };
        let found = interrupt::run(py, || {
            find_rows(&self.inner, &ClassIndex::of(&self.inner), &filter, &AtomicBool::new(false))
        })?;
        Ok(PyArray1::from_iter(py, (0..found.len()).filter_map(|place| found.get(place)).map(|row| row as i64)))
    }

    /// Unpacks rows into `out`, `[rows, num_tokens]`.
    fn read_i64(
        &self,
        py: Python<'_>,
        indices: PyReadonlyArray1<'_, i64>,
        mut out: PyReadwriteArray2<'_, i64>,
    ) -> PyResult<()> {
        let (rows, out) = (rows::checked(py, &self.inner, indices.as_slice()?)?, out.as_slice_mut()?);
        let bits = self.inner.grid().bits;
        rows::fill(py, &self.inner, &rows, out, |packed, tokens| tokengrid_cache::unpack_i64(packed, bits, tokens))
    }

    /// As `read_i64`.
    fn read_u32(
        &self,
        py: Python<'_>,
        indices: PyReadonlyArray1<'_, i64>,
        mut out: PyReadwriteArray2<'_, u32>,
    ) -> PyResult<()> {
        let (rows, out) = (rows::checked(py, &self.inner, indices.as_slice()?)?, out.as_slice_mut()?);
        let bits = self.inner.grid().bits;
        rows::fill(py, &self.inner, &rows, out, |packed, tokens| tokengrid_cache::unpack(packed, bits, tokens))
    }

    /// As `read_i64`, for tokens of up to 16 bits.
    fn read_u16(
        &self,
        py: Python<'_>,
        indices: PyReadonlyArray1<'_, i64>,
        mut out: PyReadwriteArray2<'_, u16>,
    ) -> PyResult<()> {
        let (rows, out) = (rows::checked(py, &self.inner, indices.as_slice()?)?, out.as_slice_mut()?);
        let grid = self.inner.grid();
        let mut wide = vec![0; grid.num_tokens()];
        rows::fill(py, &self.inner, &rows, out, |packed, tokens: &mut [u16]| {
            tokengrid_cache::unpack(packed, grid.bits, &mut wide);
            tokens.iter_mut().zip(&wide).for_each(|(token, wide)| *token = *wide as u16);
        })
    }

    /// Tokens and labels of samples of a part of the cache, rows `start..start + count`; negative samples count from its end.
    fn read_samples(
        &self,
        py: Python<'_>,
        samples: Vec<i64>,
        start: usize,
        count: usize,
        mut tokens: PyReadwriteArray2<'_, i64>,
        mut labels: PyReadwriteArray1<'_, i64>,
    ) -> PyResult<()> {
        let rows = rows::of_samples(py, &samples, start, count)?;
        rows::fill_batch(py, &self.inner, &rows, tokens.as_slice_mut()?, labels.as_slice_mut()?)
    }

    /// Unpacks the `low_bits` lowest bits of each token into `low`, the others into `high`; both `[rows, num_tokens]`.
    fn read_factorized(
        &self,
        py: Python<'_>,
        indices: PyReadonlyArray1<'_, i64>,
        low_bits: u32,
        mut low: PyReadwriteArray2<'_, i64>,
        mut high: PyReadwriteArray2<'_, i64>,
    ) -> PyResult<()> {
        let rows = rows::checked(py, &self.inner, indices.as_slice()?)?;
        let (low, high) = (low.as_slice_mut()?, high.as_slice_mut()?);
        rows::check_length(py, &self.inner, rows.len(), low.len())?;
        rows::check_length(py, &self.inner, rows.len(), high.len())?;
        if low_bits > self.inner.grid().bits {
            let text = format!("low_bits is {low_bits}, expected 0 to {}", self.inner.grid().bits);
            return Err(errors::of_class(py, "CacheValueError", &text));
        }
        let piece_len = rows::PIECE_ROWS * self.inner.grid().num_tokens();
        let parts = low.chunks_mut(piece_len).zip(high.chunks_mut(piece_len));
        let mut pieces = rows.chunks(rows::PIECE_ROWS).zip(parts);
        rows::read(py, &self.inner, || {
            let Some((rows, (low, high))) = pieces.next() else { return false };
            self.inner.factorized_into(rows, low_bits, low, high);
            true
        })
    }

    /// The packed grids of the first of rows `start..stop` as they lie in the map, `[rows, row_bytes]`: as many as lie side by
    /// side. Read-only, not copied.
    fn packed_run<'py>(slf: &Bound<'py, Self>, start: usize, stop: usize) -> PyResult<Bound<'py, PyArray2<u8>>> {
        let cache = &slf.get().inner;
        if start >= stop || stop > cache.num_rows() {
            let error = CacheError::RowOutOfRange { row: stop.max(start), num_rows: cache.num_rows() };
            return Err(errors::raise(slf.py(), &error));
        }
        let packed = cache.packed_run(start..stop);
        let row_bytes = cache.grid().row_bytes();
        let view = ArrayView2::from_shape((packed.len() / row_bytes, row_bytes), packed).expect("whole rows");
        // SAFETY: the bytes live as long as the cache, which `slf`, the array's base, keeps open and never changes; the array
        // is made read-only before anybody else sees it.
        let array = unsafe { PyArray2::borrow_from_array(&view, slf.clone().into_any()) };
        drop(array.readwrite().make_nonwriteable());
        Ok(array)
    }
}

/// Says where caches of URLs are kept as files, and how many bytes they may take there.
#[pyfunction]
#[pyo3(signature = (folder=None, limit_bytes=None))]
pub(crate) fn stage_in(folder: Option<PathBuf>, limit_bytes: Option<u64>) {
    tokengrid_store::stage_in(folder, limit_bytes);
}
