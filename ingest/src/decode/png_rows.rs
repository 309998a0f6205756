//! PNG rows: undoing the filters, the seven passes of interlacing, and samples of every depth to RGB.

use super::palette::Palette;
use super::png_header::Area;
use super::{DecodeError, Format, reserve, zero, zeroed};

/// Bit depth and colour type, one of the fifteen legal pairs.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    depth: u8,
    color: u8,
}

impl Layout {
    pub(super) fn new(depth: u8, color: u8) -> Option<Layout> {
        let legal = match color {
            0 => matches!(depth, 1 | 2 | 4 | 8 | 16),
            3 => matches!(depth, 1 | 2 | 4 | 8),
            2 | 4 | 6 => matches!(depth, 8 | 16),
            _ => false,
        };
        legal.then_some(Layout { depth, color })
    }

    pub(super) fn indexed(self) -> bool {
        self.color == 3
    }

    /// Bytes that a tRNS chunk must have for its value to be read.
    pub(super) fn transparency_bytes(self) -> usize {
        match self.color {
            0 => 2,
            2 => 6,
            _ => 0,
        }
    }

    fn channels(self) -> usize {
        match self.color {
            2 => 3,
            4 => 2,
            6 => 4,
            _ => 1,
        }
    }

    fn pixel_bits(self) -> usize {
        self.channels() * usize::from(self.depth)
    }

    /// Memory for undoing the filters of rows of `width` pixels, beside the picture: two rows, and one in RGB if rows are not
    /// appended to the picture.
    pub(super) fn work_bytes(self, width: u32, appends: bool) -> u64 {
        let rgb_bytes = if appends { 0 } else { 3 * u64::from(width) };
        2 * self.row_bytes(width as usize) as u64 + rgb_bytes
    }

    /// Bytes of a row of `width` pixels, without the filter byte.
    fn row_bytes(self, width: usize) -> usize {
        (width * self.pixel_bits()).div_ceil(8)
    }

    /// The colour of pixels without a row.
    fn untouched(self, palette: &Palette) -> [u8; 3] {
        if self.indexed() { palette.color(0) } else { [0; 3] }
    }

    /// Appends `width` pixels to `out` as RGB.
    fn append_rgb(self, row: &[u8], width: usize, palette: &Palette, out: &mut Vec<u8>) {
        let gray = |v: u8| [v; 3];
        match (self.color, self.depth) {
            (2, 8) => out.extend_from_slice(row),
            (2, _) => out.extend(row.chunks_exact(6).flat_map(|p| [p[0], p[2], p[4]])),
            (4, 8) => out.extend(row.chunks_exact(2).flat_map(|p| gray(p[0]))),
            (4, _) => out.extend(row.chunks_exact(4).flat_map(|p| gray(p[0]))),
            (6, 8) => out.extend(row.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]])),
            (6, _) => out.extend(row.chunks_exact(8).flat_map(|p| [p[0], p[2], p[4]])),
            (3, 8) => palette.extend(out, row),
            (3, depth) => out.extend(samples(row, depth).take(width).flat_map(|v| palette.color(v))),
            (_, 8) => out.extend(row.iter().flat_map(|&v| gray(v))),
            // Pillow keeps 16-bit gray unchanged and saturates it in the conversion to RGB, where 16-bit colour keeps the high byte.
            (_, 16) => out.extend(row.chunks_exact(2).flat_map(|p| gray(if p[0] == 0 { p[1] } else { 255 }))),
            (_, depth) => {
                let step = 255 / ((1 << depth) - 1);
                out.extend(samples(row, depth).take(width).flat_map(|v| gray(v * step)));
            }
        }
    }
}

/// The samples of `depth` < 8 bits in a row, the leftmost in the highest bits.
fn samples(row: &[u8], depth: u8) -> impl Iterator<Item = u8> {
    let mask = ((1u16 << depth) - 1) as u8;
    let samples_of = move |byte: u8| (0..8 / depth).rev().map(move |slot| (byte >> (slot * depth)) & mask);
    row.iter().flat_map(move |&byte| samples_of(byte))
}

/// Where the pixels of one interlacing pass go.
#[derive(Clone, Copy)]
struct Pass {
    x0: usize,
    y0: usize,
    dx: usize,
    dy: usize,
}

impl Pass {
    /// Columns of the pass in a picture of `width`.
    fn width(self, width: usize) -> usize {
        width.saturating_sub(self.x0).div_ceil(self.dx)
    }

    /// Bytes of the pass's rows, filter bytes included.
    fn bytes(self, layout: Layout, width: usize, height: usize) -> u64 {
        let (columns, rows) = (self.width(width), height.saturating_sub(self.y0).div_ceil(self.dy));
        if columns == 0 { 0 } else { (1 + layout.row_bytes(columns)) as u64 * rows as u64 }
    }
}

const WHOLE: [Pass; 1] = [Pass { x0: 0, y0: 0, dx: 1, dy: 1 }];

const ADAM7: [Pass; 7] = [
    Pass { x0: 0, y0: 0, dx: 8, dy: 8 },
    Pass { x0: 4, y0: 0, dx: 8, dy: 8 },
    Pass { x0: 0, y0: 4, dx: 4, dy: 8 },
    Pass { x0: 2, y0: 0, dx: 4, dy: 4 },
    Pass { x0: 0, y0: 2, dx: 2, dy: 4 },
    Pass { x0: 1, y0: 0, dx: 2, dy: 2 },
    Pass { x0: 0, y0: 1, dx: 1, dy: 2 },
];

/// The least size of the blocks in which inflated bytes are taken, where it is not row by row.
const STAGE_BYTES: usize = 1 << 16;

/// The end of a picture that is taken row by row, in bytes.
const LAST_BYTES: u64 = 1 << 15;

/// Takes the inflated bytes and writes RGB row by row.
pub(super) struct Rows<'a> {
    /// Columns of the picture.
    stride: usize,
    /// The part of the picture that the rows fill.
    left: usize,
    top: usize,
    width: usize,
    height: usize,
    layout: Layout,
    palette: Palette,
    passes: &'static [Pass],
    pass: usize,
    /// Columns of the pass.
    columns: usize,
    y: usize,
    /// Inflated bytes of rows, each with its filter byte in front. At most the last row is incomplete.
    stage: Vec<u8>,
    /// Bytes of `stage` that hold data.
    filled: usize,
    /// Bytes of the picture that have not been inflated.
    left_bytes: u64,
    /// The row above, with its filter byte.
    above: Vec<u8>,
    /// Rows of the whole picture follow one another, and are appended.
    appends: bool,
    /// One converted row, where rows are not appended.
    row_rgb: Vec<u8>,
    pixels: &'a mut Vec<u8>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(
        (width, height): (u32, u32),
        area: Area,
        layout: Layout,
        palette: Option<Palette>,
        interlaced: bool,
        pixels: &'a mut Vec<u8>,
        rgb_bytes: usize,
    ) -> Result<Rows<'a>, DecodeError> {
        let palette = palette.unwrap_or_else(Palette::black);
        let appends = area.appends((width, height), interlaced);
        let (width, stride) = (area.width as usize, width as usize);
        if appends {
            reserve(pixels, rgb_bytes)?;
        } else {
            // Rows are written all over the picture.
            zero(pixels, rgb_bytes)?;
            if layout.untouched(&palette) != [0; 3] {
                pixels.chunks_exact_mut(3).for_each(|pixel| pixel.copy_from_slice(&layout.untouched(&palette)));
            }
        }
        let row = 1 + layout.row_bytes(width);
        let passes: &[Pass] = if interlaced { &ADAM7 } else { &WHOLE };
        let height = area.height as usize;
        let left_bytes = passes.iter().map(|pass| pass.bytes(layout, width, height)).sum();
        Ok(Rows {
            stride,
            left: area.left as usize,
            top: area.top as usize,
            width,
            height,
            layout,
            palette,
            passes,
            pass: 0,
            columns: passes[0].width(width),
            y: 0,
            stage: zeroed(row.max(STAGE_BYTES))?,
            filled: 0,
            left_bytes,
            above: zeroed(row)?,
            appends,
            row_rgb: Vec::new(),
            pixels,
        })
    }

    /// Filter byte and data of the next row.
    fn row_end(&self) -> usize {
        1 + self.layout.row_bytes(self.columns)
    }

    /// Whether the rest of the picture is to be inflated row by row.
    pub(super) fn is_near_end(&self) -> bool {
        self.left_bytes <= LAST_BYTES
    }

    /// Where inflated bytes go next: to the end of the row, or as far as there is room before the [end](Rows::is_near_end). Not
    /// empty until [`Rows::complete`], or the end is near.
    pub(super) fn unfilled(&mut self, by_rows: bool) -> &mut [u8] {
        let end = if by_rows {
            self.row_end()
        } else {
            let room = (self.stage.len() - self.filled) as u64;
            self.filled + room.min(self.left_bytes.saturating_sub(LAST_BYTES)) as usize
        };
        &mut self.stage[self.filled..end]
    }

    pub(super) fn complete(&self) -> bool {
        self.pass == self.passes.len()
    }

    /// Accounts for `count` bytes, more than none, written to [`Rows::unfilled`]; true when they end with a row.
    pub(super) fn advance(&mut self, count: usize) -> Result<bool, DecodeError> {
        self.filled += count;
        self.left_bytes -= count as u64;
        let mut stage = std::mem::take(&mut self.stage);
        let used = self.take_rows(&mut stage[..self.filled]);
        self.stage = stage;
        let used = used?;
        if used > 0 {
            self.stage.copy_within(used..self.filled, 0);
            self.filled -= used;
        }
        Ok(self.filled == 0)
    }

    /// Writes the complete rows of `staged`, and returns how many bytes they were.
    fn take_rows(&mut self, staged: &mut [u8]) -> Result<usize, DecodeError> {
        let bytes_per_pixel = self.layout.pixel_bits().div_ceil(8);
        let mut used = 0;
        while !self.complete() {
            let end = self.row_end();
            let Some(row) = staged.get_mut(used..used + end) else { break };
            unfilter(row, &self.above[..end], bytes_per_pixel)?;
            self.emit(&row[1..]);
            self.above[..end].copy_from_slice(row);
            self.next_row();
            used += end;
        }
        Ok(used)
    }

    /// Writes a row's pixels.
    fn emit(&mut self, row: &[u8]) {
        if self.appends {
            self.layout.append_rgb(row, self.columns, &self.palette, self.pixels);
            return;
        }
        self.row_rgb.clear();
        self.layout.append_rgb(row, self.columns, &self.palette, &mut self.row_rgb);
        let pass = self.passes[self.pass];
        let start = (self.top + self.y) * self.stride + self.left;
        let line = &mut self.pixels[start * 3..][..self.width * 3];
        let targets = line.chunks_exact_mut(3).skip(pass.x0).step_by(pass.dx);
        for (target, color) in targets.zip(self.row_rgb.chunks_exact(3)) {
            target.copy_from_slice(color);
        }
    }

    /// Goes to the next row that has pixels, in this pass or a later one.
    fn next_row(&mut self) {
        self.y += self.passes[self.pass].dy;
        while self.y >= self.height || self.columns == 0 {
            self.pass += 1;
            if self.complete() {
                return;
            }
            self.y = self.passes[self.pass].y0;
            self.columns = self.passes[self.pass].width(self.width);
            self.above.fill(0); // a pass begins under a black row
        }
    }

    /// Rows that are missing from the stream have the colour of zero, as in Pillow.
    pub(super) fn finish(self, rgb_bytes: usize) {
        let missing = (rgb_bytes - self.pixels.len()) / 3;
        self.pixels.extend(std::iter::repeat_n(self.layout.untouched(&self.palette), missing).flatten());
    }
}

/// Undoes a row's filter in place. `row` and `above` begin with the filter byte; `bpp` is a pixel's size in bytes, at least 1.
fn unfilter(row: &mut [u8], above: &[u8], bpp: usize) -> Result<(), DecodeError> {
    let (filter, row) = (row[0], &mut row[1..]);
    let above = &above[1..];
    match filter {
        0 => {}
        1 => {
            for i in bpp..row.len() {
                row[i] = row[i].wrapping_add(row[i - bpp]);
            }
        }
        2 => row.iter_mut().zip(above).for_each(|(x, up)| *x = x.wrapping_add(*up)),
        3 => {
            for i in 0..row.len() {
                let left = if i < bpp { 0 } else { u16::from(row[i - bpp]) };
                row[i] = row[i].wrapping_add(((left + u16::from(above[i])) / 2) as u8);
            }
        }
        4 => {
            for i in 0..row.len() {
                let (left, corner) = if i < bpp { (0, 0) } else { (row[i - bpp], above[i - bpp]) };
                row[i] = row[i].wrapping_add(paeth(left, above[i], corner));
            }
        }
        _ => return Err(DecodeError::broken(Format::Png, format!("row filter {filter}"))),
    }
    Ok(())
}

/// The one of left, up and corner that is nearest to left + up - corner, in this order.
fn paeth(left: u8, up: u8, corner: u8) -> u8 {
    let (a, b, c) = (i16::from(left), i16::from(up), i16::from(corner));
    let (from_left, from_up, from_corner) = ((b - c).abs(), (a - c).abs(), (a + b - 2 * c).abs());
    if from_left <= from_up && from_left <= from_corner {
        left
    } else if from_up <= from_corner {
        up
    } else {
        corner
    }
}
