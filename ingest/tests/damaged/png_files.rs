//! PNG: checksums, lengths, palettes, animation and bombs.

use crate::corpus::{Files, seed};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use std::io::Write;

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(kind);
    crc.update(data);
    [&(data.len() as u32).to_be_bytes(), &kind[..], data, &crc.sum().to_be_bytes()].concat()
}

fn ihdr(width: u32, height: u32, depth: u8, color: u8, interlace: u8) -> Vec<u8> {
    let sizes = [width.to_be_bytes(), height.to_be_bytes()].concat();
    chunk(b"IHDR", &[&sizes[..], &[depth, color, 0, 0, interlace]].concat())
}

/// Stored, not compressed: the bytes do not depend on a library's version.
fn stored(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::none());
    encoder.write_all(data).expect("zlib");
    encoder.finish().expect("zlib")
}

/// A zlib stream of `count` zeros, a thousandth of that in size, without a compressor.
fn zeros(count: usize) -> Vec<u8> {
    // One block of fixed codes: a zero, then as many copies of 258 bytes at distance 1 as are needed.
    let mut bits = Bits::default();
    bits.put(0b011, 3);
    bits.put_reversed(0x30, 8);
    for _ in 0..count.div_ceil(258) {
        bits.put_reversed(0xC5, 8); // length 258
        bits.put(0, 5); // distance 1
    }
    bits.put(0, 7); // end of block
    let zeros = 1 + count.div_ceil(258) * 258;
    let adler = ((zeros % 65521) as u32) << 16 | 1;
    [&[0x78, 0x01], &bits.bytes()[..], &adler.to_be_bytes()].concat()
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    buffer: u64,
    count: u32,
}

impl Bits {
    fn put(&mut self, value: u64, count: u32) {
        self.buffer |= value << self.count;
        self.count += count;
        while self.count >= 8 {
            self.bytes.push(self.buffer as u8);
            self.buffer >>= 8;
            self.count -= 8;
        }
    }

    /// Huffman codes stand with their highest bit first.
    fn put_reversed(&mut self, value: u64, count: u32) {
        self.put(value.reverse_bits() >> (64 - count), count);
    }

    fn bytes(mut self) -> Vec<u8> {
        self.put(0, (8 - self.count % 8) % 8);
        self.bytes
    }
}

fn png(chunks: &[Vec<u8>]) -> Vec<u8> {
    [SIGNATURE, &chunks.concat()].concat()
}

/// A 3 x 2 picture of palette indices.
fn indexed(palette: Option<&[u8]>, rows: &[u8], more: &[Vec<u8>]) -> Vec<u8> {
    let mut chunks = vec![ihdr(3, 2, 8, 3, 0)];
    chunks.extend(palette.map(|palette| chunk(b"PLTE", palette)));
    chunks.extend_from_slice(more);
    chunks.extend([chunk(b"IDAT", &stored(rows)), chunk(b"IEND", b"")]);
    png(&chunks)
}

/// A 2 x 2 gray picture with chunks before and after its data.
fn gray(before: &[Vec<u8>], after: &[Vec<u8>]) -> Vec<u8> {
    gray_with(&stored(&[0, 10, 20, 0, 30, 40]), before, after)
}

fn gray_with(data: &[u8], before: &[Vec<u8>], after: &[Vec<u8>]) -> Vec<u8> {
    let data = chunk(b"IDAT", data);
    png(&[&[ihdr(2, 2, 8, 0, 0)], before, &[data], after, &[chunk(b"IEND", b"")]].concat())
}

fn flipped(mut bytes: Vec<u8>, from_end: usize) -> Vec<u8> {
    let at = bytes.len() - from_end;
    bytes[at] ^= 0x10;
    bytes
}

fn with_length(mut chunk: Vec<u8>, length: u32) -> Vec<u8> {
    chunk[..4].copy_from_slice(&length.to_be_bytes());
    chunk
}

fn frame(number: u32, [width, height, left, top]: [u32; 4]) -> Vec<u8> {
    let fields = [number, width, height, left, top].map(u32::to_be_bytes).concat();
    chunk(b"fcTL", &[&fields[..], &[0, 1, 0, 10, 0, 0]].concat())
}

fn animation(frames: u32) -> Vec<u8> {
    chunk(b"acTL", &[frames.to_be_bytes(), [0; 4]].concat())
}

pub(crate) fn files() -> Files {
    let mut files = Files::new();
    let mut add = |name: &str, bytes: Vec<u8>| {
        assert!(files.insert(format!("png_{name}.png"), bytes).is_none(), "{name} twice");
    };
    sizes(&mut add);
    checksums(&mut add);
    palettes(&mut add);
    texts(&mut add);
    animations(&mut add);
    image_data(&mut add);
    files
}

type Add<'a> = &'a mut dyn FnMut(&str, Vec<u8>);

fn sizes(add: Add<'_>) {
    let data = chunk(b"IDAT", &stored(&[0; 200]));
    let sized = |head: Vec<u8>| png(&[head, data.clone(), chunk(b"IEND", b"")]);
    add("bomb_60000", sized(ihdr(60_000, 60_000, 8, 2, 0)));
    add("bomb_2_31", sized(ihdr(u32::MAX >> 1, u32::MAX >> 1, 8, 0, 0)));
    add("bomb_one_row", sized(ihdr(178_956_971, 1, 1, 0, 0)));
    add("large_claim", sized(ihdr(12_000, 12_000, 8, 2, 0)));
    add("large_claim_interlaced", sized(ihdr(12_000, 12_000, 8, 2, 1)));
    add("no_width", sized(ihdr(0, 5, 8, 0, 0)));
    add("no_height", sized(ihdr(5, 0, 8, 0, 0)));
    add("depth_3", sized(ihdr(2, 2, 3, 0, 0)));
    add("color_5", sized(ihdr(2, 2, 8, 5, 0)));
    add("interlace_9", sized(ihdr(2, 2, 8, 0, 9)));
    let mut filter = ihdr(2, 2, 8, 0, 0);
    filter[19] = 1;
    let body = filter[8..21].to_vec();
    add("filter_method", sized(chunk(b"IHDR", &body)));
    add("header_twice", png(&[ihdr(9, 9, 8, 2, 0), ihdr(2, 2, 8, 0, 0), data.clone()]));
    add("short_header", png(&[chunk(b"IHDR", &[0; 12]), data.clone()]));
    add("no_header", png(&[data]));
}

fn checksums(add: Add<'_>) {
    let rows = stored(&[0, 10, 20, 0, 30, 40]);
    let (head, data, end) = (ihdr(2, 2, 8, 0, 0), chunk(b"IDAT", &rows), chunk(b"IEND", b""));
    add("crc_header", png(&[flipped(head.clone(), 2), data.clone(), end.clone()]));
    add("crc_data", png(&[head.clone(), flipped(data.clone(), 2), end.clone()]));
    add("crc_end", png(&[head.clone(), data.clone(), flipped(end.clone(), 2)]));
    add("crc_text_before", gray(&[flipped(chunk(b"tEXt", b"a\0b"), 1)], &[]));
    add("crc_text_after", gray(&[], &[flipped(chunk(b"tEXt", b"a\0b"), 1)]));
    add("adler", png(&[head.clone(), flipped(data.clone(), 5), end.clone()]));
    add("adler_missing", gray_with(&rows[..rows.len() - 4], &[], &[]));
    add("adler_half", gray_with(&rows[..rows.len() - 2], &[], &[]));
    add("adler_in_next_chunk", {
        let (first, second) = rows.split_at(rows.len() - 4);
        png(&[head.clone(), chunk(b"IDAT", first), chunk(b"IDAT", &[second, b"x"].concat()), end.clone()])
    });
    add("length_longer", png(&[head.clone(), with_length(data.clone(), rows.len() as u32 + 20), end.clone()]));
    add("length_shorter", png(&[head.clone(), with_length(data.clone(), rows.len() as u32 - 3), end.clone()]));
    add("length_huge", png(&[head.clone(), with_length(data.clone(), u32::MAX), end.clone()]));
    add("length_header", png(&[with_length(head.clone(), 14), data.clone(), end]));
    add("no_end", png(&[head.clone(), data.clone()]));
    add("end_first", png(&[chunk(b"IEND", b""), head.clone(), data.clone()]));
    add("no_data", png(&[head.clone(), chunk(b"IEND", b"")]));
    add("half_chunk_after", png(&[head.clone(), data.clone(), chunk(b"tEXt", b"key\0value")[..12].to_vec()]));
    add("name_with_spaces", png(&[head, chunk(b"te t", b""), data]));
}

fn palettes(add: Add<'_>) {
    let rows = [0, 0, 1, 200, 0, 2, 3, 255];
    let colors: Vec<u8> = (0..768).map(|i| (i * 7 % 256) as u8).collect();
    add("palette_full", indexed(Some(&colors), &rows, &[]));
    add("palette_overrun", indexed(Some(&colors[..6]), &rows, &[]));
    add("palette_missing", indexed(None, &rows, &[]));
    add("palette_empty", indexed(Some(&[]), &rows, &[]));
    add("palette_part", indexed(Some(&colors[..7]), &rows, &[]));
    for bytes in [769, 770, 771, 900] {
        let long: Vec<u8> = colors.iter().copied().cycle().take(bytes).collect();
        add(&format!("palette_{bytes}"), indexed(Some(&long), &rows, &[]));
    }
    add("transparency_long", indexed(Some(&colors), &rows, &[chunk(b"tRNS", &[0; 300])]));
    add("transparency_without_palette", indexed(None, &rows, &[chunk(b"tRNS", &[255, 0, 255])]));
    add("transparency_of_two_without_palette", indexed(None, &rows, &[chunk(b"tRNS", &[255, 0, 0])]));
    add("transparency_line_feed", indexed(None, &rows, &[chunk(b"tRNS", b"\0\n")]));
    add("transparency_short", gray(&[chunk(b"tRNS", &[0])], &[]));
    add("transparency_large", gray(&[chunk(b"tRNS", &[255, 255])], &[]));
}

fn texts(add: Add<'_>) {
    let bomb = zeros(50_000_000);
    add("text_bomb", gray(&[chunk(b"zTXt", &[b"k\0\0", &bomb[..]].concat())], &[]));
    add("text_bomb_after", gray(&[], &[chunk(b"zTXt", &[b"k\0\0", &bomb[..]].concat())]));
    add("text_bomb_itxt", gray(&[chunk(b"iTXt", &[b"k\0\x01\0\0\0", &bomb[..]].concat())], &[]));
    add("profile_bomb", gray(&[chunk(b"iCCP", &[b"k\0\0", &bomb[..]].concat())], &[]));
    add("text_mebibyte", gray(&[chunk(b"zTXt", &[b"k\0\0", &zeros(1 << 20)[..]].concat())], &[]));
    add("text_below_mebibyte", gray(&[chunk(b"zTXt", &[b"k\0\0", &zeros((1 << 20) - 300)[..]].concat())], &[]));
    add("text_broken", gray(&[chunk(b"zTXt", b"k\0\0not zlib")], &[]));
    add("text_method", gray(&[chunk(b"zTXt", b"k\0\x01data")], &[]));
    add("text_without_key", gray(&[chunk(b"tEXt", b"\0value")], &[]));
    add("profile_method", gray(&[chunk(b"iCCP", b"k\0\x01data")], &[]));
    add("profile_empty", gray(&[chunk(b"iCCP", b"")], &[]));
    add("profile_broken", gray(&[chunk(b"iCCP", b"k\0\0data")], &[]));
    add("gamma_short", gray(&[chunk(b"gAMA", &[0; 3])], &[]));
    add("physical_short_after", gray(&[], &[chunk(b"pHYs", &[0; 8])]));
}

fn animations(add: Add<'_>) {
    let whole = [2, 2, 0, 0];
    let rows = stored(&[0, 10, 20, 0, 30, 40]);
    add("frames_none", gray(&[animation(0), frame(0, whole)], &[]));
    add("frames_twice", gray(&[animation(2), animation(2), frame(0, whole)], &[]));
    add("frame_order", gray(&[animation(2), frame(1, whole)], &[]));
    add("frame_repeated", gray(&[animation(2), frame(0, whole), frame(0, whole)], &[]));
    add("frame_outside", gray(&[animation(2), frame(0, [2, 2, 1, 0])], &[]));
    add("frame_overflow", gray(&[animation(2), frame(0, [2, 2, u32::MAX, 0])], &[]));
    add("frame_small", gray(&[animation(2), frame(0, [1, 2, 1, 0])], &[]));
    add("frame_empty", gray(&[animation(2), frame(0, [0, 2, 1, 0])], &[]));
    add("frame_without_animation", gray(&[frame(0, [1, 2, 1, 0])], &[]));
    add("frame_short", gray(&[chunk(b"fcTL", &[0; 25])], &[]));
    let frame_data = |number: u32| chunk(b"fdAT", &[&number.to_be_bytes(), &rows[..]].concat());
    let end = chunk(b"IEND", b"");
    add("frame_data_first", png(&[ihdr(2, 2, 8, 0, 0), animation(1), frame(0, whole), frame_data(1), end.clone()]));
    add("frame_data_order", png(&[ihdr(2, 2, 8, 0, 0), animation(1), frame(0, whole), frame_data(2), end]));
    add("second_frame_order", gray(&[animation(2), frame(0, whole)], &[frame(7, whole), frame_data(8)]));
    add("second_frame_without_animation", gray(&[], &[frame(7, whole)]));
    let mut cut = seed("animated.png");
    let at = cut.windows(4).rposition(|w| w == b"fdAT").expect("a second frame");
    cut.truncate(at + 10);
    add("second_frame_cut", cut);
}

fn image_data(add: Add<'_>) {
    add("too_few_rows", gray_with(&stored(&[0, 10, 20]), &[], &[]));
    add("half_row", gray_with(&stored(&[0, 10, 20, 0, 30]), &[], &[]));
    add("too_many_rows", gray_with(&stored(&[0, 10, 20, 0, 30, 40, 0, 50, 60]), &[], &[]));
    add("row_filter_5", gray_with(&stored(&[5, 10, 20, 0, 30, 40]), &[], &[]));
    add("not_zlib", gray_with(b"not a zlib stream", &[], &[]));
    add("data_bomb", gray_with(&zeros(300_000_000), &[], &[]));
    add("data_empty", gray_with(&[], &[], &[]));
    let interrupted = stored(&[0, 10, 20, 0, 30, 40]);
    let (first, second) = interrupted.split_at(9);
    let parts = [ihdr(2, 2, 8, 0, 0), chunk(b"IDAT", first), chunk(b"tEXt", b"a\0b"), chunk(b"IDAT", second)];
    add("data_interrupted", png(&parts));
    let indexed_rows = [ihdr(3, 4, 8, 3, 0), chunk(b"PLTE", &[9; 9]), chunk(b"IDAT", &stored(&[0, 1, 2, 0]))];
    add("too_few_indexed_rows", png(&indexed_rows));
    let interlaced = [ihdr(5, 5, 8, 3, 1), chunk(b"PLTE", &[9; 9]), chunk(b"IDAT", &stored(&[0, 1, 0, 2]))];
    add("too_few_interlaced_rows", png(&interlaced));
}
