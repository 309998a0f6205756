//! Label files: classes that replace those of a source.

use super::classes::{classes_by_label, is_labelled_by_folder};
use super::imagenet::is_wnid;
use super::keys::file_name;
use super::table::Table;
use super::text::{count, without_bom};
use super::{Contents, is_image_name};
use crate::error::IngestError;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;

/// Class indices are below this: beyond any data set, and small enough for a table of all classes.
const MAX_LISTED_CLASSES: usize = 1 << 20;

/// Replaces the labels of all images by those of the file, -1 for images that it does not name.
pub(super) fn apply(path: &Path, contents: &mut Contents) -> Result<(), IngestError> {
    let problem = |problem: String| IngestError::Labels { path: path.to_owned(), problem };
    let text = fs::read(path).map_err(|source| IngestError::Unreadable { path: path.to_owned(), source })?;
    let file = LabelFile::parse(&String::from_utf8_lossy(&without_bom(&text)))
        .map_err(|(line, problem)| IngestError::LabelLine { path: path.to_owned(), line, problem })?;
    file.check_ids(path).map_err(problem)?;
    let values = file.match_images(&contents.table).map_err(problem)?;
    let by_folder = is_labelled_by_folder(&contents.table, &contents.classes);
    let table = &mut contents.table;
    if file.is_named() {
        let names = file.names();
        if by_folder {
            check_folders(table, &values, &contents.classes, &names).map_err(problem)?;
        }
        let ranks: HashMap<&str, i32> = names.iter().copied().zip(0..).collect();
        set_labels(table, &values, |value| value.name().map_or(-1, |name| ranks[name]));
        contents.classes = names.into_iter().map(str::to_owned).collect();
        return Ok(());
    }
    let index = |value: &Value| value.index().unwrap_or(-1);
    let classes = by_folder.then(|| classes_by_index(table, &values, index)).transpose().map_err(problem)?;
    set_labels(table, &values, index);
    contents.classes = classes.unwrap_or_else(|| classes_by_label(table));
    Ok(())
}

fn set_labels(table: &mut Table, values: &[Option<&Value>], label: impl Fn(&Value) -> i32) {
    values.iter().enumerate().for_each(|(row, value)| table.set_label(row, value.map_or(-1, &label)));
}

/// A class as the file gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Index(i32),
    /// A wnid.
    Name(String),
}

impl Value {
    fn index(&self) -> Option<i32> {
        if let Value::Index(index) = self { Some(*index) } else { None }
    }

    fn name(&self) -> Option<&str> {
        if let Value::Name(name) = self { Some(name) } else { None }
    }

    fn parse(text: &str) -> Result<Value, String> {
        if is_wnid(text) {
            return Ok(Value::Name(text.to_owned()));
        }
        let index = text.parse().ok().filter(|index| (-1..MAX_LISTED_CLASSES as i32).contains(index));
        index.map(Value::Index).ok_or_else(|| format!("'{text}' is neither a class index nor a wnid"))
    }
}

/// The lines of a file.
enum LabelFile {
    /// Keys or names of images and their classes; the first key for messages.
    Keyed { classes: HashMap<String, Value>, first: String },
    /// Classes alone, for all images in the order of their names.
    Ordered(Vec<Value>),
}

impl LabelFile {
    /// Reads all lines; an error is a line number and what is wrong there.
    fn parse(text: &str) -> Result<LabelFile, (usize, String)> {
        // Files that were joined may have a byte order mark in front of any line.
        let is_blank = |c: char| c.is_whitespace() || c == '\u{FEFF}';
        let mut lines = text
            .lines()
            .map(|line| line.trim_matches(is_blank))
            .enumerate()
            .filter(|(_, line)| !line.is_empty())
            .peekable();
        let Some(&(_, first)) = lines.peek() else { return Err((1, "the file is empty".to_owned())) };
        let is_csv = first.to_ascii_lowercase().starts_with("imageid,");
        if is_csv {
            lines.next();
        }
        if !is_csv && !first.contains(char::is_whitespace) {
            let value = |(number, line)| Value::parse(line).map_err(|problem| (number + 1, problem));
            return lines.map(value).collect::<Result<_, _>>().map(LabelFile::Ordered);
        }
        let mut classes = HashMap::new();
        let mut first = None;
        for (number, line) in lines {
            let here = |problem| (number + 1, problem);
            let (key, value) = split(line, is_csv).ok_or_else(|| here(format!("'{line}' has no class")))?;
            let value = Value::parse(value).map_err(here)?;
            first.get_or_insert_with(|| key.to_owned());
            if let Some(earlier) = classes.insert(key.to_owned(), value.clone())
                && earlier != value
            {
                return Err(here(format!("'{key}' has another class in an earlier line")));
            }
        }
        let first = first.ok_or((1, "the file names no image".to_owned()))?;
        Ok(LabelFile::Keyed { classes, first })
    }

    fn values(&self) -> Box<dyn Iterator<Item = &Value> + '_> {
        match self {
            LabelFile::Keyed { classes, .. } => Box::new(classes.values()),
            LabelFile::Ordered(values) => Box::new(values.iter()),
        }
    }

    fn is_named(&self) -> bool {
        self.values().any(|value| value.name().is_some())
    }

    /// The wnids of the file, in order.
    fn names(&self) -> BTreeSet<&str> {
        self.values().filter_map(Value::name).collect()
    }

    /// Refuses what looks like labels and is not, or is of two kinds.
    fn check_ids(&self, path: &Path) -> Result<(), String> {
        let indices = || self.values().filter_map(Value::index);
        if self.is_named() {
            return match indices().find(|index| *index >= 0) {
                Some(index) => Err(format!("has both wnids and class indices (such as {index}); use one of them")),
                None => Ok(()),
            };
        }
        let is_named_so = path.file_name().is_some_and(|name| name.to_string_lossy().contains("ground_truth"));
        let starts_at_1 = indices().min().is_some_and(|min| min >= 1);
        if starts_at_1 && (is_named_so || indices().max() == Some(1000)) {
            return Err("holds the ids 1 to 1000 of the ILSVRC development kit, which are not class indices: they are not in the \
                        order of wnids; use imagenet_2012_validation_synset_labels.txt or LOC_val_solution.csv, or write the \
                        wnid of each id, which the kit's meta.mat has, in its place"
                .to_owned());
        }
        Ok(())
    }

    /// The value of each row.
    fn match_images(&self, table: &Table) -> Result<Vec<Option<&Value>>, String> {
        // A damaged place may be an image by its name.
        let is_image = |row: &usize| table.broken(*row).is_none() || is_image_name(Path::new(table.key(*row)));
        let mut images: Vec<usize> = (0..table.len()).filter(is_image).collect();
        let mut values = vec![None; table.len()];
        match self {
            LabelFile::Ordered(classes) => {
                if classes.len() != images.len() {
                    return Err(format!(
                        "has {} for {}; a file without names needs one line for each",
                        count(classes.len(), "line"),
                        count(images.len(), "image")
                    ));
                }
                images.sort_by_key(|&row| (file_name(table.key(row)), table.key(row)));
                images.iter().zip(classes).for_each(|(&row, value)| values[row] = Some(value));
            }
            LabelFile::Keyed { classes, first } => {
                for &row in &images {
                    let name = file_name(table.key(row));
                    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
                    values[row] = [table.key(row), name, stem].into_iter().find_map(|name| classes.get(name));
                }
                if values.iter().all(Option::is_none) && !images.is_empty() {
                    let image = table.key(images[0]);
                    return Err(format!(
                        "names none of the images: it begins with '{first}', the source with '{image}'"
                    ));
                }
            }
        }
        Ok(values)
    }
}

/// Key and class of a line: what is before and after the last tab, or the last white space; in a CSV file, the part before
/// the comma and the first word after it.
fn split(line: &str, is_csv: bool) -> Option<(&str, &str)> {
    if is_csv {
        let (key, rest) = line.split_once(',')?;
        return Some((key.trim(), rest.split_whitespace().next()?));
    }
    let (key, value) = line.rsplit_once('\t').or_else(|| line.rsplit_once(char::is_whitespace))?;
    Some((key.trim(), value.trim()))
}

/// Class folders are wnids: images must lie in the folder that the file says, and every folder must be known to it.
fn check_folders(
    table: &Table,
    values: &[Option<&Value>],
    classes: &[String],
    names: &BTreeSet<&str>,
) -> Result<(), String> {
    for (row, value) in values.iter().enumerate() {
        if let (Some(Value::Name(name)), Some((folder, _))) = (value, table.key(row).split_once('/'))
            && name != folder
        {
            return Err(format!("says '{name}' for '{}', which lies in the class folder '{folder}'", table.key(row)));
        }
    }
    match classes.iter().find(|class| !names.contains(class.as_str())) {
        Some(class) => {
            Err(format!("does not name the class folder '{class}': ranks of wnids would be wrong without it"))
        }
        None => Ok(()),
    }
}

/// Names of class folders by the index that the file gives their images: one index per folder, one folder per index.
fn classes_by_index(
    table: &Table,
    values: &[Option<&Value>],
    index: impl Fn(&Value) -> i32,
) -> Result<Vec<String>, String> {
    let (mut indices, mut folders) = (HashMap::new(), HashMap::new());
    for (row, value) in values.iter().enumerate() {
        let (Some(value), Some((folder, _))) = (value, table.key(row).split_once('/')) else { continue };
        let index = index(value);
        if index < 0 {
            continue;
        }
        let (known, owner) = (*indices.entry(folder).or_insert(index), *folders.entry(index).or_insert(folder));
        if known != index || owner != folder {
            let other =
                if known != index { format!("that class folder has {known}") } else { format!("that is '{owner}'") };
            return Err(format!("says class index {index} for '{}', but {other}", table.key(row)));
        }
    }
    let length = folders.keys().max().map_or(0, |&max| max as usize + 1);
    if length > MAX_LISTED_CLASSES {
        return Ok(Vec::new());
    }
    let name = |index: usize| folders.get(&(index as i32)).copied().unwrap_or_default().to_owned();
    Ok((0..length).map(name).collect())
}
