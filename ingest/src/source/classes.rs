//! Classes of containers: by folders in keys, or by labels in the container.

use super::splits;
use super::table::Table;
use super::text::count;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// A folder that may be a class, and where its images lie. It is a class if it holds any: what a container without entries for
/// folders carries of a folder are its images, and the same images have the same labels in every container.
#[derive(Debug, Clone)]
pub(super) struct ClassFolder {
    pub(super) name: String,
    /// Whether images are in the folder itself, and whether some are in folders of it.
    pub(super) directly: bool,
    pub(super) in_folders: bool,
    /// Folders in it with images that may be parts of a data set by their names.
    pub(super) inside: BTreeSet<String>,
}

impl ClassFolder {
    pub(super) fn new(name: &str) -> ClassFolder {
        ClassFolder { name: name.to_owned(), directly: false, in_folders: false, inside: BTreeSet::new() }
    }

    /// A folder with images in it.
    pub(super) fn with_images(name: &str) -> ClassFolder {
        ClassFolder { directly: true, ..ClassFolder::new(name) }
    }

    pub(super) fn has_images(&self) -> bool {
        self.directly || self.in_folders
    }

    /// Notes an image by its path in the folder.
    pub(super) fn add_image(&mut self, path: &str) {
        let Some((folder, _)) = path.split_once('/') else {
            self.directly = true;
            return;
        };
        self.in_folders = true;
        if splits::is_possible(folder) && !self.inside.contains(folder) {
            self.inside.insert(folder.to_owned());
        }
    }
}

/// The class folders of a container.
pub(super) fn class_folders(table: &Table, classes: &[String]) -> Vec<ClassFolder> {
    let mut folders: Vec<ClassFolder> = classes.iter().map(|class| ClassFolder::new(class)).collect();
    for row in (0..table.len()).filter(|&row| table.broken(row).is_none()) {
        let Some((_, rest)) = table.key(row).split_once('/') else { continue };
        let class = usize::try_from(table.label(row)).ok();
        if let Some(folder) = class.and_then(|class| folders.get_mut(class)) {
            folder.add_image(rest);
        }
    }
    folders
}

/// What is odd about class folders, and need not be wrong. `empty` are the names of folders without images.
pub(super) fn doubts(folders: &[ClassFolder], empty: &[&str]) -> Vec<String> {
    let mut doubts = Vec::new();
    if let Some(first) = empty.first().filter(|_| !folders.is_empty()) {
        let number = count(empty.len(), "folder");
        let those = if empty.len() == 1 { format!("'{first}'") } else { format!("first '{first}'") };
        doubts.push(format!("{number} without images ({those}): no class, and without an index"));
    }
    if let Some(parts) = folders.iter().find_map(splits::inside) {
        doubts.push(format!("the splits {} count as one class; give one split if that is not meant", parts.join(", ")));
    } else if !folders.is_empty()
        && !folders.iter().any(|folder| folder.directly)
        && let Some(folder) = folders.iter().find(|folder| folder.in_folders)
    {
        doubts.push(format!(
            "the class folders hold no images themselves, but folders of them ('{0}' does): if those are the classes, give the \
             folder '{0}'",
            folder.name
        ));
    }
    doubts
}

/// Labels images by the rank of their first folder; returns the folders' names. `named` are classes whether they hold images or
/// not.
pub(super) fn label_by_folder<'a>(table: &mut Table, named: impl Iterator<Item = &'a str>) -> Vec<String> {
    let images = (0..table.len()).filter_map(|row| table.key(row).split_once('/'));
    let mut classes: BTreeSet<&str> = images.map(|(folder, _)| folder).collect();
    if classes.is_empty() {
        return Vec::new();
    }
    for class in named {
        classes.insert(class);
    }
    let classes: Vec<String> = classes.into_iter().filter(|class| !class.is_empty()).map(str::to_owned).collect();
    for row in 0..table.len() {
        let folder = table.key(row).split_once('/').map(|(folder, _)| folder);
        let rank = folder.and_then(|folder| classes.binary_search_by(|class| class.as_str().cmp(folder)).ok());
        table.set_label(row, rank.map_or(-1, |rank| rank as i32));
    }
    classes
}

/// Names of the classes of a container whose labels are numbers: the folders in its keys, where these and the labels are the
/// same thing said twice and no class is missing. Else none.
pub(super) fn classes_by_label(table: &Table) -> Vec<String> {
    let mut names: BTreeMap<i32, &str> = BTreeMap::new();
    for row in (0..table.len()).filter(|&row| table.label(row) >= 0) {
        let Some((folder, _)) = table.key(row).split_once('/') else { return Vec::new() };
        if *names.entry(table.label(row)).or_insert(folder) != folder {
            return Vec::new();
        }
    }
    let different: HashSet<&str> = names.values().copied().collect();
    let complete = names.keys().copied().eq(0..names.len() as i32) && different.len() == names.len();
    if complete { names.into_values().map(str::to_owned).collect() } else { Vec::new() }
}

/// Whether labels are the ranks of class folders, and say nothing that keys do not say.
pub(super) fn is_labelled_by_folder(table: &Table, classes: &[String]) -> bool {
    let agrees = |row: usize| {
        let folder = table.key(row).split_once('/').map(|(folder, _)| folder);
        let class = usize::try_from(table.label(row)).ok().and_then(|label| classes.get(label));
        class.is_none_or(|class| folder == Some(class.as_str()))
    };
    !classes.is_empty() && (0..table.len()).all(agrees)
}
