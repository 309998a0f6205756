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
    let actual = blake3_hex(&tail);
    if actual != entry.footer.blake3 {
        let expected = entry.footer.blake3.clone();
        return Err(CacheError::FooterChecksum { path: path.into(), expected, actual });
    }
    Ok(())
}

/// The Parquet footer at the end of a file of `bytes` bytes.
pub(super) fn read_metadata(path: &Path, file: &File, bytes: u64) -> Result<ParquetMetaData, CacheError> {
    let frame = |what| CacheError::FooterFrame { path: path.into(), what };
    let end = bytes.checked_sub(8).filter(|end| *end >= 4).ok_or_else(|| frame("the file is too short"))?;
    let mut last = [0; 8];
    read_at(file, end, &mut last).map_err(io_error("read", path))?;
    if &last[4..] != MAGIC {
        return Err(frame("the magic number PAR1 is missing"));
    }
    let length = u32::from_le_bytes([last[0], last[1], last[2], last[3]]);
    let start = end.checked_sub(u64::from(length)).filter(|start| *start >= 4);
    let start = start.ok_or_else(|| frame("its length exceeds the file"))?;
    let mut thrift = vec![0; length as usize];
    read_at(file, start, &mut thrift).map_err(io_error("read", path))?;
    ParquetMetaDataReader::decode_metadata(&thrift)
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
