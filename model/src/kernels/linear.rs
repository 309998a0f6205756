//! Linear layers with constant weights, packed once: for few rows at a time, bound by memory bandwidth.

use super::panels::{Factor, Panels};
use super::tile::PANEL;

/// Rows of activations. A row has room for whole panels, and no power of two from one to the next.
#[derive(Debug)]
pub(crate) struct Rows {
    values: Vec<f32>,
    width: usize,
    stride: usize,
    count: usize,
}

impl Rows {
    /// No rows yet, of `width` values each.
    pub(crate) fn new(width: usize) -> Rows {
        Rows { values: vec![], width, stride: width.next_multiple_of(PANEL) + 16, count: 0 }
    }

    /// Makes room for `count` rows; what they hold is left open.
    pub(crate) fn resize(&mut self, count: usize) {
        self.values.resize(count * self.stride, 0.0);
        self.count = count;
    }

    /// Number of rows.
    #[allow(clippy::len_without_is_empty, reason = "a batch has rows")]
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Row `row`.
    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.stride..][..self.width]
    }

    /// Row `row`, to be written.
    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.values[row * self.stride..][..self.width]
    }

    /// All rows, to be written.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        let width = self.width;
        self.values.chunks_exact_mut(self.stride).take(self.count).map(move |row| &mut row[..width])
    }

    /// All values with the gaps between rows, and the distance from row to row.
    pub(crate) fn parts_mut(&mut self) -> (&mut [f32], usize) {
        (&mut self.values, self.stride)
    }
}

/// `y = x W^T` for a weight `[out, in]`. Each result is one sum in ascending order: a row's bits depend on that row alone.
#[derive(Debug)]
pub(crate) struct Linear {
    panels: Panels,
    inner: usize,
    outer: usize,
}

impl Linear {
    /// Packs `weight`, row by row, of `outer` rows.
    pub(crate) fn new(weight: &[f32], outer: usize) -> Linear {
        let inner = weight.len() / outer;
        let mut panels = Panels::default();
        panels.pack(Factor::new(weight, outer, inner).transposed());
        Linear { panels, inner, outer }
    }

    /// Values of a result.
    pub(crate) fn outer(&self) -> usize {
        self.outer
    }

    /// `y = x W^T`.
    pub(crate) fn set(&self, x: &Rows, y: &mut Rows) {
        y.resize(x.count);
        self.apply(x, y, false);
    }

    /// `y += x W^T`.
    pub(crate) fn add(&self, x: &Rows, y: &mut Rows) {
        self.apply(x, y, true);
    }

    fn apply(&self, x: &Rows, y: &mut Rows, add: bool) {
        assert!((x.width, y.width, x.count) == (self.inner, self.outer, y.count), "rows that fit the layer");
        self.panels.multiply_all(x.count, &x.values, x.stride, &mut y.values, y.stride, add);
    }
}
