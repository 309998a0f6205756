//! Activations on the CPU, channels last, with the sums that a norm needs.

/// An image's activations `[h, w, c]`.
#[derive(Debug, Default)]
pub(super) struct Map {
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
    /// Channels.
    pub c: usize,
    /// The values, row by row, pixel by pixel.
    pub data: Vec<f32>,
    /// Sums of the values and of their squares, `[strip, 2, c]`: one for each strip of the kernel that wrote the map.
    pub sums: Vec<f64>,
}

impl Map {
    /// Takes another shape; the values are unspecified. Memory is kept.
    pub(super) fn reshape(&mut self, h: usize, w: usize, c: usize) {
        (self.h, self.w, self.c) = (h, w, c);
        self.data.resize(h * w * c, 0.0);
    }

    /// Floats of a row of pixels.
    pub(super) fn row(&self) -> usize {
        self.w * self.c
    }

    /// The sums of all strips, `[2, c]`.
    pub(super) fn total(&self) -> Vec<f64> {
        let mut sums = vec![0.0; 2 * self.c];
        for strip in self.sums.chunks_exact(2 * self.c) {
            sums.iter_mut().zip(strip).for_each(|(sum, part)| *sum += part);
        }
        sums
    }

    /// Makes room for the sums of `strips` strips, all 0.
    pub(crate) fn clear_sums(&mut self, strips: usize) {
        self.sums.clear();
        self.sums.resize(strips * 2 * self.c, 0.0);
    }
}
