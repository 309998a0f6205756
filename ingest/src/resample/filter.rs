//! Pillow's filters, as functions of the distance to an output's centre.

/// A filter of Pillow's `Image.Resampling`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filter {
    /// `BOX`: all samples within half an output count the same.
    Box,
    /// `BILINEAR`: a triangle.
    Bilinear,
    /// `BICUBIC`: Keys' cubic convolution with a = -0.5. Some of its weights are negative.
    Bicubic,
}

impl Filter {
    /// How far the filter reaches, in outputs (in inputs, where the picture grows).
    pub(super) fn support(self) -> f64 {
        match self {
            Filter::Box => 0.5,
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
        }
    }

    /// The weight at a distance. The order of the operations is Pillow's, because every rounding counts.
    pub(super) fn weight(self, distance: f64) -> f64 {
        match self {
            // The interval is half open, so that a sample between two outputs counts for one of them.
            Filter::Box => f64::from(distance > -0.5 && distance <= 0.5),
            Filter::Bilinear => (1.0 - distance.abs()).max(0.0),
            Filter::Bicubic => bicubic(distance.abs()),
        }
    }
}

fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    match x {
        x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
        _ => 0.0,
    }
}
