//! The columns of a shard, read after their checksums were compared.

use crate::error::{CacheError, io_error};
use crate::format::frame_key::frame_of_key;
use crate::format::row::{CLASS_INDEX_MAX, Crop, RowMeta, row_hash};
use crate::format::schema::{CROP_X, CROP_Y, FLIP, FRAME, KEY, LABEL, SEGMENT, SPLIT, TOKENS, VIEW};
use crate::format::split::Split;
use crate::shard::columns::read_column;
use crate::shard::group::RowGroup;
use crate::shard::open::Shard;
use crate::unpack::unpack;
use bytes::Bytes;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type};
use parquet::file::statistics::Statistics;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

impl Shard {
    /// The labels of rows `rows` of a group, after verifying the column.
    pub(crate) fn labels(&self, file: &Arc<Bytes>, group: usize, rows: Range<usize>) -> Result<Vec<i32>, CacheError> {
        let labels = self.int_column(file, group, LABEL, rows)?;
        match labels.iter().find(|label| !(-1..=CLASS_INDEX_MAX).contains(*label)) {
            None => Ok(labels),
            Some(label) => Err(self.value_error(group, LABEL, "-1 or a class index", label.to_string())),
        }
    }

    /// The largest label of a group, by the footer's statistics.
    pub(crate) fn label_max(&self, group: usize) -> Option<i32> {
        match self.metadata.row_group(group).column(self.column_index(LABEL)).statistics()? {
            Statistics::Int32(labels) => labels.max_opt().copied(),
            _ => None,
        }
    }

    /// Images of a group, whose views are all in it.
    pub(crate) fn group_images(&self, group: usize) -> usize {
        self.group_rows(group) / self.footer.views as usize
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
        let is_mixed = |views: &&[i32]| views.iter().any(|label| *label != views[0]);
        if views > 1
            && let Some(views) = labels.chunks(views).find(is_mixed)
        {
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
        self.check_frame_columns(file, group)?;
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
        let is_of_group = |image: usize| (start..end).contains(&image);
        rows.quarantined = self.footer.quarantined.iter().filter(|q| is_of_group(q.index)).cloned().collect();
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
        self.check_frame_columns(file, group)?;
        let grid = self.footer.grid;
        let metas = self.row_metas(file, group, 0..self.group_rows(group))?;
        let packed = file[self.token_range(group)].chunks_exact(grid.row_bytes());
        let split = Split::name_of(splits, self.footer.row_groups[group].images[0]);
        Ok(metas.iter().zip(packed).map(|(meta, packed)| row_hash(grid, split, &meta.row(&[]), packed)).collect())
    }

    /// Checks that the rows of a group name the split that its images belong to, where they name one.
    fn check_split_column(&self, file: &Arc<Bytes>, group: usize, splits: &[Split]) -> Result<(), CacheError> {
        if !self.more_columns().split {
            return Ok(());
        }
        let expected = Split::name_of(splits, self.footer.row_groups[group].images[0]);
        let names = self.column::<ByteArrayType>(file, group, SPLIT, 0..self.group_rows(group))?;
        match names.iter().find(|name| name.data() != expected.as_bytes()) {
            None => Ok(()),
            Some(other) => {
                let actual = String::from_utf8_lossy(other.data()).into_owned();
                Err(self.value_error(group, SPLIT, &format!("the split of its images, {expected:?}"), actual))
            }
        }
    }

    /// Checks that the columns of a video frame say what its key says, where they are.
    fn check_frame_columns(&self, file: &Arc<Bytes>, group: usize) -> Result<(), CacheError> {
        if !self.more_columns().frames {
            return Ok(());
        }
        let rows = 0..self.group_rows(group);
        let segments = self.int_column(file, group, SEGMENT, rows.clone())?;
        let frames = self.int_column(file, group, FRAME, rows.clone())?;
        let keys = self.column::<ByteArrayType>(file, group, KEY, rows)?;
        for ((segment, frame), key) in segments.into_iter().zip(frames).zip(&keys) {
            let expected = frame_of_key(key.data());
            if (segment, frame) != expected {
                let expected = format!("frame {} of segment {}, as its key says", expected.1, expected.0);
                return Err(self.value_error(group, FRAME, &expected, format!("frame {frame} of segment {segment}")));
            }
        }
        Ok(())
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
