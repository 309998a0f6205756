//! A shard in a bucket: where its rows are, and what was read of it before it was staged.

use crate::error::CacheError;
use crate::shard::open::Shard;
use bytes::Bytes;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use tokengrid_store::Object;

/// A shard whose footer was read.
pub(super) struct RemoteShard {
    pub(super) object: Object,
    /// Names it in errors.
    path: PathBuf,
    row_bytes: usize,
    /// Rows of each row group, and where the first one's grid begins in the file.
    groups: Vec<(Range<usize>, u64)>,
    /// The staged file, once it is here.
    file: OnceLock<Bytes>,
    /// Of each row that was read by a range, a hash; 0 for the others. Four bytes for each row of the shard, until it is staged.
    seen: Mutex<Vec<u32>>,
}

impl RemoteShard {
    pub(super) fn new(shard: &Shard, object: Object) -> RemoteShard {
        let mut next = 0;
        let group = |group: usize| {
            let first = next;
            next += shard.group_rows(group);
            (first..next, shard.token_range(group).start as u64)
        };
        RemoteShard {
            object,
            path: shard.path.clone(),
            row_bytes: shard.footer.grid.row_bytes(),
            groups: (0..shard.num_groups()).map(group).collect(),
            file: OnceLock::new(),
            seen: Mutex::default(),
        }
    }

    pub(super) fn num_rows(&self) -> usize {
        self.groups.last().map_or(0, |(rows, _)| rows.end)
    }

    /// Where the packed grid of a row of the shard begins in the file.
    pub(super) fn offset(&self, row: usize) -> u64 {
        let group = self.groups.partition_point(|(rows, _)| rows.end <= row);
        let (rows, offset) = &self.groups[group];
        offset + ((row - rows.start) * self.row_bytes) as u64
    }

    pub(super) fn is_staged(&self) -> bool {
        self.file.get().is_some()
    }

    /// The packed grid of a row, once the shard is staged.
    pub(super) fn staged_row(&self, row: usize) -> Option<&[u8]> {
        let file = self.file.get()?;
        let start = self.offset(row) as usize;
        Some(&file[start..start + self.row_bytes])
    }

    /// Notes a row that was read by a range, or compares it where there is something to compare it with.
    pub(super) fn note(&self, row: usize, packed: &[u8]) -> Result<(), CacheError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // The shard may have been staged while the row was on its way. Under the lock it is either noted or compared.
        if let Some(staged) = self.staged_row(row) {
            return if staged == packed { Ok(()) } else { Err(self.changed(row)) };
        }
        if seen.is_empty() {
            seen.resize(self.num_rows(), 0);
        }
        let hash = short_hash(packed);
        let before = std::mem::replace(&mut seen[row], hash);
        if before == 0 || before == hash { Ok(()) } else { Err(self.changed(row)) }
    }

    /// Takes the staged file, whose checksum was compared, if it holds the rows that were read before.
    pub(super) fn publish(&self, file: Bytes) -> Result<(), CacheError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (row, hash) in seen.iter().enumerate().filter(|(_, hash)| **hash != 0) {
            let start = self.offset(row) as usize;
            if short_hash(&file[start..start + self.row_bytes]) != *hash {
                return Err(self.changed(row));
            }
        }
        *seen = Vec::new();
        let _ = self.file.set(file);
        Ok(())
    }

    fn changed(&self, row: usize) -> CacheError {
        CacheError::RowChanged { path: self.path.clone(), row }
    }
}

/// Not 0, which stands for a row that was not read.
fn short_hash(packed: &[u8]) -> u32 {
    let [a, b, c, d, ..] = *blake3::hash(packed).as_bytes();
    u32::from_le_bytes([a, b, c, d]).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two groups of 3 and 2 rows of 4 bytes, with 5 bytes before each.
    fn shard() -> (RemoteShard, Bytes) {
        let file: Vec<u8> = (0..30).collect();
        let object = Object { key: "k".into(), bytes: 30, tag: None, modified_secs: 0 };
        let groups = vec![(0..3, 5), (3..5, 22)];
        let path = PathBuf::from("s3://b/k");
        let (file_slot, seen) = (OnceLock::new(), Mutex::default());
        (RemoteShard { object, path, row_bytes: 4, groups, file: file_slot, seen }, file.into())
    }

    #[test]
    fn rows_are_where_their_groups_are() {
        let (shard, file) = shard();
        assert_eq!([0, 2, 3, 4].map(|row| shard.offset(row)), [5, 13, 22, 26]);
        assert!(shard.staged_row(3).is_none());
        shard.publish(file).unwrap();
        assert_eq!(shard.staged_row(3).unwrap(), [22, 23, 24, 25]);
    }

    #[test]
    fn a_row_that_is_another_one_in_the_staged_shard_is_an_error() {
        let (good, file) = shard();
        good.note(4, &file[26..30]).unwrap();
        good.note(4, &file[26..30]).unwrap();
        assert!(matches!(good.note(4, &[0; 4]), Err(CacheError::RowChanged { row: 4, .. })));
        let (before, file) = shard();
        before.note(1, &[9; 4]).unwrap();
        let error = before.publish(file.clone()).unwrap_err();
        assert!(error.to_string().contains("s3://b/k") && error.to_string().contains("row 1"), "{error}");
        assert!(!before.is_staged());
        let (during, file) = shard();
        during.publish(file.clone()).unwrap();
        during.note(0, &file[5..9]).unwrap();
        assert!(matches!(during.note(0, &[9; 4]), Err(CacheError::RowChanged { row: 0, .. })));
    }
}
