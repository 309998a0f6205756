//! A text file that lists images, one per line.

use super::cancel::Cancel;
use super::keys::key_part;
use super::remote::{has_urls, open_list};
use super::select::Collector;
use super::text::without_bom;
use super::{Contents, SourceOptions};
use crate::error::IngestError;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

pub(super) fn open(path: &Path, options: &SourceOptions, cancel: Cancel<'_>) -> Result<Contents, IngestError> {
    let text = fs::read(path).map_err(|source| IngestError::Unreadable { path: path.to_owned(), source })?;
    let text = without_bom(&text);
    if has_urls(&text) {
        let folder = std::path::absolute(path).ok().and_then(|path| path.parent().map(Path::to_owned));
        return open_list(path, folder.as_deref().unwrap_or(Path::new("/")), &text, cancel);
    }
    let root = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let refuse = |line: usize, problem: String| IngestError::ListLine { path: path.to_owned(), line, problem };
    let (mut lines, mut folder) = (Vec::new(), Folder::new(root));
    for (number, line) in (1..).zip(text.split(|&byte| byte == b'\n')) {
        let line = line.trim_ascii_end();
        if !line.is_empty() {
            lines.push(Line::parse(number, line, &mut folder).map_err(|problem| refuse(number, problem))?);
        }
    }
    let outside = Outside::of(&lines);
    // Where all files lie elsewhere, what keys are relative to is their common folder.
    let root = if outside.is_all { outside.folder.as_path() } else { root };
    let mut keys = Keys::default();
    let mut missing = Missing::default();
    let mut collector = Collector::new(options);
    for line in lines {
        cancel.check()?;
        cancel.count(1);
        let item = keys.item(&line, &outside).map_err(|problem| refuse(line.number, problem))?;
        let path = root.join(&line.path);
        if path.is_dir() {
            let problem = format!("'{}' is a folder; list the images in it, or give the folder itself", item.key);
            return Err(refuse(line.number, problem));
        }
        if !path.is_file() {
            missing.add(line.number, &item.key);
        }
        collector.add(&item.key, item.odd_path, line.label);
    }
    missing.check(path, root, keys.lines.len())?;
    Ok(collector.finish(root, "file list", Vec::new()))
}

/// A line, understood.
struct Line {
    number: usize,
    /// Relative to the list's folder, or absolute if the file lies elsewhere.
    path: PathBuf,
    label: i32,
}

impl Line {
    fn parse(number: usize, text: &[u8], folder: &mut Folder<'_>) -> Result<Line, String> {
        let (name, label) = split_label(text)?;
        let path = Path::new(OsStr::from_bytes(name));
        let plain = normalize(path)?;
        // Behind a link, `..` leads elsewhere than the text says.
        if plain != path
            && path.components().any(|c| c == Component::ParentDir)
            && !is_same(&folder.path.join(path), &folder.path.join(&plain))
        {
            return Err(format!("'{}' has '..' behind a link in it; write the path without", path.display()));
        }
        let path = if plain.is_absolute() { folder.strip(&plain) } else { plain };
        Ok(Line { number, path, label })
    }
}

/// The list's folder, under any of its paths.
struct Folder<'a> {
    path: &'a Path,
    absolute: Option<PathBuf>,
    resolved: Option<PathBuf>,
    /// Whether another path leads to it, for those already checked.
    known: HashMap<PathBuf, bool>,
}

impl<'a> Folder<'a> {
    fn new(path: &'a Path) -> Folder<'a> {
        let (absolute, resolved) = (std::path::absolute(path).ok(), fs::canonicalize(path).ok());
        Folder { path, absolute, resolved, known: HashMap::new() }
    }

    /// The part of an absolute path below the folder, if it lies there.
    fn strip(&mut self, path: &Path) -> PathBuf {
        let names = [&self.absolute, &self.resolved];
        if let Some(below) = names.into_iter().flatten().find_map(|name| path.strip_prefix(name).ok()) {
            return below.to_owned();
        }
        let folder = path.ancestors().skip(1).find(|ancestor| self.is_at(ancestor));
        folder.and_then(|folder| path.strip_prefix(folder).ok()).unwrap_or(path).to_owned()
    }

    fn is_at(&mut self, path: &Path) -> bool {
        if let Some(known) = self.known.get(path) {
            return *known;
        }
        let is_at = self.resolved.is_some() && fs::canonicalize(path).ok() == self.resolved;
        self.known.insert(path.to_owned(), is_at);
        is_at
    }
}

/// Whether two paths lead to the same file, or to none.
fn is_same(a: &Path, b: &Path) -> bool {
    match (fs::canonicalize(a), fs::canonicalize(b)) {
        (Ok(a), Ok(b)) => a == b,
        (Err(_), Err(_)) => true,
        _ => false,
    }
}

/// Files that lie outside of the list's folder, named by absolute paths.
struct Outside {
    /// The folder that holds them all.
    folder: PathBuf,
    /// Whether there are no others.
    is_all: bool,
}

impl Outside {
    fn of(lines: &[Line]) -> Outside {
        let mut paths = lines.iter().map(|line| line.path.as_path()).filter(|path| path.is_absolute());
        let Some(first) = paths.next() else { return Outside { folder: PathBuf::new(), is_all: false } };
        let mut folder = first.parent().unwrap_or(first);
        for path in paths {
            while !path.starts_with(folder) {
                folder = folder.parent().unwrap_or(Path::new("/"));
            }
        }
        Outside { folder: folder.to_owned(), is_all: lines.iter().all(|line| line.path.is_absolute()) }
    }
}

/// The name of an image, and its path where the name is another.
struct Item {
    key: String,
    odd_path: Option<PathBuf>,
}

/// Keys given so far, and their lines and files.
#[derive(Default)]
struct Keys {
    lines: HashMap<String, usize>,
    files: HashMap<PathBuf, usize>,
}

impl Keys {
    fn item(&mut self, line: &Line, outside: &Outside) -> Result<Item, String> {
        let relative = line.path.strip_prefix(&outside.folder).unwrap_or(&line.path);
        let (mut key, is_escaped) = key_part(relative.as_os_str());
        let is_outside = line.path.is_absolute();
        // One name may stand for several files: those with odd characters, and those of several folders.
        let is_odd = is_escaped || (is_outside && !outside.is_all);
        if let Some(&earlier) = self.lines.get(&key).filter(|_| !is_odd) {
            return Err(format!("names the same file as line {earlier}, '{key}'"));
        }
        if let Some(earlier) = is_odd.then(|| self.files.insert(line.path.clone(), line.number)).flatten() {
            return Err(format!("names the same file as line {earlier}, '{key}'"));
        }
        let (name, mut copy) = (key.clone(), 1);
        while self.lines.contains_key(&key) {
            copy += 1;
            key = format!("{name}~{copy}");
        }
        self.lines.insert(key.clone(), line.number);
        Ok(Item { key, odd_path: is_odd.then(|| line.path.clone()) })
    }
}

/// Listed files that are not there.
#[derive(Default)]
struct Missing {
    first: Option<(usize, String)>,
    count: usize,
}

impl Missing {
    fn add(&mut self, line: usize, key: &str) {
        self.first.get_or_insert_with(|| (line, key.to_owned()));
        self.count += 1;
    }

    fn check(self, list: &Path, root: &Path, total: usize) -> Result<(), IngestError> {
        let Some((line, first)) = self.first else { return Ok(()) };
        let (path, root, missing) = (list.to_owned(), root.to_owned(), self.count);
        Err(IngestError::ListMissing { path, root, line, first, missing, total })
    }
}

/// Path and label of a line: what follows a tab must be an integer; without a tab, an integer at the end of the line after
/// white space is the label.
pub(super) fn split_label(line: &[u8]) -> Result<(&[u8], i32), String> {
    let integer = |text: &[u8]| std::str::from_utf8(text).ok().and_then(|t| t.trim().parse::<i32>().ok());
    if let Some(tab) = line.iter().rposition(|&b| b == b'\t') {
        let (name, label) = (&line[..tab], &line[tab + 1..]);
        let label = integer(label)
            .filter(|&label| label >= -1)
            .ok_or_else(|| format!("the label '{}' is not a class index", label.escape_ascii()))?;
        return Ok((name.trim_ascii_end(), label));
    }
    let Some(space) = line.iter().rposition(u8::is_ascii_whitespace) else { return Ok((line, -1)) };
    match integer(&line[space + 1..]) {
        Some(label) if label >= -1 && !line[..space].trim_ascii().is_empty() => {
            Ok((line[..space].trim_ascii_end(), label))
        }
        _ => Ok((line, -1)),
    }
}

/// Drops `.`, doubled slashes, and `..` with the folder before it. A relative path that leads out is refused: keys would depend
/// on what the folder is called.
pub(super) fn normalize(path: &Path) -> Result<PathBuf, String> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                if !plain.pop() {
                    let place = if path.is_absolute() { "of the file system" } else { "of the list's folder" };
                    return Err(format!("'{}' leads out {place}; write an absolute path", path.display()));
                }
            }
            _ => plain.push(component),
        }
    }
    if plain.file_name().is_none() { Err(format!("'{}' is not a file", path.display())) } else { Ok(plain) }
}
