//! The end of a shard file: size, checksum, Parquet footer.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::MAGIC;
use crate::error::CacheError;
use crate::fsio::io_error;
use crate::hash::blake3_hex;
use crate::manifest::ShardEntry;

/// Size and footer as the manifest has them.
pub(super) fn check_expected(path: &Path, file: &File, bytes: u64, entry: &ShardEntry) -> Result<(), CacheError> {
    if bytes != entry.bytes {
        return Err(CacheError::ShardSize { path: path.into(), expected: entry.bytes, actual: bytes });
    }
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
    let mut ends = [0; 12];
    read_at(file, 0, &mut ends[..4]).map_err(io_error("read", path))?;
    read_at(file, end, &mut ends[4..]).map_err(io_error("read", path))?;
    if &ends[..4] != MAGIC || &ends[8..] != MAGIC {
        return Err(frame("the magic number PAR1 is missing"));
    }
    let length = u32::from_le_bytes([ends[4], ends[5], ends[6], ends[7]]);
    let start = end.checked_sub(u64::from(length)).filter(|start| *start >= 4);
    let start = start.ok_or_else(|| frame("its length exceeds the file"))?;
    let mut thrift = vec![0; length as usize];
    read_at(file, start, &mut thrift).map_err(io_error("read", path))?;
    ParquetMetaDataReader::decode_metadata(&thrift)
        .map_err(|source| CacheError::FooterSyntax { path: path.into(), source })
}

/// Fills `out` from byte `offset` on.
pub(super) fn read_at(mut file: &File, offset: u64, out: &mut [u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(out)
}
