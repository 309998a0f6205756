//! Row groups to one shard file.

use crate::error::CacheError;
use crate::files::temporary::TempFile;
use crate::format::frame_key::frame_of_key;
use crate::format::hash::{ContentSum, blake3_hex};
use crate::format::identity::JobIdentity;
use crate::format::job::JobSpec;
use crate::format::manifest::ShardEntry;
use crate::format::margins::Margins;
use crate::format::names::Name;
use crate::format::schema::{COLUMNS, MoreColumns, TOKENS, parquet_schema, writer_properties};
use crate::shard::access::Access;
use crate::shard::footer::{GroupFooter, ShardFooter};
use crate::shard::group::RowGroup;
use crate::shard::open::Shard;
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, FixedLenByteArray, FixedLenByteArrayType, Int32Type,
};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use std::collections::BTreeMap;
use std::path::Path;

/// Grids that are handed to the encoder at a time: bounds its temporary copies.
const ENCODE_BATCH_ROWS: usize = 1024;

/// What all shards of a rank have in common.
pub(crate) struct ShardSpec<'a> {
    pub(crate) job: &'a JobSpec,
    pub(crate) identity: &'a JobIdentity,
    pub(crate) job_id: &'a str,
    /// Columns beside those of every shard. New shards of caches with splits name them; those of earlier versions did not.
    pub(crate) more_columns: MoreColumns,
}

impl ShardSpec<'_> {
    /// Writes `groups` as the shard `name`: temporary file, sync, read back and verify, rename, sync of the folder.
    pub(crate) fn write(&self, dir: &Path, name: Name, groups: &[RowGroup]) -> Result<ShardEntry, CacheError> {
        self.write_if(dir, name, groups, |_, _| Ok(()))
    }

    /// As [`ShardSpec::write`], but nothing gets its final name unless `accept` agrees to the temporary file and what
    /// it is.
    pub(crate) fn write_if(
        &self,
        dir: &Path,
        name: Name,
        groups: &[RowGroup],
        accept: impl FnOnce(&Path, &ShardEntry) -> Result<(), CacheError>,
    ) -> Result<ShardEntry, CacheError> {
        let mut file = TempFile::create(Name::Temp(Some(self.job.rank)).path(dir))?;
        let footer_blake3 = self.encode(&mut file, groups)?;
        file.sync()?;
        let entry = self.read_back(file.path(), name, &footer_blake3)?;
        accept(file.path(), &entry)?;
        file.publish(&name.path(dir))?;
        Ok(entry)
    }

    /// Writes the file's bytes; returns the hash of those after the last row group.
    fn encode(&self, file: &mut TempFile, groups: &[RowGroup]) -> Result<String, CacheError> {
        let path = file.path().to_owned();
        let failed = |source| CacheError::encode(&path, source);
        // The encoder writes to memory and every row group goes to the file when it is whole: a full disk is then an
        // I/O error with its path, and a group's columns can be hashed before the footer that holds their hashes.
        let schema = parquet_schema(self.job.grid, self.more_columns).map_err(failed)?;
        let mut encoder = SerializedFileWriter::new(Vec::new(), schema, writer_properties()).map_err(failed)?;
        let mut row_groups = Vec::new();
        let mut content = ContentSum::default();
        let mut margins = Margins::default();
        let mut written = 0u64;
        for group in groups {
            content.add(group.content);
            margins.add(&group.margins);
            if group.rows() == 0 {
                continue; // only quarantined images: the footer lists them
            }
            let metadata = self.encode_group(&mut encoder, group).map_err(failed)?;
            encoder.flush().map_err(|e| failed(e.into()))?;
            let bytes = encoder.inner_mut();
            row_groups.push(describe_group(group, &metadata, self.more_columns, bytes, written));
            file.write(bytes)?;
            written += bytes.len() as u64;
            bytes.clear();
        }
        let footer = ShardFooter {
            grid: self.job.grid,
            views: self.job.num_views,
            job: self.job_id.to_owned(),
            images: [groups[0].images.start, groups[groups.len() - 1].images.end],
            quarantined: groups.iter().flat_map(|group| group.quarantined.clone()).collect(),
            row_groups,
            content,
            margins,
        };
        footer.to_key_values(self.identity).into_iter().for_each(|entry| encoder.append_key_value_metadata(entry));
        let tail = encoder.into_inner().map_err(failed)?;
        file.write(&tail)?;
        Ok(blake3_hex(&tail))
    }

    fn encode_group(
        &self,
        encoder: &mut SerializedFileWriter<Vec<u8>>,
        group: &RowGroup,
    ) -> ParquetResult<RowGroupMetaData> {
        let mut columns = encoder.next_row_group()?;
        let width = self.job.grid.row_bytes();
        let batches = group.tokens.chunks(width * ENCODE_BATCH_ROWS).map(|batch| {
            batch.chunks_exact(width).map(|grid| FixedLenByteArray::from(grid.to_vec())).collect::<Vec<_>>()
        });
        write_column::<FixedLenByteArrayType>(&mut columns, batches)?;
        write_column::<Int32Type>(&mut columns, [&group.labels])?;
        write_column::<ByteArrayType>(&mut columns, [&group.keys])?;
        write_column::<Int32Type>(&mut columns, [&group.views])?;
        write_column::<Int32Type>(&mut columns, [&group.crop_x])?;
        write_column::<Int32Type>(&mut columns, [&group.crop_y])?;
        write_column::<BoolType>(&mut columns, [&group.flips])?;
        if self.more_columns.split {
            let split = ByteArray::from(group.split.as_str());
            write_column::<ByteArrayType>(&mut columns, [vec![split; group.rows()]])?;
        }
        if self.more_columns.frames {
            let (segments, frames): (Vec<i32>, Vec<i32>) =
                group.keys.iter().map(|key| frame_of_key(key.data())).unzip();
            write_column::<Int32Type>(&mut columns, [segments])?;
            write_column::<Int32Type>(&mut columns, [frames])?;
        }
        Ok(columns.close()?.as_ref().clone())
    }

    /// Opens the finished file as a reader would and verifies every column: nothing that is published is worse than
    /// what was in memory, and the encoder kept to the layout that readers rely on.
    fn read_back(&self, path: &Path, name: Name, footer_blake3: &str) -> Result<ShardEntry, CacheError> {
        let shard = Shard::open(path, None)?;
        let bytes = shard.load(Access::Map)?;
        for group in 0..shard.num_groups() {
            shard.verify_group(&bytes, group)?;
        }
        let entry = shard.describe(&name.to_text(), &bytes);
        if entry.footer.blake3 == footer_blake3 {
            return Ok(entry);
        }
        let (expected, actual) = (footer_blake3.to_owned(), entry.footer.blake3);
        Err(CacheError::FooterChecksum { path: path.into(), expected, actual })
    }
}

fn write_column<T: DataType>(
    columns: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    batches: impl IntoIterator<Item = impl AsRef<[T::T]>>,
) -> ParquetResult<()> {
    let missing = || ParquetError::General("the schema has fewer columns than the format".to_owned());
    let mut column = columns.next_column()?.ok_or_else(missing)?;
    for batch in batches {
        column.typed::<T>().write_batch(batch.as_ref(), None, None)?;
    }
    column.close()
}

/// What the footer says about a row group whose encoded form is `bytes`, at `offset` of the file.
fn describe_group(
    group: &RowGroup,
    metadata: &RowGroupMetaData,
    more: MoreColumns,
    bytes: &[u8],
    offset: u64,
) -> GroupFooter {
    let mut tokens_offset = 0;
    let mut blake3 = BTreeMap::new();
    for (name, column) in COLUMNS.into_iter().chain(more.names()).zip(metadata.columns()) {
        let (start, length) = column.byte_range();
        let end = start + length;
        // The only page of the token column ends where its chunk does.
        let from = if name == TOKENS { end - group.tokens.len() as u64 } else { start };
        if name == TOKENS {
            tokens_offset = from;
        }
        blake3.insert(name.to_owned(), blake3_hex(&bytes[(from - offset) as usize..(end - offset) as usize]));
    }
    let images = [group.images.start, group.images.end];
    GroupFooter { rows: group.rows(), images, tokens_offset, blake3 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::grid::GridSpec;
    use crate::format::row::Row;
    use crate::format::split::Split;

    #[test]
    fn a_column_that_names_another_split_is_an_error() {
        let temp = tempfile::tempdir().expect("a folder");
        let split = |name: &str| vec![Split { name: name.to_owned(), images: [0, 1] }];
        let mut job = JobSpec::new(GridSpec { height: 1, width: 2, bits: 18 }, 1, 1);
        job.splits = split("train");
        let mut group = RowGroup::starting_at(0, &job.splits);
        let row = Row { tokens: &[1, 2], label: 0, key: "a", view: 0, crop_x: 0, crop_y: 0, flip: false };
        group.push(job.grid, &row);
        group.images.end = 1;
        let (name, identity) = (Name::Shard(0, 0), job.identity());
        let more_columns = MoreColumns { split: true, frames: false };
        let spec = ShardSpec { job: &job, identity: &identity, job_id: &identity.id(), more_columns };
        let entry = spec.write(temp.path(), name, &[group]).expect("written");
        assert_eq!(entry.more_columns, ["split"]);
        let shard = Shard::open(&name.path(temp.path()), Some(&entry)).expect("opened");
        let bytes = shard.load(Access::Copy).expect("loaded");
        assert!(shard.read_group(&bytes, 0, &split("train")).is_ok());
        for error in [
            shard.read_group(&bytes, 0, &split("val")).map(drop),
            shard.row_hashes(&bytes, 0, &split("val")).map(drop),
            shard.row_hashes(&bytes, 0, &[]).map(drop),
        ] {
            assert!(matches!(error, Err(CacheError::ColumnValue { column: "split", .. })), "{error:?}");
        }
    }
}
