//! PNG: the order and tolerance of Pillow's reader, and the zlib stream of the IDAT chunks.
//!
//! Pillow's rules, which are this module's: the CRC of every chunk before the first IDAT must be right; IDAT's CRC is never
//! looked at; the zlib stream must decode, and its Adler-32 must be right if it has arrived when the last row has; what
//! follows the picture only has to be made of whole chunks, and IEND may be missing. Of an animation the first frame counts.
//!
//! Warnings count what a strict reader would refuse in an accepted file: a wrong checksum of image data, image data that
//! stops between two rows, and a file that does not end with IEND.

use super::gate::Gate;
use super::png_chunks::{Chunks, broken, truncated};
use super::png_header::Header;
use super::png_rows::{Layout, Rows};
use super::{DecodeError, RgbImage};
use flate2::{Crc, Decompress, FlushDecompress, Status};

/// Compressed bytes given to inflate at a time: Pillow's block size. It shows in one place only: an Adler-32 in the block
/// after the one that completes the picture is ignored.
const BLOCK_BYTES: usize = 65536;

/// Bytes at the end of a block that are inflated row by row: more than a decoder reads ahead.
const TAIL_BYTES: usize = 64;

/// Bytes of the number that stands before an animation's image data.
const SEQUENCE_BYTES: usize = 4;

pub(super) fn decode(bytes: &[u8], gate: &mut Gate<'_>, image: &mut RgbImage) -> Result<(), DecodeError> {
    let (mut data, layout) = ImageData::find(bytes)?;
    let header = &data.header;
    let (width, height) = (header.width, header.height);
    let area = header.area()?;
    let appends = area.appends((width, height), header.interlaced);
    let rgb_bytes = gate.admit(width, height, layout.work_bytes(area.width, appends))?.rgb_bytes;
    let (palette, interlaced) = (header.palette.clone(), header.interlaced);
    let has_palette = palette.is_some();
    let mut rows = Rows::new((width, height), area, layout, palette, interlaced, &mut image.pixels, rgb_bytes)?;
    let sound = inflate(&mut data, &mut rows)?;
    rows.finish(rgb_bytes);
    data.check_rest()?;
    data.header.check_transparency(has_palette)?;
    (image.width, image.height, image.warnings) = (width, height, data.warnings + u32::from(!sound));
    Ok(())
}

/// Feeds the image data to `rows` until the picture is complete; false if the data has ended before.
///
/// Pillow requests one row at a time, and none once its input is consumed. That determines the verdict on files that end or are wrong
/// near the end of the image data, so the last rows, and the last bytes of a block, are inflated in this way. All others are in
/// larger pieces: a call for a row of one pixel takes a hundred times as long as the row.
fn inflate(data: &mut ImageData<'_>, rows: &mut Rows<'_>) -> Result<bool, DecodeError> {
    let mut zlib = Decompress::new(true);
    loop {
        let block = data.next_block()?.ok_or_else(|| truncated("the image data ends too early"))?;
        let (mut used, head) = (0, block.len().saturating_sub(TAIL_BYTES));
        let mut at_row_end = false;
        while used < block.len() {
            let by_rows = used >= head || rows.is_near_end();
            let input = if by_rows { &block[used..] } else { &block[used..head] };
            let (consumed, produced) = (zlib.total_in(), zlib.total_out());
            let status = zlib
                .decompress(input, rows.unfilled(by_rows), FlushDecompress::None)
                .map_err(|e| broken(format!("image data: {}", e.message().unwrap_or("not a zlib stream"))))?;
            let (consumed, produced) = (zlib.total_in() - consumed, zlib.total_out() - produced);
            used += consumed as usize;
            if produced > 0 {
                at_row_end = rows.advance(produced as usize)?;
            }
            let at_stream_end = status == Status::StreamEnd;
            if rows.complete() || (at_stream_end && at_row_end) {
                return Ok(rows.complete());
            }
            // Within a row more input is needed, and after the stream's end none helps.
            if at_stream_end || (consumed == 0 && produced == 0) {
                break;
            }
        }
    }
}

/// The contents of consecutive chunks of image data.
struct ImageData<'a> {
    chunks: Chunks<'a>,
    header: Header,
    /// Other frames follow the picture, and Pillow stops reading at the next one's head.
    animated: bool,
    /// Of the current chunk's name and the data returned so far.
    crc: Crc,
    /// Bytes of the current chunk that have not been returned yet.
    left: usize,
    warnings: u32,
}

impl<'a> ImageData<'a> {
    /// Reads what stands before the image data.
    fn find(bytes: &'a [u8]) -> Result<(ImageData<'a>, Layout), DecodeError> {
        let mut chunks = Chunks::new(bytes);
        let mut header = Header::default();
        let head = loop {
            let head = chunks.next_head()?;
            match &head.kind {
                b"IDAT" | b"fdAT" => break head,
                b"IEND" => return Err(broken("no image data")),
                kind => header.read(kind, chunks.checked_data(&head)?)?,
            }
        };
        let layout = header.layout.ok_or_else(|| broken("no IHDR with a legal bit depth and colour type"))?;
        let animated = header.is_animated(&head.kind);
        let mut data = ImageData { chunks, header, animated, crc: Crc::new(), left: 0, warnings: 0 };
        data.begin(head.kind, head.length)?;
        Ok((data, layout))
    }

    /// Enters a chunk of image data.
    fn begin(&mut self, kind: [u8; 4], length: usize) -> Result<(), DecodeError> {
        self.left = length;
        self.crc = Crc::new();
        self.crc.update(&kind);
        if &kind == b"fdAT" {
            let number = self.chunks.take(SEQUENCE_BYTES);
            self.header.read(&kind, number)?;
            self.crc.update(number);
            self.left = length.checked_sub(SEQUENCE_BYTES).ok_or_else(|| truncated("fdAT is too short"))?;
        }
        Ok(())
    }

    /// The next block of compressed bytes; `None` at the end of the file or of the last chunk of image data.
    fn next_block(&mut self) -> Result<Option<&'a [u8]>, DecodeError> {
        while self.left == 0 {
            self.leave();
            let head = self.chunks.next_head()?;
            if !matches!(&head.kind, b"IDAT" | b"DDAT" | b"fdAT") {
                return Ok(None);
            }
            self.begin(head.kind, head.length)?;
        }
        let count = self.left.min(BLOCK_BYTES);
        self.left -= count;
        let block = self.chunks.take(count);
        self.crc.update(block);
        Ok(if block.is_empty() { None } else { Some(block) })
    }

    /// Moves past the current chunk's CRC, and warns if it is wrong or missing.
    fn leave(&mut self) {
        let sound = self.chunks.stored_crc() == Some(self.crc.sum());
        self.warnings += u32::from(!sound);
        self.chunks.skip_crc();
    }

    /// Checks what follows the picture: whole chunks until IEND, the end of the file, or something that is not a chunk.
    fn check_rest(&mut self) -> Result<(), DecodeError> {
        let rest = self.chunks.take(self.left);
        self.crc.update(rest);
        self.leave();
        loop {
            let Ok(head) = self.chunks.next_head() else {
                self.warnings += 1;
                return Ok(());
            };
            match &head.kind {
                b"IEND" => return Ok(()),
                b"fcTL" if self.animated => return Ok(()),
                b"IDAT" => {
                    self.chunks.data(&head)?;
                }
                kind => self.header.read(kind, self.chunks.data(&head)?)?,
            }
            self.chunks.skip_crc();
        }
    }
}
