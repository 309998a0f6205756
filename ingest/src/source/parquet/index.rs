//! The rows of Parquet files: keys from paths, labels, and where row groups of images lie.

use super::column::chunk_values;
use super::footer::{Column, Footer, FooterError, Group};
use super::labels::{LabelError, Labels, read_labels};
use super::page::Pages;
use super::{ImageGroup, Store};
use crate::error::IngestError;
use crate::source::cancel::Cancel;
use crate::source::classes::{class_folders, classes_by_label, doubts, label_by_folder};
use crate::source::files::SourceFile;
use crate::source::imagenet::key_of_path;
use crate::source::keys::{file_key, key_part};
use crate::source::label_names::LabelNames;
use crate::source::options::Columns as Wanted;
use crate::source::table::{Place, Table};
use crate::source::{Contents, Store as AnyStore, splits};
use parquet::data_type::{ByteArray, ByteArrayType};
use std::path::{Path, PathBuf};
use tokengrid_store::Blob;

/// Longest paths that are used, in bytes: of a row group together, and a single one. Longer ones count as missing.
const MAX_PATHS_BYTES: usize = 64 << 20;
const MAX_PATH_BYTES: usize = 4096;

/// A column of pictures that takes no more, in bytes of a row group, is read to learn whether it holds any.
const MAX_EMPTY_BYTES: u64 = 64 << 10;

/// Lists the rows of the files at `paths`, which together are the source at `root`.
pub(in crate::source) fn open(
    root: &Path,
    paths: Vec<SourceFile>,
    wanted: Wanted<'_>,
    cancel: Cancel<'_>,
) -> Result<Contents, IngestError> {
    let mut index = Index { has_paths: true, ..Index::default() };
    for (number, path) in paths.iter().enumerate() {
        match path.open().map_err(|error| format!("cannot be read: {error}")) {
            Ok(file) => index.add(path, number as u32, &file, wanted, cancel)?,
            Err(reason) => index.break_file(path, number as u32, reason),
        }
    }
    index.finish(root, paths)
}

/// Whether a file may hold images: it has a column for them, or cannot be read.
pub(in crate::source) fn has_images(file: &SourceFile) -> bool {
    let footer = file.open().map(|file| Footer::read(&file, Wanted::default()));
    !matches!(footer, Ok(Err(FooterError::NoImageColumn { .. })))
}

/// What all files hold, in the order in which it was found.
#[derive(Debug, Default)]
struct Index {
    table: Table,
    /// Row groups by file.
    groups: Vec<Vec<ImageGroup>>,
    /// Class names, and the file that has them.
    names: Option<(PathBuf, Vec<String>)>,
    labels: LabelNames,
    has_labels: bool,
    /// Whether every row has a path.
    has_paths: bool,
    /// The column of pictures, and whether any row has one.
    column: String,
    has_pictures: bool,
    hint: Option<String>,
}

/// Why a row group gives no rows.
enum GroupError {
    Damaged(String),
    Refused(String),
}

impl From<String> for GroupError {
    fn from(reason: String) -> GroupError {
        GroupError::Damaged(reason)
    }
}

impl From<LabelError> for GroupError {
    fn from(error: LabelError) -> GroupError {
        match error {
            LabelError::Refused(problem) => GroupError::Refused(problem),
            LabelError::Damaged(reason) => GroupError::Damaged(reason),
        }
    }
}

impl Index {
    fn add(
        &mut self,
        path: &Path,
        number: u32,
        file: &Blob,
        wanted: Wanted<'_>,
        cancel: Cancel<'_>,
    ) -> Result<(), IngestError> {
        cancel.check()?;
        let refuse = |problem| IngestError::Columns { path: path.to_owned(), problem };
        let footer = match Footer::read(file, wanted) {
            Ok(footer) => footer,
            Err(FooterError::NoImageColumn { columns }) => {
                return Err(IngestError::NoImageColumn { path: path.to_owned(), columns });
            }
            Err(FooterError::Refused { problem }) => return Err(refuse(problem)),
            Err(FooterError::Damaged { reason }) => {
                self.break_file(path, number, reason);
                return Ok(());
            }
        };
        self.has_labels |= footer.columns.label.is_some();
        self.hint = self.hint.take().or(footer.columns.hint);
        if let Some(names) = footer.columns.class_names {
            self.add_names(path, names)?;
        }
        let (mut groups, mut first_row) = (Vec::new(), 0);
        for group in footer.groups {
            cancel.check()?;
            let rows = group.rows;
            cancel.count(rows);
            let result = self.add_group(path, Place { file: number, length: 0, at: first_row }, file, group);
            match result {
                Ok(group) => groups.push(group),
                Err(GroupError::Refused(problem)) => return Err(refuse(problem)),
                Err(GroupError::Damaged(reason)) => {
                    // It may hold pictures.
                    self.has_pictures = true;
                    let last = first_row + rows.max(1) - 1;
                    let key = format!("{}@{first_row}-{last}", file_key(path));
                    self.table.push_broken(&key, Place { file: number, length: 0, at: first_row }, reason);
                }
            }
            first_row += rows;
        }
        self.groups.push(groups);
        Ok(())
    }

    /// Takes the class names of a file, which must be those of the others. One file may know more of them.
    fn add_names(&mut self, path: &Path, names: Vec<String>) -> Result<(), IngestError> {
        let Some((first, known)) = &self.names else {
            self.names = Some((path.to_owned(), names));
            return Ok(());
        };
        if let Some(index) = known.iter().zip(&names).position(|(known, name)| known != name) {
            let problem = format!(
                "class {index} is called '{}' here and '{}' in {}: files of one source must have the same classes; give them \
                 one by one",
                names[index],
                known[index],
                first.display()
            );
            return Err(IngestError::Columns { path: path.to_owned(), problem });
        }
        if names.len() > known.len() {
            self.names = Some((path.to_owned(), names));
        }
        Ok(())
    }

    fn break_file(&mut self, path: &Path, file: u32, reason: String) {
        self.has_pictures = true;
        self.groups.push(Vec::new());
        self.table.push_broken(&file_key(path), Place { file, ..Place::default() }, reason);
    }

    /// Adds the rows of a group, the first of which is at `first`.
    fn add_group(&mut self, path: &Path, first: Place, file: &Blob, group: Group) -> Result<ImageGroup, GroupError> {
        let image = group.image?;
        // Without a byte for each row, all of them have one image or none, or the footer is wrong.
        if image.chunk.rows > image.chunk.length
            && let Some(problem) = Pages::locate(file, &image.chunk).problem
        {
            return Err(problem.into());
        }
        self.has_pictures |= !is_empty(file, &image);
        self.column = image.descr.path().string();
        let paths = group.path.transpose()?.map(|column| read_paths(file, &column)).transpose()?;
        let labels = group.label.transpose()?.map(|column| read_labels(file, &column)).transpose()?;
        let stem = path.file_stem().map_or_else(String::new, |stem| key_part(stem).0);
        let Column { descr, chunk, .. } = image;
        for row in 0..chunk.rows {
            let at = first.at + row;
            let path = paths.as_ref().and_then(|paths| paths[row as usize].as_deref());
            let key = path.and_then(key_of_path);
            self.has_paths &= key.is_some();
            let key = key.unwrap_or_else(|| format!("{stem}/{at:08}"));
            let index = match &labels {
                Some(Labels::Indices(indices)) => indices[row as usize],
                _ => -1,
            };
            if let Some(Labels::Texts(texts)) = &labels
                && let Some(text) = &texts[row as usize]
            {
                let refuse = |problem: String| GroupError::Refused(format!("row {at}: {problem}"));
                self.labels.push(self.table.len(), text).map_err(refuse)?;
            }
            self.table.push(&key, index, Place { at, ..first });
        }
        self.labels.has_indices |= matches!(labels, Some(Labels::Indices(_)));
        Ok(ImageGroup::new(first.at, descr, chunk))
    }

    fn finish(self, root: &Path, paths: Vec<SourceFile>) -> Result<Contents, IngestError> {
        let Index { mut table, groups, names, labels, has_labels, has_paths, column, has_pictures, hint } = self;
        if !has_pictures && table.len() > 0 {
            let example = if has_paths { format!(" (the first is '{}')", table.key(0)) } else { String::new() };
            return Err(IngestError::PathsOnly { path: root.to_owned(), column, rows: table.len(), example });
        }
        let text_names = labels.apply(&mut table);
        let text_names = text_names.map_err(|problem| IngestError::Columns { path: root.to_owned(), problem })?;
        let (mut table, renamed) = table.sorted("");
        let mut notes = Vec::new();
        let classes = match (text_names, names) {
            (Some(names), _) => names,
            (None, Some((_, names))) if has_labels => names,
            _ if !has_labels && has_paths => {
                let classes = label_by_folder(&mut table, std::iter::empty());
                let folders = class_folders(&table, &classes);
                if let Some(splits) = splits::find(&folders) {
                    return Err(IngestError::SplitContainers { path: root.to_owned(), splits, example: None });
                }
                notes.extend(doubts(&folders, &[]));
                classes
            }
            _ => classes_by_label(&table),
        };
        if table.unlabelled() > 0 {
            notes.extend(hint);
        }
        let store = AnyStore::Parquet(Store::new(paths, groups));
        Ok(Contents { kind: "Parquet", table, classes, renamed, notes, store, ..Contents::new(root) })
    }
}

/// Whether no row of a group has a picture.
fn is_empty(file: &Blob, image: &Column) -> bool {
    let Column { descr, chunk, num_nulls } = image;
    match num_nulls {
        Some(nulls) => *nulls == chunk.rows,
        None if chunk.length > MAX_EMPTY_BYTES => false,
        None => {
            let images = chunk_values::<ByteArrayType>(file, descr, chunk, ByteArray::len, MAX_EMPTY_BYTES as usize);
            images.is_ok_and(|images| images.iter().all(Option::is_none))
        }
    }
}

fn read_paths(file: &Blob, column: &Column) -> Result<Vec<Option<String>>, String> {
    let Column { descr, chunk, .. } = column;
    let paths = chunk_values::<ByteArrayType>(file, descr, chunk, ByteArray::len, MAX_PATHS_BYTES)
        .map_err(|problem| format!("column {}: {problem}", descr.path()))?;
    let text = |path: ByteArray| (path.len() <= MAX_PATH_BYTES).then(|| String::from_utf8_lossy(path.data()).into());
    Ok(paths.into_iter().map(|path| path.and_then(text)).collect())
}
