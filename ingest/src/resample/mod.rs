//! Pillow's BILINEAR, BOX and BICUBIC resize with antialiasing, to the bit, for the region that is asked for.
//!
//! Two passes, each rounding to 8 bits, so their order shows in the last bit: Pillow goes over the columns' direction first
//! when that pass removes more than twice as many rows as the other removes columns ([`vertical_first`]). A pass that does
//! not change the size is skipped. Only the lines and columns that the region needs are computed: the bits are the same.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod coefficients;
mod filter;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod packed;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod sse41;
#[cfg(test)]
mod tests;

use crate::decode::RgbImage;
use coefficients::{Coefficients, source_range};
pub(crate) use filter::Filter;
use std::ops::Range;

/// A set of kernels. All give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kernel {
    /// Plain Rust, on every processor.
    Scalar,
    /// x86-64 with SSE4.1.
    Sse41,
    /// x86-64 with AVX2.
    Avx2,
    /// AArch64 with NEON.
    Neon,
}

impl Kernel {
    /// All of them, the slowest first.
    pub const ALL: [Kernel; 4] = [Kernel::Scalar, Kernel::Sse41, Kernel::Avx2, Kernel::Neon];

    /// The fastest kernels of this processor.
    pub fn detect() -> Kernel {
        Kernel::ALL.into_iter().rev().find(|kernel| kernel.is_supported()).unwrap_or(Kernel::Scalar)
    }

    /// Whether this processor can run these kernels.
    pub fn is_supported(self) -> bool {
        match self {
            Kernel::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Kernel::Sse41 => std::is_x86_feature_detected!("sse4.1"),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => std::is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "aarch64")]
            Kernel::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            _ => false,
        }
    }
}

/// A rectangle of a resized image, in its pixels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Region {
    /// Columns to the left of it.
    pub left: u32,
    /// Rows above it.
    pub top: u32,
    /// Its columns.
    pub width: u32,
    /// Its rows.
    pub height: u32,
}

impl Region {
    fn columns(&self) -> Range<u32> {
        self.left..self.left + self.width
    }

    fn rows(&self) -> Range<u32> {
        self.top..self.top + self.height
    }
}

/// The size that torchvision's `Resize(shorter)` gives to an image of `width` x `height` pixels: the shorter side becomes
/// `shorter`, the longer one `floor(shorter * long / short)`.
///
/// Returns `(width, height)`, or `None` when a side would exceed 2^31 - 1 or any number is 0.
pub fn target_size(width: u32, height: u32, shorter: u32) -> Option<(u32, u32)> {
    let (short, long) = (width.min(height), width.max(height));
    let scaled = (u64::from(shorter) * u64::from(long)).checked_div(u64::from(short))?;
    let longer = i32::try_from(scaled).ok()? as u32;
    let fits = shorter > 0 && shorter <= i32::MAX as u32;
    fits.then_some(if width <= height { (shorter, longer) } else { (longer, shorter) })
}

/// Whether Pillow does the vertical pass first (the differences are signed).
fn vertical_first(width: u32, height: u32, new_width: u32, new_height: u32) -> bool {
    let removed_rows = i64::from(height) - i64::from(new_height);
    let removed_columns = i64::from(width) - i64::from(new_width);
    removed_rows > 0 && removed_rows > 2 * removed_columns
}

/// One resize of a whole image. Sizes are columns and rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resizing {
    pub from: (u32, u32),
    pub to: (u32, u32),
    pub filter: Filter,
}

/// The rectangle of the image that a resize reads for `region` of its result.
pub(crate) fn source_region(resizing: Resizing, region: Region) -> Region {
    let Resizing { from, to, filter } = resizing;
    let columns = source_range(from.0, to.0, region.columns(), filter);
    let rows = source_range(from.1, to.1, region.rows(), filter);
    Region { left: columns.start, top: rows.start, width: columns.len() as u32, height: rows.len() as u32 }
}

/// Pixels being resampled: `pixels[0]` is the sample at column `left`, row `top` of the image it came from.
#[derive(Clone, Copy)]
pub(crate) struct Plane<'a> {
    /// `[rows, columns, 3]`.
    pub pixels: &'a [u8],
    /// Bytes from row to row.
    pub stride: usize,
    pub left: u32,
    pub top: u32,
}

impl<'a> Plane<'a> {
    /// From the sample at column `x`, row `y`, to the end.
    fn from(&self, x: u32, y: u32) -> &'a [u8] {
        &self.pixels[(y - self.top) as usize * self.stride + (x - self.left) as usize * 3..]
    }
}

/// Resizes; keeps its buffers from image to image.
#[derive(Debug)]
pub struct Resampler {
    kernel: Kernel,
    across: Coefficients,
    down: Coefficients,
    #[cfg(target_arch = "x86_64")]
    packed_across: packed::Across,
    #[cfg(target_arch = "x86_64")]
    packed_down: packed::Down,
    between: Vec<u8>,
}

impl Default for Resampler {
    fn default() -> Self {
        Resampler::new(Kernel::detect())
    }
}

impl Resampler {
    /// A resampler with the given kernels, or the scalar ones where the processor lacks them.
    pub fn new(kernel: Kernel) -> Resampler {
        let kernel = if kernel.is_supported() { kernel } else { Kernel::Scalar };
        Resampler {
            kernel,
            across: Coefficients::default(),
            down: Coefficients::default(),
            #[cfg(target_arch = "x86_64")]
            packed_across: packed::Across::default(),
            #[cfg(target_arch = "x86_64")]
            packed_down: packed::Down::default(),
            between: Vec::new(),
        }
    }

    /// Gives the buffer between the passes back if it grew beyond `bytes`.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        if self.between.capacity() > bytes {
            self.between = Vec::new();
        }
    }

    /// Writes the pixels of `region` of `image` resized to `new_size` (width, height) into `out`, which is emptied first:
    /// BILINEAR, RGB, row-major, `region.height * region.width * 3` bytes.
    ///
    /// # Panics
    /// If the image or `new_size` is empty, or the region does not lie inside `new_size`.
    pub fn resize_region(&mut self, image: &RgbImage, new_size: (u32, u32), region: Region, out: &mut Vec<u8>) {
        let plane = Plane { pixels: &image.pixels, stride: image.width as usize * 3, left: 0, top: 0 };
        resize_for_overwrite(out, region.width as usize * region.height as usize * 3);
        let resizing = Resizing { from: (image.width, image.height), to: new_size, filter: Filter::Bilinear };
        self.resize_plane(plane, resizing, region, out);
    }

    /// Writes `region` of a resized image into `out`, which has the length of the region's pixels. Of the image before the
    /// resize `plane` has what [`source_region`] says.
    pub(crate) fn resize_plane(&mut self, plane: Plane<'_>, resizing: Resizing, region: Region, out: &mut [u8]) {
        let Resizing { from: (width, height), to: (new_width, new_height), filter } = resizing;
        assert!(width > 0 && height > 0, "an image has pixels");
        let inside = |start: u32, length: u32, whole: u32| start.checked_add(length).is_some_and(|end| end <= whole);
        assert!(inside(region.left, region.width, new_width), "region inside the width");
        assert!(inside(region.top, region.height, new_height), "region inside the height");
        assert_eq!(out.len(), region.width as usize * region.height as usize * 3, "room for the region");
        if out.is_empty() {
            return;
        }
        let mut between = std::mem::take(&mut self.between);
        match (width != new_width, height != new_height) {
            (false, false) => copy(plane, region, out),
            (true, false) => {
                self.plan_across(width, new_width, region.columns(), filter);
                self.horizontal(plane, region.rows(), out);
            }
            (false, true) => {
                self.plan_down(height, new_height, region.rows(), filter);
                self.vertical(plane, region.columns(), out);
            }
            (true, true) => {
                self.plan_across(width, new_width, region.columns(), filter);
                self.plan_down(height, new_height, region.rows(), filter);
                if vertical_first(width, height, new_width, new_height) {
                    self.vertical_then_horizontal(plane, region, &mut between, out);
                } else {
                    self.horizontal_then_vertical(plane, region, &mut between, out);
                }
            }
        }
        self.between = between;
    }

    fn horizontal_then_vertical(&self, plane: Plane<'_>, region: Region, between: &mut Vec<u8>, out: &mut [u8]) {
        let rows = self.down.source();
        let stride = region.width as usize * 3;
        resize_for_overwrite(between, rows.len() * stride);
        self.horizontal(plane, rows.clone(), between);
        let narrow = Plane { pixels: between, stride, left: region.left, top: rows.start };
        self.vertical(narrow, region.columns(), out);
    }

    fn vertical_then_horizontal(&self, plane: Plane<'_>, region: Region, between: &mut Vec<u8>, out: &mut [u8]) {
        let columns = self.across.source();
        let stride = columns.len() * 3;
        resize_for_overwrite(between, region.height as usize * stride);
        self.vertical(plane, columns.clone(), between);
        let low = Plane { pixels: between, stride, left: columns.start, top: region.top };
        self.horizontal(low, region.rows(), out);
    }

    fn plan_across(&mut self, width: u32, new_width: u32, columns: Range<u32>, filter: Filter) {
        self.across.compute(width, new_width, columns, filter);
        #[cfg(target_arch = "x86_64")]
        if self.kernel != Kernel::Scalar {
            self.packed_across.pack(&self.across);
        }
    }

    fn plan_down(&mut self, height: u32, new_height: u32, rows: Range<u32>, filter: Filter) {
        self.down.compute(height, new_height, rows, filter);
        #[cfg(target_arch = "x86_64")]
        if self.kernel != Kernel::Scalar {
            self.packed_down.pack(&self.down);
        }
    }

    /// Resamples the given rows along themselves, to the columns planned.
    fn horizontal(&self, plane: Plane<'_>, rows: Range<u32>, out: &mut [u8]) {
        let row_bytes = self.across.len() * 3;
        let source = self.across.source();
        let line = |y: u32| &plane.from(source.start, y)[..source.len() * 3];
        let (y, rest) = (rows.start, out);
        #[cfg(target_arch = "x86_64")]
        let (y, rest) = if self.kernel == Kernel::Avx2 { self.horizontal_by_fours(line, y, rest) } else { (y, rest) };
        for (y, target) in (y..rows.end).zip(rest.chunks_exact_mut(row_bytes)) {
            match self.kernel {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `Resampler::new` keeps these kernels only where the processor has them; with AVX2 comes SSE4.1.
                Kernel::Avx2 | Kernel::Sse41 => unsafe {
                    sse41::horizontal(line(y), &self.across, &self.packed_across, target);
                },
                #[cfg(target_arch = "aarch64")]
                // SAFETY: `Resampler::new` keeps this kernel only where the processor has NEON.
                Kernel::Neon => unsafe { neon::horizontal(line(y), &self.across, target) },
                _ => scalar::horizontal(line(y), source.start as usize, &self.across, target),
            }
        }
    }

    /// Resamples rows from `y` on, four at a time, as long as there is room for four; returns the next row and the rest.
    #[cfg(target_arch = "x86_64")]
    fn horizontal_by_fours<'a, 'b>(
        &self,
        line: impl Fn(u32) -> &'a [u8],
        mut y: u32,
        mut rest: &'b mut [u8],
    ) -> (u32, &'b mut [u8]) {
        let row_bytes = self.across.len() * 3;
        while rest.len() >= avx2::ROWS * row_bytes {
            let [a, b, c, d, tail] = split_rows(rest, row_bytes);
            let lines = [line(y), line(y + 1), line(y + 2), line(y + 3)];
            // SAFETY: `Resampler::new` keeps this kernel only where the processor has AVX2.
            unsafe { avx2::horizontal(lines, &self.across, &self.packed_across, [a, b, c, d]) };
            y += avx2::ROWS as u32;
            rest = tail;
        }
        (y, rest)
    }

    /// Resamples the given columns downwards, to the rows planned.
    fn vertical(&self, plane: Plane<'_>, columns: Range<u32>, out: &mut [u8]) {
        let row_bytes = columns.len() * 3;
        for (o, target) in out.chunks_exact_mut(row_bytes).enumerate() {
            let (first, weights) = self.down.get(o);
            let source = plane.from(columns.start, first as u32);
            match self.kernel {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `Resampler::new` keeps this kernel only where the processor has AVX2.
                Kernel::Avx2 => unsafe {
                    avx2::vertical(source, plane.stride, weights, &self.packed_down, o, target);
                },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `Resampler::new` keeps this kernel only where the processor has SSE4.1.
                Kernel::Sse41 => unsafe {
                    sse41::vertical(source, plane.stride, weights, &self.packed_down, o, target);
                },
                #[cfg(target_arch = "aarch64")]
                // SAFETY: `Resampler::new` keeps this kernel only where the processor has NEON.
                Kernel::Neon => unsafe { neon::vertical(source, plane.stride, weights, target) },
                _ => scalar::vertical(source, plane.stride, weights, target),
            }
        }
    }
}

/// Four rows from the front, and the rest.
#[cfg(target_arch = "x86_64")]
fn split_rows(rows: &mut [u8], row_bytes: usize) -> [&mut [u8]; 5] {
    let (a, rest) = rows.split_at_mut(row_bytes);
    let (b, rest) = rest.split_at_mut(row_bytes);
    let (c, rest) = rest.split_at_mut(row_bytes);
    let (d, rest) = rest.split_at_mut(row_bytes);
    [a, b, c, d, rest]
}

/// Sets the length without clearing what a kernel writes anyway, if the buffer had that length before.
fn resize_for_overwrite(out: &mut Vec<u8>, bytes: usize) {
    out.truncate(bytes);
    out.resize(bytes, 0);
}

/// The region of an image whose size does not change.
fn copy(plane: Plane<'_>, region: Region, out: &mut [u8]) {
    let row_bytes = region.width as usize * 3;
    for (y, target) in region.rows().zip(out.chunks_exact_mut(row_bytes)) {
        target.copy_from_slice(&plane.from(region.left, y)[..row_bytes]);
    }
}
