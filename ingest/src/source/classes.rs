//! Classes of containers: by folders in keys, or by labels that the container carries.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::table::Table;

/// Labels images by the rank of their first folder; returns the folders' names.
pub(super) fn label_by_folder<'a>(table: &mut Table, folders: impl Iterator<Item = &'a str>) -> Vec<String> {
    let images = (0..table.len()).filter_map(|row| table.key(row).split_once('/'));
    let mut classes: BTreeSet<&str> = images.map(|(folder, _)| folder).collect();
    if classes.is_empty() {
        return Vec::new();
    }
    classes.extend(folders.map(|folder| folder.split_once('/').map_or(folder, |(first, _)| first)));
    let classes: Vec<String> = classes.into_iter().filter(|class| !class.is_empty()).map(str::to_owned).collect();
    for row in 0..table.len() {
        let folder = table.key(row).split_once('/').map(|(folder, _)| folder);
        let rank = folder.and_then(|folder| classes.binary_search_by(|class| class.as_str().cmp(folder)).ok());
        table.set_label(row, rank.map_or(-1, |rank| rank as i32));
    }
    classes
}

/// Whether images lie two folders down.
pub(super) fn is_nested(table: &Table) -> bool {
    (0..table.len()).any(|row| table.key(row).bytes().filter(|&byte| byte == b'/').count() > 1)
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
