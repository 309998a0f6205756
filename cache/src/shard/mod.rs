//! One shard file: its checked layout, and everything that is read from it.

mod belongs;
mod file;
mod handle;
mod layout;
pub(crate) mod map;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type};
use parquet::file::metadata::ParquetMetaData;

use self::file::{check_expected, check_footer, check_magic, read_at, read_metadata};
use self::handle::Handle;
use self::layout::GroupLayout;
use crate::columns::read_column;
use crate::error::CacheError;
use crate::footer::ShardFooter;
use crate::fsio::io_error;
use crate::group::{CLASS_INDEX_MAX, RowGroup};
use crate::hash::{blake3_hex, row_hash};
use crate::job::{JobIdentity, Split, split_of};
use crate::manifest::{ByteRange, GroupEntry, ShardEntry};
use crate::reader::{Access, Crop, RowMeta};
use crate::schema::{COLUMNS, CROP_X, CROP_Y, FLIP, KEY, LABEL, SPLIT, TOKENS, VIEW};
use crate::unpack::unpack;

/// Magic number at both ends of a Parquet file.
const MAGIC: &[u8; 4] = b"PAR1";

/// A shard whose footer was read and checked; its rows were not touched.
pub(crate) struct Shard {
    pub(crate) path: PathBuf,
    pub(crate) footer: ShardFooter,
    pub(crate) bytes: u64,
    pub(crate) handle: Handle,
    metadata: ParquetMetaData,
    /// Where the column of splits is, in a shard that has one.
    split_column: Option<usize>,
    groups: Vec<GroupLayout>,
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

    fn from_footer(path: &Path, file: File, bytes: u64, rows_intact: bool) -> Result<Shard, CacheError> {
        let metadata = read_metadata(path, &file, bytes)?;
        let footer = ShardFooter::parse(path, metadata.file_metadata())?;
        let handle = Handle::new(path, file)?;
        let columns = metadata.file_metadata().schema_descr().columns();
        // Behind those that every shard has; a later version may have put others in front of it.
        let is_split = |index: &usize| columns[*index].path().string() == SPLIT;
        let split_column = (COLUMNS.len()..columns.len()).find(is_split);
        let groups = Vec::new();
        let mut shard = Shard { path: path.into(), footer, bytes, handle, metadata, split_column, groups };
        shard.check_layout(rows_intact)?;
        Ok(shard)
    }

    /// As [`ShardFooter::identity`].
    pub(crate) fn identity(&self) -> Result<JobIdentity, CacheError> {
        self.footer.identity(&self.path, self.metadata.file_metadata())
    }

    pub(crate) fn num_groups(&self) -> usize {
        self.groups.len()
    }

    /// Columns of the file, known or not.
    fn num_file_columns(&self) -> usize {
        self.metadata.file_metadata().schema_descr().num_columns()
    }

    /// Whether the rows name their split.
    pub(crate) fn has_split_column(&self) -> bool {
        self.split_column.is_some()
    }

    /// The columns that this version knows.
    pub(crate) fn known_columns(&self) -> impl Iterator<Item = &'static str> {
        COLUMNS.into_iter().chain(self.split_column.map(|_| SPLIT))
    }

    /// The place in the file of a column that the shard has.
    fn column_index(&self, name: &str) -> usize {
        let index = COLUMNS.iter().position(|column| *column == name).or(self.split_column);
        index.expect("only known columns are asked for")
    }

    /// Where page index and footer begin.
    fn footer_offset(&self) -> u64 {
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
            more_columns: self.split_column.map(|_| SPLIT.to_owned()).into_iter().collect(),
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
        let actual = blake3_hex(&file[range]);
        let expected = self.footer.row_groups[group].blake3.get(column).cloned().unwrap_or_default();
        if actual == expected {
            return Ok(());
        }
        let path = self.path.clone();
        Err(CacheError::ColumnChecksum { path, row_group: group, column, expected, actual })
    }

    /// The labels of rows `rows` of a group, after verifying the column.
    pub(crate) fn labels(&self, file: &Arc<Bytes>, group: usize, rows: Range<usize>) -> Result<Vec<i32>, CacheError> {
        let labels = self.int_column(file, group, LABEL, rows)?;
        match labels.iter().find(|label| !(-1..=CLASS_INDEX_MAX).contains(*label)) {
            None => Ok(labels),
            Some(label) => Err(self.value_error(group, LABEL, "-1 or a class index", label.to_string())),
        }
    }

    /// The label of every image of a group, after verifying the column.
    pub(crate) fn image_labels(
        &self,
        file: &Arc<Bytes>,
        group: usize,
    ) -> Result<impl Iterator<Item = i32>, CacheError> {
        let labels = self.labels(file, group, 0..self.group_rows(group))?;
        let views = self.footer.views as usize;
        // `ShardFooter::parse` saw to it that a group holds whole images.
        if let Some(views) = labels.chunks(views).find(|views| views.iter().any(|label| *label != views[0])) {
            return Err(self.value_error(group, LABEL, "one label for all views of an image", format!("{views:?}")));
        }
        Ok(labels.into_iter().step_by(views))
    }

    /// Everything but the tokens of rows `rows` of a group, after verifying the columns.
    pub(crate) fn row_metas(
        &self,
        file: &Arc<Bytes>,
        group: usize,
        rows: Range<usize>,
    ) -> Result<Vec<RowMeta>, CacheError> {
        let labels = self.labels(file, group, rows.clone())?;
        let views = self.int_column(file, group, VIEW, rows.clone())?;
        let crop_x = self.int_column(file, group, CROP_X, rows.clone())?;
        let crop_y = self.int_column(file, group, CROP_Y, rows.clone())?;
        let flips = self.column::<BoolType>(file, group, FLIP, rows.clone())?;
        let keys = self.keys(file, group, rows)?;
        let mut metas = Vec::with_capacity(labels.len());
        for (i, key) in keys.iter().enumerate() {
            let key = self.key_text(group, key)?;
            let view = u32::try_from(views[i])
                .map_err(|_| self.value_error(group, VIEW, "at least 0", views[i].to_string()))?;
            metas.push(RowMeta {
                key: key.to_owned(),
                label: labels[i],
                view,
                crop_x: crop_x[i],
                crop_y: crop_y[i],
                flip: flips[i],
            });
        }
        Ok(metas)
    }

    /// Appends the crops of rows `rows` of a group to `crops`, after verifying the columns.
    pub(crate) fn crops(
        &self,
        file: &Arc<Bytes>,
        group: usize,
        rows: Range<usize>,
        crops: &mut Vec<Crop>,
    ) -> Result<(), CacheError> {
        let left = self.int_column(file, group, CROP_X, rows.clone())?;
        let top = self.int_column(file, group, CROP_Y, rows.clone())?;
        let flips = self.column::<BoolType>(file, group, FLIP, rows)?;
        crops.extend(left.into_iter().zip(top).zip(flips).map(|((left, top), flip)| (left, top, flip)));
        Ok(())
    }

    /// The keys of rows `rows` of a group, after verifying the column; [`Shard::key_text`] makes text of them.
    pub(crate) fn keys(
        &self,
        file: &Arc<Bytes>,
        group: usize,
        rows: Range<usize>,
    ) -> Result<Vec<ByteArray>, CacheError> {
        self.column::<ByteArrayType>(file, group, KEY, rows)
    }

    pub(crate) fn key_text<'a>(&self, group: usize, key: &'a ByteArray) -> Result<&'a str, CacheError> {
        let bytes = key.data();
        std::str::from_utf8(bytes).map_err(|_| self.value_error(group, KEY, "UTF-8 text", "other bytes".to_owned()))
    }

    /// Fills `out` with the token bytes of a group from its byte `start` on: by position from `file`, where it is given,
    /// else from the loaded shard.
    pub(crate) fn read_tokens(
        &self,
        bytes: &Arc<Bytes>,
        file: Option<&File>,
        group: usize,
        start: usize,
        out: &mut [u8],
    ) -> Result<(), CacheError> {
        let offset = self.token_range(group).start + start;
        #[cfg(unix)]
        if let Some(file) = file {
            use std::os::unix::fs::FileExt;
            return file.read_exact_at(out, offset as u64).map_err(io_error("read", &self.path));
        }
        let _ = file;
        out.copy_from_slice(&bytes[offset..offset + out.len()]);
        Ok(())
    }

    /// Reads a whole row group back into memory, verified down to the content hash when it is the only one.
    pub(crate) fn read_group(&self, file: &Arc<Bytes>, group: usize, splits: &[Split]) -> Result<RowGroup, CacheError> {
        self.verify_column(file, group, TOKENS)?;
        self.check_split_column(file, group, splits)?;
        let grid = self.footer.grid;
        let metas = self.row_metas(file, group, 0..self.group_rows(group))?;
        let [start, end] = self.footer.row_groups[group].images;
        let mut rows = RowGroup::starting_at(start, splits);
        let mut tokens = vec![0; grid.num_tokens()];
        for (meta, packed) in metas.iter().zip(file[self.token_range(group)].chunks_exact(grid.row_bytes())) {
            unpack(packed, grid.bits, &mut tokens);
            rows.push(grid, &meta.row(&tokens));
        }
        rows.images.end = end;
        let settled = |image: usize| (start..end).contains(&image);
        rows.quarantined = self.footer.quarantined.iter().filter(|q| settled(q.index)).cloned().collect();
        Ok(rows)
    }

    /// The hash of every row of a group, for a content hash that is computed from the rows themselves.
    pub(crate) fn row_hashes(
        &self,
        file: &Arc<Bytes>,
        group: usize,
        splits: &[Split],
    ) -> Result<Vec<[u8; 32]>, CacheError> {
        self.verify_column(file, group, TOKENS)?;
        self.check_split_column(file, group, splits)?;
        let grid = self.footer.grid;
        let metas = self.row_metas(file, group, 0..self.group_rows(group))?;
        let packed = file[self.token_range(group)].chunks_exact(grid.row_bytes());
        let split = split_of(splits, self.footer.row_groups[group].images[0]);
        Ok(metas.iter().zip(packed).map(|(meta, packed)| row_hash(grid, split, &meta.row(&[]), packed)).collect())
    }

    /// Checks that the rows of a group name the split that its images belong to, where they name one.
    fn check_split_column(&self, file: &Arc<Bytes>, group: usize, splits: &[Split]) -> Result<(), CacheError> {
        if !self.has_split_column() {
            return Ok(());
        }
        let expected = split_of(splits, self.footer.row_groups[group].images[0]);
        let names = self.column::<ByteArrayType>(file, group, SPLIT, 0..self.group_rows(group))?;
        match names.iter().find(|name| name.data() != expected.as_bytes()) {
            None => Ok(()),
            Some(other) => {
                let actual = String::from_utf8_lossy(other.data()).into_owned();
                Err(self.value_error(group, SPLIT, &format!("the split of its images, {expected:?}"), actual))
            }
        }
    }

    fn int_column(
        &self,
        file: &Arc<Bytes>,
        group: usize,
        name: &'static str,
        rows: Range<usize>,
    ) -> Result<Vec<i32>, CacheError> {
        self.column::<Int32Type>(file, group, name, rows)
    }

    fn column<T: DataType>(
        &self,
        file: &Arc<Bytes>,
        group: usize,
        name: &'static str,
        rows: Range<usize>,
    ) -> Result<Vec<T::T>, CacheError> {
        let index = self.column_index(name);
        self.verify_column(file, group, name)?;
        let chunk = self.metadata.row_group(group).column(index);
        read_column::<T>(file, chunk, self.group_rows(group), rows).map_err(|source| CacheError::ColumnDecode {
            path: self.path.clone(),
            row_group: group,
            column: name,
            source,
        })
    }

    fn value_error(&self, row_group: usize, column: &'static str, expected: &str, actual: String) -> CacheError {
        CacheError::ColumnValue { path: self.path.clone(), row_group, column, expected: expected.to_owned(), actual }
    }
}
