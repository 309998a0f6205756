//! One shard file: opened, checked, loaded, described.

use crate::cancel;
use crate::error::{CacheError, io_error};
use crate::format::hash::blake3_hex;
use crate::format::identity::JobIdentity;
use crate::format::manifest::{ByteRange, GroupEntry, Manifest, ShardEntry};
use crate::format::schema::{COLUMNS, FRAME, MoreColumns, SEGMENT, SPLIT, TOKENS};
use crate::shard::access::Access;
use crate::shard::footer::ShardFooter;
use crate::shard::handle::Handle;
use crate::shard::layout::{GroupLayout, Unchecked};
use crate::shard::map;
use crate::shard::tail::{check_expected, check_footer, check_magic, check_tail, metadata_in, read_at, read_metadata};
use bytes::Bytes;
use parquet::file::metadata::ParquetMetaData;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of grids that are read and hashed at a time.
const HASHED_BYTES: usize = 128 << 10;

/// A shard whose footer was read and checked; its rows were not touched.
pub(crate) struct Shard {
    pub(crate) path: PathBuf,
    pub(crate) footer: ShardFooter,
    pub(crate) bytes: u64,
    pub(crate) handle: Handle,
    pub(super) metadata: ParquetMetaData,
    /// Columns that this version knows beside those of every shard, and where they are.
    pub(super) more_columns: Vec<(&'static str, usize)>,
    pub(super) groups: Vec<GroupLayout>,
}

impl Shard {
    /// Opens a shard and checks everything but the rows: size, footer checksum (with `expected`), Parquet metadata, our
    /// metadata, and that the token pages are where and what the format says.
    ///
    /// # Errors
    /// The variant that names what is wrong with the file.
    pub(crate) fn open(path: &Path, expected: Option<&ShardEntry>) -> Result<Shard, CacheError> {
        let file = match File::open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(CacheError::MissingShard { path: path.into() });
            }
            other => other.map_err(io_error("open", path))?,
        };
        let bytes = file.metadata().map_err(io_error("read the size of", path))?.len();
        if let Some(entry) = expected {
            check_expected(path, &file, bytes, entry)?;
        }
        check_magic(path, &file)?;
        Self::from_footer(path, file, bytes, true)
    }

    /// Opens shard `index` of a cache and checks that it is the one that the manifest means. Its file is closed again.
    ///
    /// # Errors
    /// As [`Shard::open`]; [`CacheError::ForeignShard`].
    pub(crate) fn open_of(dir: &Path, manifest: &Manifest, index: usize) -> Result<Shard, CacheError> {
        let entry = &manifest.shards[index];
        let shard = Shard::open(&dir.join(&entry.file), Some(entry))?;
        shard.check_belongs(&manifest.job, manifest.grid_spec(), manifest.views)?;
        shard.check_entry(entry)?;
        shard.handle.close();
        Ok(shard)
    }

    /// Opens a shard whose page index and footer are those of the manifest, and whose rows may be damaged: only those
    /// that are known to be intact may be read, from a copy ([`Access::Copy`]).
    ///
    /// # Errors
    /// As [`Shard::open`].
    pub(crate) fn open_damaged(path: &Path, entry: &ShardEntry) -> Result<Shard, CacheError> {
        let file = File::open(path).map_err(io_error("open", path))?;
        check_footer(path, &file, entry)?;
        Self::from_footer(path, file, entry.bytes, false)
    }

    /// A shard of which only page index and footer are here, those of the manifest's `entry`: what it says of itself, and where
    /// everything lies in it. `path` names it in errors.
    ///
    /// # Errors
    /// As [`Shard::open`].
    pub(crate) fn from_tail(path: &Path, entry: &ShardEntry, tail: &[u8]) -> Result<Shard, CacheError> {
        check_tail(path, tail, entry)?;
        Self::from_metadata(path, Handle::absent(path), entry.bytes, metadata_in(path, tail)?, false)
    }

    fn from_footer(path: &Path, file: File, bytes: u64, rows_intact: bool) -> Result<Shard, CacheError> {
        let metadata = read_metadata(path, &file, bytes)?;
        Self::from_metadata(path, Handle::new(path, file)?, bytes, metadata, rows_intact)
    }

    fn from_metadata(
        path: &Path,
        handle: Handle,
        bytes: u64,
        metadata: ParquetMetaData,
        rows_intact: bool,
    ) -> Result<Shard, CacheError> {
        let footer = ShardFooter::parse(path, metadata.file_metadata())?;
        let columns = metadata.file_metadata().schema_descr().columns();
        // Behind those that every shard has; a later version may have put others in front of it.
        let known = [SPLIT, SEGMENT, FRAME];
        let known_name = |index: usize| known.into_iter().find(|name| columns[index].path().string() == *name);
        let more = (COLUMNS.len()..columns.len()).filter_map(|index| Some((known_name(index)?, index)));
        let more_columns: Vec<_> = more.collect();
        let unchecked = Unchecked {
            path,
            bytes,
            footer: &footer,
            metadata: &metadata,
            handle: &handle,
            more_columns: &more_columns,
        };
        let groups = unchecked.check(rows_intact)?;
        Ok(Shard { path: path.into(), footer, bytes, handle, metadata, more_columns, groups })
    }

    /// As [`ShardFooter::identity`].
    pub(crate) fn identity(&self) -> Result<JobIdentity, CacheError> {
        self.footer.identity(&self.path, self.metadata.file_metadata())
    }

    pub(crate) fn num_groups(&self) -> usize {
        self.groups.len()
    }

    /// Those of [`MoreColumns`] that the shard has.
    pub(crate) fn more_columns(&self) -> MoreColumns {
        MoreColumns::of(self.more_columns.iter().map(|(name, _)| *name))
    }

    /// The columns that this version knows.
    pub(crate) fn known_columns(&self) -> impl Iterator<Item = &'static str> {
        COLUMNS.into_iter().chain(self.more_columns.iter().map(|(name, _)| *name))
    }

    /// The place in the file of a column that the shard has.
    pub(super) fn column_index(&self, name: &str) -> usize {
        let more = || self.more_columns.iter().find(|(column, _)| *column == name).map(|(_, index)| *index);
        let index = COLUMNS.iter().position(|column| *column == name).or_else(more);
        index.expect("only known columns are asked for")
    }

    /// Where page index and footer begin.
    pub(super) fn footer_offset(&self) -> u64 {
        self.groups.last().map_or(0, |last| last.range.end)
    }

    pub(crate) fn group_rows(&self, group: usize) -> usize {
        self.footer.row_groups[group].rows
    }

    /// Bytes of the file that hold the grids of a group: `rows * row_bytes` of them.
    pub(crate) fn token_range(&self, group: usize) -> Range<usize> {
        let start = self.footer.row_groups[group].tokens_offset as usize;
        start..start + self.group_rows(group) * self.footer.grid.row_bytes()
    }

    /// Bytes of the file that hold a column of a group.
    pub(crate) fn column_range(&self, group: usize, name: &str) -> Range<u64> {
        self.groups[group].chunks[self.column_index(name)].clone()
    }

    /// Bytes of the file that hold the columns of a group behind the tokens, which come first.
    pub(crate) fn columns_range(&self, group: usize) -> Range<u64> {
        self.column_range(group, TOKENS).end..self.groups[group].range.end
    }

    /// Takes a row group that will not be read again soon out of this process's memory, where it is mapped.
    pub(crate) fn release(&self, file: &Bytes, group: usize) {
        let range = &self.groups[group].range;
        map::release(&file[range.start as usize..range.end as usize]);
    }

    /// The whole file as bytes, mapped or read.
    ///
    /// # Errors
    /// [`CacheError::Replaced`], [`CacheError::ShardSize`], [`CacheError::Io`].
    pub(crate) fn load(&self, access: Access) -> Result<Arc<Bytes>, CacheError> {
        let file = self.handle.file()?;
        let bytes = match access {
            Access::Map | Access::MapRandom | Access::Preload => {
                let mut options = memmap2::MmapOptions::new();
                if access == Access::Preload {
                    options.populate();
                }
                // SAFETY: shards are published by rename and never written again by this crate, so the mapped inode
                // does not change. A foreign process that truncates it makes reads fault, as `TokenCache` documents.
                let map = unsafe { options.map(&*file) }.map_err(io_error("map", &self.path))?;
                #[cfg(unix)]
                if access == Access::MapRandom {
                    map.advise(memmap2::Advice::Random).map_err(io_error("advise on", &self.path))?;
                }
                map::into_bytes(map, &self.path)
            }
            Access::Copy => {
                let failed = |source| io_error("copy", &self.path)(source);
                let mut copy = memmap2::MmapMut::map_anon(self.bytes as usize).map_err(failed)?;
                // Rows are read in random order: with pages of 2 MiB the processor finds most of them by itself. Where
                // there are none, it is only slower.
                #[cfg(target_os = "linux")]
                let _ = copy.advise(memmap2::Advice::HugePage);
                read_at(&file, 0, &mut copy).map_err(io_error("read", &self.path))?;
                Bytes::from_owner(copy.make_read_only().map_err(failed)?)
            }
        };
        // The file may have been cut since its size was checked.
        let actual = bytes.len() as u64;
        if actual != self.bytes {
            return Err(CacheError::ShardSize { path: self.path.clone(), expected: self.bytes, actual });
        }
        Ok(Arc::new(bytes))
    }

    /// Hashes everything: the manifest's entry for this shard. `file` is the loaded shard.
    pub(crate) fn describe(&self, name: &str, file: &Bytes) -> ShardEntry {
        let range = |range: Range<u64>| ByteRange {
            offset: range.start,
            bytes: range.end - range.start,
            blake3: blake3_hex(&file[range.start as usize..range.end as usize]),
        };
        let row_groups = self.groups.iter().zip(&self.footer.row_groups).map(|(layout, group)| GroupEntry {
            rows: group.rows,
            images: group.images,
            range: range(layout.range.clone()),
        });
        ShardEntry {
            file: name.to_owned(),
            rows: self.footer.rows(),
            images: self.footer.images,
            bytes: self.bytes,
            blake3: blake3_hex(file),
            content_sum: self.footer.content.to_hex(),
            more_columns: self.more_columns.iter().map(|(name, _)| (*name).to_owned()).collect(),
            margins: self.footer.margins,
            row_groups: row_groups.collect(),
            footer: range(self.footer_offset()..self.bytes),
        }
    }

    /// Verifies every known column of a row group against the checksums in the footer.
    ///
    /// # Errors
    /// [`CacheError::ColumnChecksum`].
    pub(crate) fn verify_group(&self, file: &Bytes, group: usize) -> Result<(), CacheError> {
        self.known_columns().try_for_each(|column| self.verify_column(file, group, column))
    }

    /// Verifies one column of a row group against the checksum in the footer.
    ///
    /// # Errors
    /// [`CacheError::ColumnChecksum`].
    pub(crate) fn verify_column(&self, file: &Bytes, group: usize, column: &'static str) -> Result<(), CacheError> {
        let range = if column == TOKENS {
            self.token_range(group)
        } else {
            let chunk = &self.groups[group].chunks[self.column_index(column)];
            chunk.start as usize..chunk.end as usize
        };
        self.compare_checksum(group, column, blake3_hex(&file[range]))
    }

    /// Compares the grids of a group with the checksum in the footer, as [`Shard::read_tokens`] reads them: nothing of them stays
    /// in memory.
    ///
    /// # Errors
    /// [`CacheError::ColumnChecksum`]; [`CacheError::Io`]; [`CacheError::Cancelled`].
    pub(crate) fn verify_tokens(
        &self,
        bytes: &Arc<Bytes>,
        file: Option<&File>,
        group: usize,
    ) -> Result<(), CacheError> {
        let length = self.token_range(group).len();
        let mut buffer = vec![0; length.min(HASHED_BYTES)];
        let mut hasher = blake3::Hasher::new();
        for start in (0..length).step_by(HASHED_BYTES) {
            cancel::check()?;
            let chunk = &mut buffer[..(length - start).min(HASHED_BYTES)];
            self.read_tokens(bytes, file, group, start, chunk)?;
            hasher.update(chunk);
        }
        self.compare_checksum(group, TOKENS, hasher.finalize().to_hex().to_string())
    }

    fn compare_checksum(&self, group: usize, column: &'static str, actual: String) -> Result<(), CacheError> {
        let expected = self.footer.row_groups[group].blake3.get(column).cloned().unwrap_or_default();
        if actual == expected {
            return Ok(());
        }
        let path = self.path.clone();
        Err(CacheError::ColumnChecksum { path, row_group: group, column, expected, actual })
    }
}
