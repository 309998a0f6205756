//! Pages of a column: where they lie, and what they hold when decompressed.
//!
//! Headers and compression are read here and not by the `parquet` crate, for two reasons: a page can be found and read alone,
//! and none takes more memory than its header says, however it was made.

use super::thrift::{Field, Reader};
use bytes::Bytes;
use parquet::basic::{Compression, Encoding};
use parquet::column::page::Page;
use std::io::{self, Read};
use tokengrid_store::Blob;

/// Largest page that is decompressed, in bytes.
pub(super) const MAX_PAGE_BYTES: u32 = 512 << 20;

/// Tries for the length of a header, in bytes. It is some dozen bytes, but statistics may make it longer.
const HEADER_WINDOWS: [usize; 3] = [512, 64 << 10, 4 << 20];

/// A column of a row group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk {
    pub(super) start: u64,
    pub(super) length: u64,
    pub(super) rows: u64,
    pub(super) compression: Compression,
}

/// A page without what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageSpan {
    /// Offset of the page's body in the file.
    pub(super) body: u64,
    pub(super) compressed: u32,
    pub(super) uncompressed: u32,
    crc: Option<u32>,
    pub(super) num_values: u32,
    encoding: Encoding,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Dictionary,
    Data { def_levels: Encoding, rep_levels: Encoding },
    DataV2 { num_nulls: u32, num_rows: u32, def_levels_bytes: u32, rep_levels_bytes: u32, is_compressed: bool },
}

/// The pages of a chunk, in order.
#[derive(Debug, Default)]
pub(super) struct Pages {
    pub(super) dictionary: Option<PageSpan>,
    /// Data pages, each with its first row.
    pub(super) data: Vec<(u64, PageSpan)>,
    /// Why the chunk has fewer rows than it should have.
    pub(super) problem: Option<String>,
}

impl Pages {
    /// Finds the pages of a chunk by their headers.
    pub(super) fn locate(file: &Blob, chunk: &Chunk) -> Pages {
        let mut pages = Pages::default();
        let end = chunk.start + chunk.length;
        let (mut at, mut row) = (chunk.start, 0);
        while at < end && row < chunk.rows {
            match read_header(file, at, end) {
                Err(problem) => {
                    pages.problem = Some(format!("page header at byte {at}: {problem}"));
                    return pages;
                }
                Ok((None, next)) => at = next,
                Ok((Some(page), next)) => {
                    if page.kind == Kind::Dictionary {
                        pages.dictionary = Some(page);
                    } else {
                        // A page that claims more would be decoded into as many values.
                        if u64::from(page.num_values) > chunk.rows - row {
                            let (values, rows) = (page.num_values, chunk.rows);
                            pages.problem = Some(format!("a page of {values} values at row {row} of {rows}"));
                            return pages;
                        }
                        pages.data.push((row, page));
                        row += u64::from(page.num_values);
                    }
                    at = next;
                }
            }
        }
        if row < chunk.rows {
            pages.problem = Some(format!("the column ends after {row} of {} rows", chunk.rows));
        }
        pages
    }

    /// The data page that holds a row of the chunk.
    pub(super) fn page_of(&self, row: u64) -> Option<usize> {
        let page = self.data.partition_point(|(first, _)| *first <= row).checked_sub(1)?;
        let (first, span) = self.data[page];
        (row < first + u64::from(span.num_values)).then_some(page)
    }
}

/// The header at `at` and the offset after its page. `None` for a kind of page that is to be passed over.
fn read_header(file: &Blob, at: u64, end: u64) -> Result<(Option<PageSpan>, u64), String> {
    for window in HEADER_WINDOWS {
        let mut bytes = vec![0; window.min((end - at) as usize)];
        let read = file.read_up_to(&mut bytes, at).map_err(|error| format!("cannot be read: {error}"))?;
        let Some(header) = RawHeader::parse(&bytes[..read]) else { continue };
        let body = at + header.length as u64;
        let next = body + u64::from(header.compressed);
        if next > end {
            return Err(format!("{} bytes of data, which go beyond the column", header.compressed));
        }
        return header.span(body).map(|span| (span, next));
    }
    Err("not a page header".to_owned())
}

/// The fields of a header.
#[derive(Default)]
struct RawHeader {
    length: usize,
    kind: i32,
    compressed: u32,
    uncompressed: u32,
    crc: Option<u32>,
    details: Details,
}

/// The fields of the kind of page that it is, in the order of their numbers.
#[derive(Default)]
struct Details {
    numbers: [u32; 8],
    is_uncompressed: bool,
}

impl RawHeader {
    fn parse(bytes: &[u8]) -> Option<RawHeader> {
        let (mut header, mut seen) = (RawHeader::default(), 0);
        let mut reader = Reader::new(bytes);
        reader.fields(|reader, field| {
            seen |= 1u32 << field.id.clamp(0, 31);
            match field.id {
                1 => header.kind = reader.int(field)?,
                2 => header.uncompressed = reader.size(field)?,
                3 => header.compressed = reader.size(field)?,
                4 => header.crc = Some(reader.int(field)? as u32),
                5 | 7 | 8 => header.details = Details::parse(reader)?,
                _ => reader.skip(field)?,
            }
            Some(())
        })?;
        header.length = reader.position();
        (seen & 0b1110 == 0b1110).then_some(header)
    }

    fn span(self, body: u64) -> Result<Option<PageSpan>, String> {
        let RawHeader { kind, compressed, uncompressed, crc, details, .. } = self;
        let numbers = details.numbers;
        let (kind, number) = match kind {
            0 => {
                let (def_levels, rep_levels) = (encoding(numbers[3])?, encoding(numbers[4])?);
                (Kind::Data { def_levels, rep_levels }, numbers[2])
            }
            1 => return Ok(None),
            2 => (Kind::Dictionary, numbers[2]),
            3 => {
                let [_, _, num_nulls, num_rows, _, def_levels_bytes, rep_levels_bytes, _] = numbers;
                let is_compressed = !details.is_uncompressed;
                let kind = Kind::DataV2 { num_nulls, num_rows, def_levels_bytes, rep_levels_bytes, is_compressed };
                (kind, numbers[4])
            }
            other => return Err(format!("page type {other}")),
        };
        if uncompressed > MAX_PAGE_BYTES {
            return Err(format!("a page of {uncompressed} bytes; the limit is {MAX_PAGE_BYTES}"));
        }
        let encoding = encoding(number)?;
        Ok(Some(PageSpan { body, compressed, uncompressed, crc, num_values: numbers[1], encoding, kind }))
    }
}

impl Details {
    fn parse(reader: &mut Reader<'_>) -> Option<Details> {
        let mut details = Details::default();
        reader.fields(|reader, field: Field| {
            match field.id {
                // Whether values are compressed (version 2). Others are whether a dictionary is sorted, and statistics.
                7 if field.is_truth() => details.is_uncompressed = !reader.truth(field)?,
                1..=6 if field.is_integer() => details.numbers[field.id as usize] = reader.size(field)?,
                _ => reader.skip(field)?,
            }
            Some(())
        })?;
        Some(details)
    }
}

/// Encodings by number.
fn encoding(number: u32) -> Result<Encoding, String> {
    Ok(match number {
        0 => Encoding::PLAIN,
        2 => Encoding::PLAIN_DICTIONARY,
        3 => Encoding::RLE,
        5 => Encoding::DELTA_BINARY_PACKED,
        6 => Encoding::DELTA_LENGTH_BYTE_ARRAY,
        7 => Encoding::DELTA_BYTE_ARRAY,
        8 => Encoding::RLE_DICTIONARY,
        9 => Encoding::BYTE_STREAM_SPLIT,
        other => return Err(format!("values in encoding {other}, which is not known or no longer used")),
    })
}

impl PageSpan {
    /// Whether values are numbers of entries of the dictionary.
    pub(super) fn needs_dictionary(&self) -> bool {
        matches!(self.encoding, Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY)
    }

    /// Whether levels lie before the compressed part of the page.
    pub(super) fn has_levels_in_front(&self) -> bool {
        matches!(self.kind, Kind::DataV2 { .. })
    }

    /// Reads the page as stored.
    pub(super) fn body(&self, file: &Blob) -> Result<Bytes, String> {
        let mut body = vec![0; self.compressed as usize];
        let read = file.read_up_to(&mut body, self.body).map_err(|error| format!("cannot be read: {error}"))?;
        if read < body.len() {
            return Err("the file ends inside the page".to_owned());
        }
        if self.crc.is_some_and(|crc| crc != checksum(&body)) {
            return Err("its checksum does not hold".to_owned());
        }
        Ok(body.into())
    }

    /// Decompresses a page.
    pub(super) fn unpack(&self, body: &Bytes, compression: Compression) -> Result<Page, String> {
        self.decode(self.decompress(body, compression)?)
    }

    fn decompress(&self, body: &Bytes, compression: Compression) -> Result<Bytes, String> {
        // Levels of version 2 lie before the compressed part.
        let (levels, compression) = match self.kind {
            Kind::DataV2 { def_levels_bytes, rep_levels_bytes, is_compressed, .. } => {
                let levels = def_levels_bytes.checked_add(rep_levels_bytes).ok_or("levels without end")?;
                (levels, if is_compressed { compression } else { Compression::UNCOMPRESSED })
            }
            _ => (0, compression),
        };
        let size = self.uncompressed.checked_sub(levels).ok_or("levels larger than the page")? as usize;
        let packed = body.get(levels as usize..).ok_or("levels larger than the page")?;
        let wrong_size = || "not of the size that it says".to_owned();
        if compression == Compression::UNCOMPRESSED {
            return if packed.len() == size { Ok(body.clone()) } else { Err(wrong_size()) };
        }
        let mut bytes = body[..levels as usize].to_vec();
        if size > 0 {
            unpack(compression, packed, size, &mut bytes)?;
        }
        if bytes.len() == self.uncompressed as usize { Ok(bytes.into()) } else { Err(wrong_size()) }
    }

    fn decode(&self, buf: Bytes) -> Result<Page, String> {
        let (num_values, encoding, statistics) = (self.num_values, self.encoding, None);
        Ok(match self.kind {
            Kind::Dictionary => Page::DictionaryPage { buf, num_values, encoding, is_sorted: false },
            Kind::Data { def_levels, rep_levels } => Page::DataPage {
                buf,
                num_values,
                encoding,
                def_level_encoding: def_levels,
                rep_level_encoding: rep_levels,
                statistics,
            },
            Kind::DataV2 { num_nulls, num_rows, def_levels_bytes, rep_levels_bytes, is_compressed } => {
                if num_rows != num_values || num_nulls > num_values {
                    return Err("rows and values differ".to_owned());
                }
                Page::DataPageV2 {
                    buf,
                    num_values,
                    encoding,
                    num_nulls,
                    num_rows,
                    def_levels_byte_len: def_levels_bytes,
                    rep_levels_byte_len: rep_levels_bytes,
                    is_compressed,
                    statistics,
                }
            }
        })
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// Appends what `packed` unpacks to, at most `size` bytes of it: what a header promises, and no bomb.
fn unpack(compression: Compression, packed: &[u8], size: usize, into: &mut Vec<u8>) -> Result<(), String> {
    let failed = |error: io::Error| format!("cannot be decompressed ({compression}): {error}");
    let limited = |reader: &mut dyn Read, into: &mut Vec<u8>| {
        reader.take(size as u64 + 1).read_to_end(into).map(|_| ()).map_err(failed)
    };
    match compression {
        Compression::SNAPPY => unpack_snappy(packed, size, into).map_err(|error| failed(io::Error::other(error))),
        Compression::LZ4_RAW => {
            // LZ4 packs 255 to 1 at best.
            if size / 256 > packed.len() {
                return Err("a size beyond what its bytes can hold".to_owned());
            }
            let start = into.len();
            into.resize(start + size, 0);
            let written = lz4_flex::block::decompress_into(packed, &mut into[start..]);
            into.truncate(start + written.map_err(|error| failed(io::Error::other(error)))?);
            Ok(())
        }
        Compression::ZSTD(_) => limited(&mut zstd::stream::read::Decoder::new(packed).map_err(failed)?, into),
        Compression::GZIP(_) => limited(&mut flate2::read::MultiGzDecoder::new(packed), into),
        Compression::BROTLI(_) => limited(&mut brotli_decompressor::Decompressor::new(packed, 4096), into),
        other => Err(format!("compressed with {other}, which is not read; write the file again with zstd or snappy")),
    }
}

fn unpack_snappy(packed: &[u8], size: usize, into: &mut Vec<u8>) -> Result<(), snap::Error> {
    // The stream says its size before memory is taken; 64 bytes from 3 is the best that snappy does.
    let length = snap::raw::decompress_len(packed)?;
    let start = into.len();
    if length != size || size / 24 > packed.len() {
        return Err(snap::Error::TooBig { given: length as u64, max: size as u64 });
    }
    into.resize(start + size, 0);
    snap::raw::Decoder::new().decompress(packed, &mut into[start..]).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_page_that_unpacks_to_more_than_its_size_stops_there() {
        let zeros = vec![0; 10 << 20];
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&zeros).expect("gzip");
        let snappy = snap::raw::Encoder::new().compress_vec(&zeros).expect("snappy");
        let bombs = [
            (Compression::GZIP(Default::default()), gzip.finish().expect("gzip")),
            (Compression::ZSTD(Default::default()), zstd::bulk::compress(&zeros, 3).expect("zstd")),
            (Compression::LZ4_RAW, lz4_flex::block::compress(&zeros)),
            (Compression::SNAPPY, snappy),
        ];
        for (compression, packed) in bombs {
            let mut bytes = Vec::new();
            let result = unpack(compression, &packed, 1000, &mut bytes);
            assert!(result.is_err() || bytes.len() == 1001, "{compression}: {}", bytes.len());
            assert!(bytes.capacity() < 100_000, "{compression}: {}", bytes.capacity());
        }
        for compression in [Compression::SNAPPY, Compression::LZ4_RAW] {
            let mut bytes = Vec::new();
            assert!(unpack(compression, &[0; 40], MAX_PAGE_BYTES as usize, &mut bytes).is_err());
            assert_eq!(bytes.capacity(), 0, "{compression}: a size larger than the data");
        }
    }
}
