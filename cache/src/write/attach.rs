//! Files that are kept beside the rows of a new cache: what they are made of, and how they come there.

use crate::cancel;
use crate::error::{CacheError, io_error};
use crate::files::atomic::AtomicFile;
use crate::format::attached::{ATTACHED_FOLDER, AttachedFile, attached_path, visit_chunks};
use crate::import::error::import_error;
use crate::write::writer::OpenMode;
use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Bytes that are gathered before they are handed on.
const CHUNK_BYTES: usize = 1 << 20;

/// Numbers of images in ascending order, from the first one at each call.
pub(crate) type Images<'a> = &'a dyn Fn() -> Box<dyn Iterator<Item = usize> + 'a>;

/// What an attached file is made of.
pub(crate) enum Content<'a> {
    /// Files, one after the other.
    Files(Vec<PathBuf>),
    /// A file with `entry_bytes` bytes per image, of which those of `images` are taken.
    Entries { path: PathBuf, entry_bytes: u64, images: Images<'a> },
    /// These bytes.
    Bytes(Vec<u8>),
}

/// A file to attach.
pub(crate) struct Attachment<'a> {
    name: String,
    content: Content<'a>,
    file: AttachedFile,
}

impl<'a> Attachment<'a> {
    /// # Errors
    /// As [`AttachedFile::of`] for each file that it is made of.
    pub(crate) fn new(name: impl Into<String>, content: Content<'a>) -> Result<Attachment<'a>, CacheError> {
        let (mut hasher, mut bytes) = (blake3::Hasher::new(), 0);
        content.visit(&mut |chunk| {
            hasher.update(chunk);
            bytes += chunk.len() as u64;
            Ok(())
        })?;
        let file = AttachedFile { bytes, blake3: hasher.finalize().to_hex().to_string() };
        Ok(Attachment { name: name.into(), content, file })
    }

    /// Writes the file into the cache's folder `out`, unless it is there.
    fn write(&self, out: &Path) -> Result<(), CacheError> {
        let target = attached_path(out, &self.name)
            .ok_or_else(|| import_error(out, "name of an attached file", "a relative path".into(), &self.name))?;
        if target.exists() && AttachedFile::of(&target)? == self.file {
            return Ok(());
        }
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(io_error("create folder", folder))?;
        }
        let mut file = AtomicFile::create(&target).map_err(io_error("create", &target))?;
        self.content.visit(&mut |chunk| file.write_all(chunk).map_err(io_error("write", &target)))?;
        file.publish().map_err(io_error("write", &target))?;
        let actual = AttachedFile::of(&target)?;
        if actual != self.file {
            let expected = format!("{}, as when this command began", self.file.blake3);
            return Err(import_error(&target, "checksum", expected, actual.blake3));
        }
        Ok(())
    }
}

impl Content<'_> {
    /// Hands on the bytes, some at a time.
    fn visit(&self, visit: &mut dyn FnMut(&[u8]) -> Result<(), CacheError>) -> Result<(), CacheError> {
        match self {
            Content::Files(paths) => paths.iter().try_for_each(|path| visit_chunks(path, visit).map(drop)),
            Content::Entries { path, entry_bytes, images } => visit_entries(path, *entry_bytes, images(), visit),
            Content::Bytes(bytes) => visit(bytes),
        }
    }
}

fn visit_entries(
    path: &Path,
    entry_bytes: u64,
    images: impl Iterator<Item = usize>,
    visit: &mut dyn FnMut(&[u8]) -> Result<(), CacheError>,
) -> Result<(), CacheError> {
    let mut file = File::open(path).map_err(io_error("open", path))?;
    let mut gathered = Vec::with_capacity(CHUNK_BYTES);
    for run in runs(images) {
        file.seek(SeekFrom::Start(run.start as u64 * entry_bytes)).map_err(io_error("read", path))?;
        let mut left = run.len() as u64 * entry_bytes;
        while left > 0 {
            let wanted = left.min((CHUNK_BYTES - gathered.len()) as u64);
            let read = { &mut file }.take(wanted).read_to_end(&mut gathered).map_err(io_error("read", path))?;
            if read == 0 {
                let end = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                return Err(io_error("read", path)(end()));
            }
            left -= read as u64;
            if gathered.len() == CHUNK_BYTES {
                visit(&gathered)?;
                gathered.clear();
                cancel::check()?;
            }
        }
    }
    visit(&gathered)
}

/// Ascending numbers as ranges without gaps.
fn runs(mut numbers: impl Iterator<Item = usize>) -> impl Iterator<Item = Range<usize>> {
    let mut next = numbers.next();
    std::iter::from_fn(move || {
        let start = next?;
        let mut end = start + 1;
        next = numbers.next();
        while next == Some(end) {
            end += 1;
            next = numbers.next();
        }
        Some(start..end)
    })
}

/// What a manifest says about the files.
pub(crate) fn described(attachments: &[Attachment<'_>]) -> BTreeMap<String, AttachedFile> {
    attachments.iter().map(|attachment| (attachment.name.clone(), attachment.file.clone())).collect()
}

/// Writes the files into the folder of the finished cache `out`. After the rows: a folder with these files and nothing else
/// would not be known as a cache's. What is missing when the process dies before is written by the next run of the same
/// command, and until then `verify` names it.
pub(crate) fn attach_all(attachments: &[Attachment<'_>], out: &Path) -> Result<(), CacheError> {
    attachments.iter().try_for_each(|attachment| attachment.write(out))
}

/// Removes the files of the cache that `mode` says to replace, once the folder is claimed.
pub(crate) fn remove_replaced(out: &Path, mode: OpenMode) -> Result<(), CacheError> {
    let folder = out.join(ATTACHED_FOLDER);
    if mode == OpenMode::Overwrite && folder.exists() {
        fs::remove_dir_all(&folder).map_err(io_error("remove", &folder))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_taken_in_runs_across_chunks() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("entries.bin");
        let entry_bytes = 700_001;
        let entries: Vec<Vec<u8>> = (0..6u8).map(|image| vec![image + 1; entry_bytes]).collect();
        fs::write(&path, entries.concat()).unwrap();
        for taken in [vec![], vec![5], vec![0, 1, 2, 4, 5], vec![1, 3]] {
            let images = || -> Box<dyn Iterator<Item = usize>> { Box::new(taken.clone().into_iter()) };
            let content = Content::Entries { path: path.clone(), entry_bytes: entry_bytes as u64, images: &images };
            let mut found = Vec::new();
            content
                .visit(&mut |chunk| {
                    found.extend_from_slice(chunk);
                    Ok(())
                })
                .unwrap();
            let expected: Vec<u8> = taken.iter().flat_map(|image| entries[*image].clone()).collect();
            assert!(found == expected, "{taken:?}");
        }
        let beyond = || -> Box<dyn Iterator<Item = usize>> { Box::new(5..7) };
        let content = Content::Entries { path, entry_bytes: entry_bytes as u64, images: &beyond };
        assert!(Attachment::new("entries.bin", content).is_err());
    }
}
