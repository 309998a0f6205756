//! One image of a page without the rest of the page.
//!
//! Rows of published Parquet files are shuffled, and are read here in the order of their keys: two images read in a row seldom
//! share a page, which may have ten megabytes. So when a page is first decoded, it is noted where in it each image lies. Later,
//! an image of a page that is not compressed is read from its place in the file; and one of a page that is compressed with
//! snappy is decompressed alone, because snappy's compressors start again every 64 KiB.

use super::page::PageSpan;
use bytes::Bytes;
use parquet::basic::Compression;
use parquet::data_type::ByteArray;
use std::io;
use tokengrid_store::Blob;

/// Bytes that snappy's compressors treat as a unit: nothing in a block refers to an earlier one.
const SNAPPY_BLOCK: usize = 64 << 10;

/// Where the images of a page lie.
#[derive(Debug)]
pub(super) struct Direct {
    /// Offset and length in the decompressed page; `None` for a row without an image.
    slices: Box<[Option<(u32, u32)>]>,
    /// Offset of the decompressed page's first byte in the file, or of what it is made of.
    body: u64,
    /// For snappy: the beginning of each block in the compressed page, and its end; and the bytes that the page has.
    snappy: Option<(Box<[u32]>, u32)>,
}

impl Direct {
    /// Notes where `images` lie, which were decoded from `page`, the decompressed form of `body`. `None` where they were
    /// copied by the decoder, or cannot be had one by one.
    pub(super) fn new(
        span: &PageSpan,
        compression: Compression,
        body: &[u8],
        page: &Bytes,
        images: &[Option<ByteArray>],
    ) -> Option<Direct> {
        let start = page.as_ptr() as usize;
        let slice = |image: &ByteArray| {
            if image.is_empty() {
                return Some((0, 0));
            }
            let at = (image.data().as_ptr() as usize).checked_sub(start)?;
            (at + image.len() <= page.len()).then_some((at as u32, image.len() as u32))
        };
        // The inner `None` is a missing image; the outer one an image that is not in the page.
        let slice_of = |image: &Option<ByteArray>| match image {
            None => Some(None),
            Some(image) => slice(image).map(Some),
        };
        let slices: Option<Box<[_]>> = images.iter().map(slice_of).collect();
        // Levels of version 2 lie before the compressed part: such pages are decoded whole.
        let snappy = match compression {
            Compression::UNCOMPRESSED => None,
            Compression::SNAPPY if !span.has_levels_in_front() => Some((snappy_blocks(body)?, page.len() as u32)),
            _ => return None,
        };
        Some(Direct { slices: slices?, body: span.body, snappy })
    }

    /// The image's length, if the row has one.
    pub(super) fn length(&self, row: usize) -> Option<u32> {
        self.slices[row].map(|(_, length)| length)
    }

    /// Appends the image of a row of the page.
    pub(super) fn read(&self, file: &Blob, row: usize, into: &mut Vec<u8>) -> io::Result<()> {
        let Some((at, length)) = self.slices[row].map(|(at, length)| (at as usize, length as usize)) else {
            return Ok(());
        };
        let Some((blocks, page_bytes)) = &self.snappy else {
            let start = into.len();
            into.resize(start + length, 0);
            return file.read_exact_at(&mut into[start..], self.body + at as u64);
        };
        let (first, last) = (at / SNAPPY_BLOCK, (at + length).div_ceil(SNAPPY_BLOCK).max(at / SNAPPY_BLOCK + 1));
        let last = last.min(blocks.len() - 1);
        let (from, to) = (blocks[first] as usize, blocks[last] as usize);
        let unpacked = (last * SNAPPY_BLOCK).min(*page_bytes as usize) - first * SNAPPY_BLOCK;
        // A separate stream: the length first, then the blocks unchanged.
        let mut packed = length_prefix(unpacked);
        let head = packed.len();
        packed.resize(head + to - from, 0);
        file.read_exact_at(&mut packed[head..], self.body + from as u64)?;
        let mut bytes = vec![0; unpacked];
        snap::raw::Decoder::new().decompress(&packed, &mut bytes).map_err(io::Error::other)?;
        let skip = at - first * SNAPPY_BLOCK;
        into.extend_from_slice(&bytes[skip..skip + length]);
        Ok(())
    }
}

/// A number as snappy writes it: seven bits per byte, the lowest first.
fn length_prefix(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// Where the blocks of a snappy stream begin, and last where the stream ends. `None` when elements reach over blocks, which the
/// format allows.
fn snappy_blocks(stream: &[u8]) -> Option<Box<[u32]>> {
    let mut at = 1 + stream.iter().take(5).position(|byte| byte & 0x80 == 0)?;
    let (mut unpacked, mut blocks) = (0usize, Vec::new());
    while at < stream.len() {
        let in_block = unpacked % SNAPPY_BLOCK;
        if in_block == 0 {
            blocks.push(u32::try_from(at).ok()?);
        }
        let element = Element::read(&stream[at..])?;
        if in_block + element.length > SNAPPY_BLOCK || element.back.is_some_and(|back| back > in_block) {
            return None;
        }
        unpacked += element.length;
        at = at.checked_add(element.size)?;
    }
    blocks.push(u32::try_from(stream.len()).ok()?);
    (at == stream.len()).then_some(blocks.into())
}

/// An element of a snappy stream: bytes as they are, or a copy of earlier ones.
struct Element {
    /// Bytes in the stream.
    size: usize,
    /// Bytes that it stands for.
    length: usize,
    /// How far back a copy begins.
    back: Option<usize>,
}

impl Element {
    fn read(stream: &[u8]) -> Option<Element> {
        let tag = usize::from(stream[0]);
        let number = |bytes: usize| {
            let bytes = stream.get(1..1 + bytes)?;
            Some(bytes.iter().rev().fold(0usize, |number, &byte| number << 8 | usize::from(byte)))
        };
        let short = tag >> 2;
        Some(match tag & 3 {
            0 => {
                // Lengths from 61 on follow in one to four bytes.
                let extra = short.saturating_sub(59);
                let length = if extra == 0 { short } else { number(extra)? } + 1;
                Element { size: 1 + extra + length, length, back: None }
            }
            1 => Element { size: 2, length: (short & 7) + 4, back: Some((tag >> 5) << 8 | number(1)?) },
            kind => {
                let bytes = if kind == 2 { 2 } else { 4 };
                Element { size: 1 + bytes, length: short + 1, back: Some(number(bytes)?) }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that are partly compressible.
    fn mixed(length: usize) -> Vec<u8> {
        let mut state = 7u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..length).map(|i| if i / 5000 % 2 == 0 { next() } else { (i / 100) as u8 }).collect()
    }

    #[test]
    fn blocks_of_a_stream_are_streams() {
        for length in [1, 100, SNAPPY_BLOCK - 1, SNAPPY_BLOCK, SNAPPY_BLOCK + 1, 5 * SNAPPY_BLOCK + 77] {
            let bytes = mixed(length);
            let stream = snap::raw::Encoder::new().compress_vec(&bytes).expect("snappy");
            let blocks = snappy_blocks(&stream).expect("blocks");
            assert_eq!(blocks.len(), length.div_ceil(SNAPPY_BLOCK) + 1);
            for (number, block) in bytes.chunks(SNAPPY_BLOCK).enumerate() {
                let packed = &stream[blocks[number] as usize..blocks[number + 1] as usize];
                let alone = [&length_prefix(block.len()), packed].concat();
                assert!(snap::raw::Decoder::new().decompress_vec(&alone).expect("a stream") == block);
            }
        }
    }

    #[test]
    fn streams_that_are_not_a_sequence_of_blocks_are_not_split() {
        // A literal of two blocks, a copy from the block before, and a truncated stream.
        let literal = |length: usize| {
            let head = [0xF8, (length - 1) as u8, ((length - 1) >> 8) as u8, ((length - 1) >> 16) as u8];
            [&head[..], &vec![7; length]].concat()
        };
        let long = [length_prefix(2 * SNAPPY_BLOCK), literal(2 * SNAPPY_BLOCK)].concat();
        assert!(snappy_blocks(&long).is_none());
        let copy = [length_prefix(SNAPPY_BLOCK + 4), literal(SNAPPY_BLOCK), vec![0b01, 4]].concat();
        assert!(snap::raw::Decoder::new().decompress_vec(&copy).is_ok() && snappy_blocks(&copy).is_none());
        assert!(snappy_blocks(&[length_prefix(9), vec![8 << 2, 1, 2]].concat()).is_none());
        assert!(snappy_blocks(&[]).is_none());
    }
}
