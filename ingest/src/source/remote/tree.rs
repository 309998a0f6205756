//! Class folders and flat folders as a listing of keys shows them: the rules of local folders (module `tree`).

use super::objects::{Objects, Where};
use crate::error::IngestError;
use crate::source::classes::{ClassFolder, doubts};
use crate::source::containers::is_container_name;
use crate::source::keys::{compare, is_hidden, key_part};
use crate::source::table::Place;
use crate::source::{Contents, SourceOptions, Store, Table, is_image_name, splits};
use std::path::{Path, PathBuf};
use tokengrid_store::{Bucket, Object};

/// What is below a prefix.
pub(super) enum Tree {
    Images(Box<Contents>),
    /// Tars or Parquet files directly below it, and no images.
    Containers(Vec<Object>),
}

/// Sorts the objects below `prefix`, which ends in `/` or is empty. What is excluded is left out later.
pub(super) fn open(
    url: &Path,
    bucket: &Bucket,
    prefix: &str,
    mut objects: Vec<Object>,
    options: &SourceOptions,
) -> Result<Tree, IngestError> {
    objects.retain(|object| object.key.starts_with(prefix) && is_visible(&object.key[prefix.len()..]));
    objects.sort_by(|a, b| compare(&a.key, &b.key));
    let mut walk = Walk::default();
    for object in objects {
        walk.take(prefix, object);
    }
    if walk.images.is_empty() && !walk.containers.is_empty() {
        return Ok(Tree::Containers(walk.containers));
    }
    if let (true, Some(folder)) = (walk.images.is_empty(), &walk.below) {
        let folder = PathBuf::from(bucket.place(folder).to_string());
        return Err(IngestError::ContainersBelow { path: url.to_owned(), folder });
    }
    walk.finish(url, bucket, options).map(|contents| Tree::Images(Box::new(contents)))
}

/// Whether no part of a key is hidden or a system's. A key that ends in `/` is a folder that some tool made visible.
fn is_visible(key: &str) -> bool {
    !key.is_empty() && !key.ends_with('/') && key.split('/').all(|part| !is_hidden(part.as_bytes()))
}

#[derive(Default)]
struct Walk {
    table: Table,
    images: Vec<Where>,
    /// Folders at the top, in order, with or without images.
    folders: Vec<ClassFolder>,
    classes: usize,
    containers: Vec<Object>,
    below: Option<String>,
    ignored: usize,
}

impl Walk {
    fn take(&mut self, prefix: &str, object: Object) {
        let below = &object.key[prefix.len()..];
        let (folder, rest) = below.split_once('/').unwrap_or(("", below));
        if !folder.is_empty() && self.folders.last().is_none_or(|last| last.name != folder) {
            self.folders.push(ClassFolder::new(folder));
        }
        if is_image_name(Path::new(below)) {
            let label = self.label_of(folder, rest);
            let (key, _) = key_part(below.as_ref());
            let place = Place { file: 0, at: self.images.len() as u64, length: size_of(&object) };
            self.table.push(&key, label, place);
            let bytes = Some(object.bytes);
            self.images.push(Where::Object { bucket: 0, key: object.key.into_boxed_str(), bytes });
            return;
        }
        self.ignored += 1;
        if is_container_name(Path::new(below)) {
            if folder.is_empty() {
                self.containers.push(object);
            } else {
                let end = object.key.rfind('/').unwrap_or(object.key.len());
                self.below.get_or_insert_with(|| object.key[..end].to_owned());
            }
        }
    }

    /// The class of an image: folders get their index with their first one.
    fn label_of(&mut self, folder: &str, rest: &str) -> i32 {
        let Some(class) = self.folders.last_mut().filter(|_| !folder.is_empty()) else { return -1 };
        if !class.has_images() {
            self.classes += 1;
        }
        class.add_image(rest);
        self.classes as i32 - 1
    }

    fn finish(self, url: &Path, bucket: &Bucket, options: &SourceOptions) -> Result<Contents, IngestError> {
        if let Some(splits) = splits::find(&self.folders) {
            return Err(IngestError::SplitFolder { path: url.to_owned(), splits });
        }
        let (classes, empty): (Vec<_>, Vec<_>) = self.folders.into_iter().partition(ClassFolder::has_images);
        let kind = if classes.is_empty() { "flat folder" } else { "class folders" };
        let empty: Vec<&str> = empty.iter().map(|folder| folder.name.as_str()).collect();
        let notes = if options.limit.is_none() { doubts(&classes, &empty) } else { Vec::new() };
        let (table, renamed) = self.table.sorted("");
        let store = Store::Objects(Objects::new(vec![bucket.clone()], self.images));
        let classes = classes.into_iter().map(|class| class.name).collect();
        Ok(Contents { kind, table, classes, ignored: self.ignored, renamed, notes, store, ..Contents::new(url) })
    }
}

/// What fits into a row; images beyond it are too large anyway.
fn size_of(object: &Object) -> u32 {
    u32::try_from(object.bytes).unwrap_or(u32::MAX)
}
