//! What becomes of the files that are kept beside the rows when caches are made of caches.
//!
//! Three kinds are told apart. `metadata.json` says how many frames there are, and is given the new number. A `.bin` file
//! whose size is a multiple of the number of frames has an entry per frame (actions, states): it goes with the rows. All
//! others describe the set as a whole, and are kept as they are.

use crate::combine::input::Input;
use crate::error::CacheError;
use crate::files::small::read_at_most;
use crate::format::attached::{AttachedFile, attached_path};
use crate::import::error::import_error;
use crate::import::frame_metadata::with_num_images;
use crate::import::frame_set::{METADATA_BYTES_MAX, METADATA_FILE};
use crate::import::one_x::{details, holds_frames};
use crate::read::cache::TokenCache;
use crate::remote::staged::LocalFolder;
use crate::write::attach::{Attachment, Content, Images};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Facts about a source, by name.
type Details = BTreeMap<String, Value>;

/// The ending of files that have an entry per frame.
const ENTRIES_ENDING: &str = ".bin";

/// What the files with an entry per frame are called in these sets: only of other names is a file without entries possible.
const ACTIONS: &str = "actions";

/// The folder of the files that only one of the merged caches has, in front of its number.
const ONE_INPUT: &str = "input-";

/// The facts of a cache that a cache made of it shares.
pub(super) fn details_of(cache: &TokenCache) -> Details {
    let source = &cache.manifest().source;
    let mut details = source.details.clone();
    if holds_frames(source) {
        details.insert(details::HAS_FRAMES.into(), true.into());
    }
    details
}

/// The files of a cache of which the images `images`, `count` in number, are taken.
pub(super) fn of_subset<'a>(
    cache: &TokenCache,
    count: usize,
    images: Images<'a>,
) -> Result<Vec<Attachment<'a>>, CacheError> {
    let attached = &cache.manifest().source.attached;
    let of_file = |(name, file): (&String, &AttachedFile)| {
        let path = checked_path(cache, name, file)?;
        let content = match entry_bytes(name, file, cache) {
            _ if name == METADATA_FILE => Content::Bytes(renumbered(&path, count)?.into_bytes()),
            Some(entry_bytes) if count < cache.num_images() => Content::Entries { path, entry_bytes, images },
            _ => Content::Files(vec![path]),
        };
        Attachment::new(name, content)
    };
    attached.iter().map(of_file).collect()
}

/// The files of a cache, as they are.
pub(super) fn of_copy(cache: &TokenCache) -> Result<Vec<Attachment<'static>>, CacheError> {
    let attached = &cache.manifest().source.attached;
    let copy = |(name, file): (&String, &AttachedFile)| {
        Attachment::new(name, Content::Files(vec![checked_path(cache, name, file)?]))
    };
    attached.iter().map(copy).collect()
}

/// The facts that caches which follow each other share. Where sets of frames are laid out differently, or are not all sets
/// of frames, no layout is left: only that there are frames.
pub(super) fn joined_details(inputs: &[Input]) -> Details {
    let all: Vec<Details> = inputs.iter().map(|input| details_of(&input.cache)).collect();
    let unordered = |details: &Details| {
        let mut details = details.clone();
        details.remove(details::HAS_SEGMENTS);
        details
    };
    let first = unordered(&all[0]);
    if all.iter().any(|details| unordered(details) != first) {
        let has_frames = all.iter().any(|details| details.contains_key(details::HAS_FRAMES));
        return has_frames.then(|| (details::HAS_FRAMES.to_owned(), true.into())).into_iter().collect();
    }
    let mut joined = all[0].clone();
    // Where one set ends and the next begins, a clip ends, even if neither had ids of clips.
    if inputs.len() > 1 && joined.contains_key(details::HAS_SEGMENTS) {
        joined.insert(details::HAS_SEGMENTS.to_owned(), true.into());
    }
    joined
}

/// The files of caches that follow each other. What all of them have, and is equal or has an entry per frame, becomes one
/// file; anything else is kept in a folder of its own for each input.
pub(super) fn of_merge(inputs: &[Input], joined: &Details) -> Result<Vec<Attachment<'static>>, CacheError> {
    let names: BTreeSet<&String> = inputs.iter().flat_map(|input| attached(input).keys()).collect();
    let mut attachments = Vec::new();
    for name in names {
        if let Some(content) = shared(inputs, name, joined)? {
            attachments.push(Attachment::new(name, content)?);
            continue;
        }
        for (number, input) in inputs.iter().enumerate() {
            if let Some(file) = attached(input).get(name) {
                let path = checked_path(&input.cache, name, file)?;
                let own_name = format!("{ONE_INPUT}{}/{name}", number + 1);
                attachments.push(Attachment::new(own_name, Content::Files(vec![path]))?);
            }
        }
    }
    Ok(attachments)
}

fn attached(input: &Input) -> &BTreeMap<String, AttachedFile> {
    &input.identity.source.attached
}

/// What the file `name` of all inputs becomes; `None` where they have no file in common.
fn shared(inputs: &[Input], name: &str, joined: &Details) -> Result<Option<Content<'static>>, CacheError> {
    let files: Vec<_> = inputs.iter().filter_map(|input| Some((input, attached(input).get(name)?))).collect();
    if files.len() < inputs.len() || is_of_one_input(name) {
        return Ok(None);
    }
    let paths: Result<Vec<PathBuf>, _> =
        files.iter().map(|(input, file)| checked_path(&input.cache, name, file)).collect();
    let mut paths = paths?;
    if name == METADATA_FILE {
        // It belongs to the layout.
        return if joined.contains_key(details::DTYPE) { shared_metadata(inputs, &paths) } else { Ok(None) };
    }
    let entries: Vec<_> = files.iter().map(|(input, file)| entry_bytes(name, file, &input.cache)).collect();
    let is_equal = files.iter().all(|(_, file)| *file == files[0].1);
    let has_entries = entries[0].is_some() && entries.iter().all(|bytes| *bytes == entries[0]);
    if has_entries && (!is_equal || name.starts_with(ACTIONS)) {
        return Ok(Some(Content::Files(paths)));
    }
    paths.truncate(1);
    Ok(is_equal.then_some(Content::Files(paths)))
}

/// The metadata of all frames, if the inputs' differ in nothing but the number of frames.
fn shared_metadata(inputs: &[Input], paths: &[PathBuf]) -> Result<Option<Content<'static>>, CacheError> {
    let count = inputs.iter().map(Input::num_encoded).sum();
    let texts: Result<Vec<String>, CacheError> = paths.iter().map(|path| renumbered(path, count)).collect();
    let mut texts = texts?;
    let is_like_first = |text: &String| {
        let value = |text: &str| serde_json::from_str::<Value>(text).ok();
        value(text) == value(&texts[0])
    };
    Ok(texts.iter().all(is_like_first).then(|| Content::Bytes(texts.swap_remove(0).into_bytes())))
}

/// Bytes of the entry that each image has in a file; `None` for a file without entries.
fn entry_bytes(name: &str, file: &AttachedFile, cache: &TokenCache) -> Option<u64> {
    let images = cache.num_images() as u64;
    let has_entries = name.ends_with(ENTRIES_ENDING) && !is_of_one_input(name) && file.bytes > 0;
    (has_entries && images > 0 && file.bytes.is_multiple_of(images)).then(|| file.bytes / images)
}

/// Whether a merge took the file from one of its inputs: its entries, if it has some, are those of other rows.
fn is_of_one_input(name: &str) -> bool {
    let number = name.strip_prefix(ONE_INPUT).and_then(|rest| rest.split_once('/'));
    number.is_some_and(|(number, _)| number.parse::<usize>().is_ok())
}

/// Where the file `name` of a cache lies, once it is known to be what the manifest says.
fn checked_path(cache: &TokenCache, name: &str, expected: &AttachedFile) -> Result<PathBuf, CacheError> {
    let local = LocalFolder::of_attached(cache.dir(), cache.manifest())?;
    let path = attached_path(local.path(), name)
        .ok_or_else(|| import_error(cache.dir(), "name of an attached file", "a relative path".into(), name))?;
    if !path.exists() {
        let expected = "there, as the manifest says: copy it to its place, or run the import again".to_owned();
        return Err(import_error(&path, "attached file", expected, "missing"));
    }
    let actual = AttachedFile::of(&path)?;
    if actual != *expected {
        let expected = format!("{}, as the manifest says: run the import again", expected.blake3);
        return Err(import_error(&path, "checksum", expected, actual.blake3));
    }
    Ok(path)
}

/// The text of a metadata file for `count` frames.
fn renumbered(path: &std::path::Path, count: usize) -> Result<String, CacheError> {
    let text = read_at_most(path, METADATA_BYTES_MAX)?;
    let edited = std::str::from_utf8(&text).ok().and_then(|text| with_num_images(text, count));
    edited.ok_or_else(|| import_error(path, "content", "a JSON object".into(), "something else"))
}
