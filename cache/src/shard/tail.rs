//! The end of a shard file: size, checksum, Parquet footer.

use crate::error::{CacheError, io_error};
use crate::format::hash::blake3_hex;
use crate::format::manifest::ShardEntry;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use std::fs::File;
use std::io;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Magic number at both ends of a Parquet file.
pub(super) const MAGIC: &[u8; 4] = b"PAR1";

/// Size and footer as the manifest has them.
pub(super) fn check_expected(path: &Path, file: &File, bytes: u64, entry: &ShardEntry) -> Result<(), CacheError> {
    if bytes != entry.bytes {
        return Err(CacheError::ShardSize { path: path.into(), expected: entry.bytes, actual: bytes });
    }
    check_footer(path, file, entry)
}

/// The checksum of page index and footer.
pub(super) fn check_footer(path: &Path, file: &File, entry: &ShardEntry) -> Result<(), CacheError> {
    // The manifest's check has established that the footer's range ends at `entry.bytes`.
    let mut tail = vec![0; entry.footer.bytes as usize];
    read_at(file, entry.footer.offset, &mut tail).map_err(io_error("read", path))?;
    check_tail(path, &tail, entry)
}

/// The same, of bytes that were read.
pub(super) fn check_tail(path: &Path, tail: &[u8], entry: &ShardEntry) -> Result<(), CacheError> {
    let actual = blake3_hex(tail);
    if actual != entry.footer.blake3 {
        let expected = entry.footer.blake3.clone();
        return Err(CacheError::FooterChecksum { path: path.into(), expected, actual });
    }
    Ok(())
}

/// What a Parquet file ends with: the footer's length and the magic number.
const FRAME_BYTES: usize = 8;

/// The Parquet footer at the end of a file of `bytes` bytes.
pub(super) fn read_metadata(path: &Path, file: &File, bytes: u64) -> Result<ParquetMetaData, CacheError> {
    let frame = |what| CacheError::FooterFrame { path: path.into(), what };
    let end = bytes.checked_sub(FRAME_BYTES as u64).filter(|end| *end >= 4).ok_or_else(|| frame(TOO_SHORT))?;
    let mut last = [0; FRAME_BYTES];
    read_at(file, end, &mut last).map_err(io_error("read", path))?;
    let length = footer_bytes(path, last)?;
    let start = end.checked_sub(u64::from(length)).filter(|start| *start >= 4).ok_or_else(|| frame(TOO_LONG))?;
    let mut thrift = vec![0; length as usize];
    read_at(file, start, &mut thrift).map_err(io_error("read", path))?;
    decode(path, &thrift)
}

/// The Parquet footer in the last bytes of a file.
pub(super) fn metadata_in(path: &Path, tail: &[u8]) -> Result<ParquetMetaData, CacheError> {
    let frame = |what| CacheError::FooterFrame { path: path.into(), what };
    let (front, last) = tail.split_last_chunk::<FRAME_BYTES>().ok_or_else(|| frame(TOO_SHORT))?;
    let length = footer_bytes(path, *last)? as usize;
    let start = front.len().checked_sub(length).ok_or_else(|| frame(TOO_LONG))?;
    decode(path, &front[start..])
}

const TOO_SHORT: &str = "the file is too short";
const TOO_LONG: &str = "its length exceeds the file";

fn footer_bytes(path: &Path, last: [u8; FRAME_BYTES]) -> Result<u32, CacheError> {
    let [a, b, c, d, magic @ ..] = last;
    match &magic == MAGIC {
        true => Ok(u32::from_le_bytes([a, b, c, d])),
        false => Err(CacheError::FooterFrame { path: path.into(), what: "the magic number PAR1 is missing" }),
    }
}

fn decode(path: &Path, thrift: &[u8]) -> Result<ParquetMetaData, CacheError> {
    ParquetMetaDataReader::decode_metadata(thrift)
        .map_err(|source| CacheError::FooterSyntax { path: path.into(), source })
}

/// The magic number that a Parquet file begins with.
pub(super) fn check_magic(path: &Path, file: &File) -> Result<(), CacheError> {
    let mut first = [0; 4];
    read_at(file, 0, &mut first).map_err(io_error("read", path))?;
    let what = "the magic number PAR1 is missing at its beginning";
    if &first == MAGIC { Ok(()) } else { Err(CacheError::FooterFrame { path: path.into(), what }) }
}

/// Fills `out` from byte `offset` on.
pub(super) fn read_at(mut file: &File, offset: u64, out: &mut [u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(out)
}
