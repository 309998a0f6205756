//! What is at a path: found out from its kind, from how a file begins, and last from its name.

use super::cancel::Cancel;
use super::files::SourceFile;
use super::options::Columns;
use super::splits::{order, split_of_file};
use super::text::count;
use super::tree::Tree;
use super::{Contents, SourceOptions, has_extension, list, parquet, pattern, remote, tar, tree};
use crate::decode::Format;
use crate::error::IngestError;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use tokengrid_store::is_remote;

/// Kinds of files that hold images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    Tar,
    Parquet,
    /// What cannot be read by position, and what makes it readable.
    Compressed(&'static str, &'static str),
}

const GZIP: Container = Container::Compressed("compressed with gzip", "gunzip --keep");
const BZIP2: Container = Container::Compressed("compressed with bzip2", "bunzip2 --keep");
const XZ: Container = Container::Compressed("compressed with xz", "unxz --keep");
const ZSTD: Container = Container::Compressed("compressed with zstd", "unzstd --keep");
const ZIP: Container = Container::Compressed("a zip archive", "unzip");

/// Recognises what is at `path` and lists it.
pub(super) fn open(path: &Path, options: &SourceOptions, cancel: Cancel<'_>) -> Result<Contents, IngestError> {
    let contents = open_any(path, options, cancel)?;
    if let Some(image) = options.image_column.as_ref().filter(|_| contents.table.len() == 0 && contents.ignored > 0) {
        let problem = format!("no sample has a picture that ends in '.{image}' (--image-column)");
        return Err(IngestError::Samples { path: path.to_owned(), problem });
    }
    let has_columns = matches!(contents.kind, "Parquet" | "WebDataset");
    let wants_label = options.label_column.is_some() && !options.columns().without_labels();
    if !has_columns && (options.image_column.is_some() || wants_label) {
        return Err(IngestError::NoColumns { path: path.to_owned(), kind: contents.kind });
    }
    Ok(contents)
}

fn open_any(path: &Path, options: &SourceOptions, cancel: Cancel<'_>) -> Result<Contents, IngestError> {
    let columns = options.columns();
    if is_remote(path) {
        return remote::open(path, options, cancel);
    }
    let metadata = match path.metadata() {
        Ok(metadata) => metadata,
        Err(error) => return open_pattern(path, columns, cancel).unwrap_or_else(|| Err(not_there(path, error))),
    };
    if metadata.is_dir() {
        return match tree::open(path, options, cancel)? {
            Tree::Images(contents) => Ok(*contents),
            Tree::Containers(paths) => open_folder(path, all_here(paths), columns, cancel),
        };
    }
    if has_extension(path, &["txt"]) {
        return list::open(path, options, cancel);
    }
    open_files(path, all_here(vec![path.to_owned()]), columns, cancel)
}

fn all_here(paths: Vec<PathBuf>) -> Vec<SourceFile> {
    paths.into_iter().map(SourceFile::here).collect()
}

fn not_there(path: &Path, source: io::Error) -> IngestError {
    match source.kind() {
        io::ErrorKind::NotFound => IngestError::NotFound { path: path.to_owned() },
        _ => IngestError::Unreadable { path: path.to_owned(), source },
    }
}

/// The files that a pattern stands for, if the path is one. All of them must be there.
fn open_pattern(path: &Path, columns: Columns<'_>, cancel: Cancel<'_>) -> Option<Result<Contents, IngestError>> {
    let paths = match pattern::expand(path)? {
        Ok(paths) => paths,
        Err(problem) => return Some(Err(IngestError::Pattern { path: path.to_owned(), problem })),
    };
    let missing: Vec<_> = paths.iter().filter(|path| !path.exists()).collect();
    if let Some(first) = missing.first() {
        let are = if missing.len() == 1 { "is" } else { "are" };
        let of = count(paths.len(), "file");
        let problem = format!("{} of its {of} {are} missing, first {}", missing.len(), first.display());
        return Some(Err(IngestError::Pattern { path: path.to_owned(), problem }));
    }
    Some(open_files(path, all_here(paths), columns, cancel))
}

/// A folder with containers in it and no images.
pub(super) fn open_folder(
    root: &Path,
    paths: Vec<SourceFile>,
    columns: Columns<'_>,
    cancel: Cancel<'_>,
) -> Result<Contents, IngestError> {
    let mut splits: BTreeMap<&str, Vec<&Path>> = BTreeMap::new();
    for path in &paths {
        splits.entry(split_of(path).unwrap_or("")).or_default().push(path);
    }
    if splits.keys().filter(|split| !split.is_empty()).count() > 1 {
        splits.remove("");
        let mut names: Vec<&str> = splits.keys().copied().collect();
        names.sort_by_key(|name| order(name));
        let example = names.first().and_then(|first| example(&splits[first]));
        let splits = names.into_iter().map(str::to_owned).collect();
        return Err(IngestError::SplitContainers { path: root.to_owned(), splits, example });
    }
    // Archives of something else may lie beside tars: the development kit of ImageNet does.
    let (readable, compressed): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| !is_compressed_name(path));
    if readable.is_empty() {
        return open_files(root, compressed, columns, cancel);
    }
    let mut contents = open_files(root, readable, columns, cancel)?;
    contents.ignored += compressed.len();
    Ok(contents)
}

/// How to name one split of a folder: the pattern of its files where they are numbered, else the first of them.
fn example(paths: &[&Path]) -> Option<String> {
    let (first, last) = (paths.first()?.to_str()?, paths.last()?.to_str()?);
    Some(numbered(first, last).unwrap_or_else(|| first.to_owned()))
}

/// The pattern of files whose names differ in one number.
fn numbered(first: &str, last: &str) -> Option<String> {
    let differs = first.bytes().zip(last.bytes()).position(|(a, b)| a != b)?;
    let is_digit = |byte: &&u8| byte.is_ascii_digit();
    let start = differs - first.as_bytes()[..differs].iter().rev().take_while(is_digit).count();
    let end = start + first.as_bytes()[start..].iter().take_while(is_digit).count();
    let (from, to) = (first.get(start..end)?, last.get(start..end)?);
    let is_number = !from.is_empty() && to.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && first[end..] == *last.get(end..)?)
        .then(|| format!("{}{{{from}..{to}}}{}", &first[..start], &first[end..]))
}

/// Opens containers of one kind as one source.
pub(super) fn open_files(
    root: &Path,
    mut paths: Vec<SourceFile>,
    columns: Columns<'_>,
    cancel: Cancel<'_>,
) -> Result<Contents, IngestError> {
    let mut kinds = Vec::new();
    for path in &paths {
        cancel.check()?;
        let kind = kind_of(path, paths.len() > 1)?;
        if let Container::Compressed(container, command) = kind {
            return Err(IngestError::Compressed { path: path.to_path_buf(), container, command });
        }
        kinds.push(kind);
    }
    let tables = drop_tables(&mut paths, &mut kinds);
    if let Some(other) = kinds.iter().position(|kind| *kind != kinds[0]) {
        let (first, second) = (paths[0].to_path_buf(), paths[other].to_path_buf());
        return Err(IngestError::MixedContainers { path: root.to_owned(), first, second });
    }
    let mut contents = match kinds[0] {
        Container::Parquet => parquet::open(root, paths, columns, cancel)?,
        _ => tar::open(root, paths, columns, cancel)?,
    };
    contents.ignored += tables;
    match contents.table.first_broken() {
        Some((place, reason)) if contents.table.num_broken() == contents.table.len() => Err(IngestError::AllDamaged {
            path: root.to_owned(),
            damaged: contents.table.num_broken(),
            place: place.to_owned(),
            reason: reason.to_owned(),
        }),
        _ => Ok(contents),
    }
}

/// Drops Parquet files without images beside tars, which describe the images in the tars: img2dataset writes
/// `00000.parquet` beside `00000.tar`. Returns how many there were.
fn drop_tables(paths: &mut Vec<SourceFile>, kinds: &mut Vec<Container>) -> usize {
    if !kinds.contains(&Container::Tar) {
        return 0;
    }
    let all = std::mem::take(paths).into_iter().zip(std::mem::take(kinds));
    let is_table = |(path, kind): &(SourceFile, Container)| *kind == Container::Parquet && !parquet::has_images(path);
    let (tables, containers): (Vec<_>, Vec<_>) = all.partition(is_table);
    (*paths, *kinds) = containers.into_iter().unzip();
    tables.len()
}

/// What a file is. Of many, one that cannot be read or recognised is what its name says: it will be found damaged.
fn kind_of(path: &SourceFile, is_one_of_many: bool) -> Result<Container, IngestError> {
    let mut start = [0; 512];
    let read = path.open().and_then(|blob| blob.read_up_to(&mut start, 0));
    let start = match read {
        Ok(length) => &start[..length],
        Err(_) if is_one_of_many => &[],
        Err(source) => return Err(IngestError::Unreadable { path: path.to_path_buf(), source }),
    };
    by_content(start).or_else(|| by_name(path)).ok_or_else(|| {
        let found = Format::of(start).map_or("a file of another kind".to_owned(), |f| format!("a single {f} file"));
        IngestError::NotASource { path: path.to_path_buf(), found }
    })
}

fn by_content(start: &[u8]) -> Option<Container> {
    match start {
        [b'P', b'A', b'R', b'1', ..] => Some(Container::Parquet),
        [0x1F, 0x8B, ..] => Some(GZIP),
        [b'B', b'Z', b'h', ..] => Some(BZIP2),
        [0xFD, b'7', b'z', b'X', b'Z', ..] => Some(XZ),
        [0x28, 0xB5, 0x2F, 0xFD, ..] => Some(ZSTD),
        [b'P', b'K', 3, 4, ..] => Some(ZIP),
        _ => (start.get(257..262) == Some(b"ustar")).then_some(Container::Tar),
    }
}

fn by_name(path: &Path) -> Option<Container> {
    let name = path.to_string_lossy().to_ascii_lowercase();
    let endings = [
        (&[".tar"][..], Container::Tar),
        (&[".parquet"], Container::Parquet),
        (&[".tar.gz", ".tgz"], GZIP),
        (&[".tar.bz2", ".tbz2"], BZIP2),
        (&[".tar.xz", ".txz"], XZ),
        (&[".tar.zst"], ZSTD),
        (&[".zip"], ZIP),
    ];
    let found = endings.iter().find(|(endings, _)| endings.iter().any(|ending| name.ends_with(ending)));
    found.map(|(_, container)| *container)
}

/// Whether a file's name is that of a container, readable or compressed.
pub(super) fn is_container_name(path: &Path) -> bool {
    by_name(path).is_some()
}

fn is_compressed_name(path: &Path) -> bool {
    matches!(by_name(path), Some(Container::Compressed(..)))
}

/// The part of a data set that a file is named after: `train` for `train-00000-of-00294.parquet`.
fn split_of(path: &Path) -> Option<&'static str> {
    split_of_file(&path.file_name()?.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbered_files_are_named_by_a_pattern() {
        let pattern = numbered("d1/val-00000-of-00014.parquet", "d1/val-00013-of-00014.parquet");
        assert_eq!(pattern.as_deref(), Some("d1/val-{00000..00013}-of-00014.parquet"));
        for (first, last) in
            [("a.tar", "b.tar"), ("1.tar", "12.tar"), ("\u{e9}1.tar", "\u{e8}1.tar"), ("1a", "2b"), ("x", "x")]
        {
            assert_eq!(numbered(first, last), None, "{first} {last}");
        }
    }
}
