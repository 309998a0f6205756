//! The rows of a source: one for each image, and one for each place of a container that cannot be read.

use super::keys::{KeyTable, compare};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Where an image lies in a container. Sixteen bytes: there may be millions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Number of the container's file.
    pub(super) file: u32,
    /// Offset in the tar, in bytes, or row of the Parquet file. Places are in order of files and positions, so that this
    /// field comes before the length.
    pub(super) at: u64,
    /// Length in bytes, where the container is a tar; what does not fit is beyond [`super::MAX_FILE_BYTES`] as well.
    pub(super) length: u32,
}

/// Keys, labels and places by position.
#[derive(Debug, Default)]
pub(super) struct Table {
    keys: KeyTable,
    labels: Vec<i32>,
    /// Empty where images are files of their own.
    places: Vec<Place>,
    /// Rows without a readable image, with the reason.
    broken: HashMap<usize, String>,
}

impl Table {
    /// Adds a file. `odd_path` is given where the key is not the file's relative path.
    pub(super) fn push_file(&mut self, key: &str, odd_path: Option<PathBuf>, label: i32) {
        self.keys.push(key, odd_path);
        self.labels.push(label);
    }

    /// Adds an image of a container.
    pub(super) fn push(&mut self, key: &str, label: i32, place: Place) {
        self.push_file(key, None, label);
        self.places.push(place);
    }

    /// Adds an image of a container, or a place in it, that cannot be read for this reason.
    pub(super) fn push_broken(&mut self, key: &str, place: Place, reason: String) {
        self.broken.insert(self.len(), reason);
        self.push(key, -1, place);
    }

    /// Adds the rows of another table of images in containers after these.
    pub(super) fn append(&mut self, other: Table) {
        if self.len() == 0 {
            *self = other;
            return;
        }
        let first = self.len();
        self.keys.append(&other.keys);
        self.labels.extend(other.labels);
        self.places.extend(other.places);
        self.broken.extend(other.broken.into_iter().map(|(row, reason)| (first + row, reason)));
    }

    pub(super) fn len(&self) -> usize {
        self.labels.len()
    }

    pub(super) fn key(&self, row: usize) -> &str {
        self.keys.key(row)
    }

    pub(super) fn relative_path(&self, row: usize) -> &Path {
        self.keys.relative_path(row)
    }

    pub(super) fn label(&self, row: usize) -> i32 {
        self.labels[row]
    }

    pub(super) fn set_label(&mut self, row: usize, label: i32) {
        self.labels[row] = label;
    }

    pub(super) fn place(&self, row: usize) -> Place {
        self.places[row]
    }

    /// Why a row cannot be read, where that is known beforehand.
    pub(super) fn broken(&self, row: usize) -> Option<&str> {
        if self.broken.is_empty() { None } else { self.broken.get(&row).map(String::as_str) }
    }

    pub(super) fn num_broken(&self) -> usize {
        self.broken.len()
    }

    /// The reason of the first broken row.
    pub(super) fn first_broken(&self) -> Option<(&str, &str)> {
        let row = self.broken.keys().min()?;
        Some((self.key(*row), &self.broken[row]))
    }

    /// Images whose class is not known.
    pub(super) fn unlabelled(&self) -> usize {
        let unknown = self.labels.iter().filter(|&&label| label < 0).count();
        unknown - self.broken.keys().filter(|row| self.labels[**row] < 0).count()
    }

    /// The rows named by `rows`, in that order, with keys passed through `rename`.
    pub(super) fn gather<'a, R: Into<String> + AsRef<str>>(
        &'a self,
        rows: impl Iterator<Item = usize>,
        mut rename: impl FnMut(usize, &'a str) -> R,
    ) -> Table {
        // As large as it may be, and cut afterwards: growing would hold half as much again for a moment.
        let rows_max = rows.size_hint().1.map_or(0, |rows| rows.min(self.len()));
        let mut table = Table {
            keys: self.keys.with_room_for(rows_max),
            labels: Vec::with_capacity(rows_max),
            places: Vec::with_capacity(rows_max.min(self.places.len())),
            broken: HashMap::new(),
        };
        for row in rows {
            if let Some(reason) = self.broken(row) {
                table.broken.insert(table.len(), reason.to_owned());
            }
            let key = rename(row, self.key(row));
            table.push_file(key.as_ref(), self.keys.odd_path(row).cloned(), self.label(row));
            table.places.extend(self.places.get(row));
        }
        table.shrink_to_fit();
        table
    }

    /// Gives back what was taken in advance.
    pub(super) fn shrink_to_fit(&mut self) {
        self.keys.shrink_to_fit();
        self.labels.shrink_to_fit();
        self.places.shrink_to_fit();
    }

    /// The rows sorted by key, folder by folder, and by position where keys are equal. Of equal keys the first is kept;
    /// the others become `key~2`, `key~3` and so on. Also returns how many did. `prefix` is dropped from keys that have it.
    pub(super) fn sorted(&self, prefix: &str) -> (Table, usize) {
        let key_of = |row: usize| self.key(row).strip_prefix(prefix).unwrap_or(self.key(row));
        let before = |a: usize, b: usize| -> Ordering {
            compare(key_of(a), key_of(b)).then_with(|| self.places.get(a).cmp(&self.places.get(b)))
        };
        let mut order: Vec<usize> = (0..self.len()).collect();
        // Stable: containers are mostly sorted already, and runs are cheap to merge.
        order.sort_by(|&a, &b| before(a, b));
        let taken = |key: &str| order.binary_search_by(|&row| compare(key_of(row), key)).is_ok();
        let (mut renamed, mut last, mut copy) = (0, None, 1);
        let table = self.gather(order.iter().copied(), |row, _| {
            let key = key_of(row);
            if last != Some(key) {
                (last, copy) = (Some(key), 1);
                return std::borrow::Cow::Borrowed(key);
            }
            renamed += 1;
            loop {
                copy += 1;
                let name = format!("{key}~{copy}");
                if !taken(&name) {
                    return name.into();
                }
            }
        });
        (table, renamed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_keys_become_unique() {
        let mut table = Table::default();
        let place = |at| Place { at, ..Place::default() };
        for (at, key) in [(5, "b"), (4, "a~2"), (3, "a"), (2, "a"), (1, "a"), (0, "a~2")] {
            table.push(key, at as i32, place(at));
        }
        let (table, renamed) = table.sorted("");
        let rows: Vec<_> = (0..table.len()).map(|row| (table.key(row), table.label(row))).collect();
        assert_eq!(rows, [("a", 1), ("a~3", 2), ("a~4", 3), ("a~2", 0), ("a~2~2", 4), ("b", 5)]);
        assert_eq!(renamed, 3);
    }

    #[test]
    fn rows_of_one_table_follow_those_of_another() {
        let (mut table, mut more) = (Table::default(), Table::default());
        let place = |at| Place { at, ..Place::default() };
        table.push("a", 0, place(0));
        more.push("b", 1, place(1));
        more.push_broken("c", place(2), "why".to_owned());
        table.append(more);
        assert_eq!((table.len(), table.key(0), table.key(1), table.key(2)), (3, "a", "b", "c"));
        assert_eq!((table.label(1), table.place(2), table.unlabelled()), (1, place(2), 0));
        assert_eq!((table.broken(1), table.broken(2), table.num_broken()), (None, Some("why"), 1));
    }
}
