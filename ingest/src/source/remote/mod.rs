//! Sources in object stores and on web servers: what is at a URL, and how its bytes come.
//!
//! | what | its bytes |
//! |---|---|
//! | class folders, flat folder | listed once, folders at the same time; each image is one request |
//! | `.txt` list | the list is read; each image is one request |
//! | tars, WebDataset shards, Parquet | staged: each file is streamed once into the stage folder, and read from there |
//! | the same, if only a part is needed or the stage folder is too small | headers and images by ranges |
//!
//! Keys, labels and order are those of the same files in a local folder.

mod list;
mod objects;
mod tree;

use super::cancel::Cancel;
use super::containers::{open_files, open_folder};
use super::files::SourceFile;
use super::parallel::in_parallel;
use super::text::count;
use super::{Contents, SourceOptions, has_extension, pattern};
use crate::error::IngestError;
pub(super) use list::{has_urls, open_list};
pub(super) use objects::{Ahead, Objects};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokengrid_store::{Bucket, Object, Place, Scheme, StageFile, stage, stage_room};

/// Requests at once for the files of a pattern on a web server, which has no listing.
const LOOK_UPS: usize = 32;

/// An object with its bucket.
type Found = (Bucket, Object);

/// Recognises and lists what is at a URL.
pub(super) fn open(url: &Path, options: &SourceOptions, cancel: Cancel<'_>) -> Result<Contents, IngestError> {
    let Some(place) = Place::parse(url)? else { return Err(IngestError::NotFound { path: url.to_owned() }) };
    if let Some(expanded) = pattern::expand(url) {
        let urls = expanded.map_err(|problem| IngestError::Pattern { path: url.to_owned(), problem })?;
        let found = all_of_pattern(url, &urls).map_err(|error| match error {
            IngestError::Store(source) => IngestError::PatternStore { path: url.to_owned(), source },
            error => error,
        })?;
        return open_containers(url, found, false, options, cancel);
    }
    let bucket = Bucket::of(&place)?;
    let names_file = !url.to_string_lossy().ends_with('/') && !place.key().is_empty();
    if names_file && let Some(object) = bucket.head(place.key())? {
        if has_extension(url, &["txt"]) {
            return list::open_object(url, &place, &bucket, &object, cancel);
        }
        return open_containers(url, vec![(bucket, object)], false, options, cancel);
    }
    let objects = listed(&place, &bucket)?;
    cancel.check()?;
    let prefix = place.prefix();
    match tree::open(url, &bucket, &prefix, objects, options)? {
        tree::Tree::Images(contents) => Ok(*contents),
        tree::Tree::Containers(objects) => {
            let found = objects.into_iter().map(|object| (bucket.clone(), object)).collect();
            open_containers(url, found, true, options, cancel)
        }
    }
}

/// What lies below a prefix; not there is an error.
fn listed(place: &Place, bucket: &Bucket) -> Result<Vec<Object>, IngestError> {
    let objects = bucket.list(place.key())?;
    if objects.is_empty() {
        return Err(tokengrid_store::StoreError::NotFound { place: place.clone() }.into());
    }
    Ok(objects)
}

/// The objects that a pattern stands for; all of them must be there. Their folders are listed, or, on a web server, each is
/// asked for.
fn all_of_pattern(pattern: &Path, urls: &[PathBuf]) -> Result<Vec<Found>, IngestError> {
    let mut places = Vec::with_capacity(urls.len());
    for url in urls {
        places.extend(Place::parse(url)?);
    }
    let found = match places.first().map(Place::scheme) {
        Some(Scheme::Http) => look_up(&places)?,
        _ => from_listings(&places)?,
    };
    let missing = places.iter().zip(&found).filter(|(_, found)| found.is_none());
    let missing: Vec<&Place> = missing.map(|(place, _)| place).collect();
    if let Some(first) = missing.first() {
        let are = if missing.len() == 1 { "is" } else { "are" };
        let problem = format!("{} of its {} {are} missing, first {first}", missing.len(), count(places.len(), "file"));
        return Err(IngestError::Pattern { path: pattern.to_owned(), problem });
    }
    Ok(found.into_iter().flatten().collect())
}

fn look_up(places: &[Place]) -> Result<Vec<Option<Found>>, IngestError> {
    let head = |place: &Place| -> Result<Option<Found>, IngestError> {
        let bucket = Bucket::of(place)?;
        Ok(bucket.head(place.key())?.map(|object| (bucket, object)))
    };
    in_parallel(places, LOOK_UPS, head).into_iter().collect()
}

fn from_listings(places: &[Place]) -> Result<Vec<Option<Found>>, IngestError> {
    let folders: HashSet<Place> = places.iter().map(Place::folder).collect();
    let mut by_place: BTreeMap<String, Found> = BTreeMap::new();
    for folder in folders {
        let bucket = Bucket::of(&folder)?;
        for object in bucket.list(folder.key())? {
            by_place.insert(bucket.place(&object.key).to_string(), (bucket.clone(), object));
        }
    }
    Ok(places.iter().map(|place| by_place.get(&place.to_string()).cloned()).collect())
}

/// Opens tars or Parquet files: as local copies if all of them are needed and there is room, else by ranges.
fn open_containers(
    url: &Path,
    found: Vec<Found>,
    is_folder: bool,
    options: &SourceOptions,
    cancel: Cancel<'_>,
) -> Result<Contents, IngestError> {
    let bytes: u64 = found.iter().map(|(_, object)| object.bytes).sum();
    let is_partial = options.limit.is_some() || options.is_shared;
    let mut files = if !is_partial && bytes <= stage_room() { staged(url, &found)? } else { by_ranges(found) };
    if !is_folder {
        return open_files(url, files, options.columns(), cancel);
    }
    files.sort_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    open_folder(url, files, options.columns(), cancel)
}

fn url_of(found: &Found) -> PathBuf {
    PathBuf::from(found.0.place(&found.1.key).to_string())
}

fn by_ranges(found: Vec<Found>) -> Vec<SourceFile> {
    let file = |found: Found| SourceFile::object(url_of(&found), found.0, found.1);
    found.into_iter().map(file).collect()
}

/// Local copies of all of them. Files of one name lie in folders of their own.
fn staged(url: &Path, found: &[Found]) -> Result<Vec<SourceFile>, IngestError> {
    let Some(place) = Place::parse(url)? else { return Ok(Vec::new()) };
    let name = |number: usize, object: &Object| {
        let name = object.key.rsplit('/').next().unwrap_or_default();
        format!("{number:05}/{name}")
    };
    let mut files = Vec::with_capacity(found.len());
    for (number, (_, object)) in found.iter().enumerate() {
        files.push(StageFile { object: object.clone(), name: name(number, object), blake3: None });
    }
    // Staged sets are of one bucket; braces in front of the first slash name several.
    let Some((bucket, _)) = found.first() else { return Ok(Vec::new()) };
    if found.iter().any(|(other, object)| other.place(&object.key).root() != place.root()) {
        return Ok(by_ranges(found.to_vec()));
    }
    let staged = Arc::new(stage(&place, bucket, &files)?);
    let copy = |(file, found): (&StageFile, &Found)| {
        SourceFile::staged(url_of(found), staged.folder().join(&file.name), &staged)
    };
    Ok(files.iter().zip(found).map(copy).collect())
}
