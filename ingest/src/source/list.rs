//! A text file that lists images, one a line.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::keys::key_part;
use super::select::Collector;
use super::{Contents, SourceOptions};
use crate::error::IngestError;

pub(super) fn open(path: &Path, options: &SourceOptions) -> Result<Contents, IngestError> {
    let text = fs::read(path).map_err(|source| IngestError::Unreadable { path: path.to_owned(), source })?;
    let text = text.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(&text);
    let root = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut reader = Reader { list: path, root, lines_by_key: HashMap::new(), missing: None };
    let mut collector = Collector::new(options);
    for (number, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let line = line.trim_ascii_end();
        if line.is_empty() {
            continue;
        }
        let item = reader.item(number + 1, line)?;
        collector.add(&item.key, item.odd_path, item.label);
    }
    reader.check_missing()?;
    Ok(collector.finish(root, "file list", Vec::new()))
}

/// One line, understood.
struct Item {
    key: String,
    odd_path: Option<PathBuf>,
    label: i32,
}

/// Reads lines and remembers what must hold for all of them.
struct Reader<'a> {
    list: &'a Path,
    root: &'a Path,
    lines_by_key: HashMap<String, usize>,
    missing: Option<Missing>,
}

struct Missing {
    line: usize,
    first: String,
    count: usize,
}

impl Reader<'_> {
    fn item(&mut self, line: usize, text: &[u8]) -> Result<Item, IngestError> {
        let refuse = |problem: String| IngestError::ListLine { path: self.list.to_owned(), line, problem };
        let (name, label) = split_label(text).map_err(refuse)?;
        let relative = normalize(Path::new(OsStr::from_bytes(name))).map_err(refuse)?;
        let (mut key, odd) = key_part(relative.as_os_str());
        if !odd && let Some(&earlier) = self.lines_by_key.get(&key) {
            return Err(refuse(format!("names the same file as line {earlier}, '{key}'")));
        }
        while self.lines_by_key.contains_key(&key) {
            key.push('~');
        }
        self.lines_by_key.insert(key.clone(), line);
        if !self.root.join(&relative).is_file() {
            let missing = self.missing.get_or_insert(Missing { line, first: key.clone(), count: 0 });
            missing.count += 1;
        }
        Ok(Item { key, odd_path: odd.then_some(relative), label })
    }

    fn check_missing(self) -> Result<(), IngestError> {
        let Some(Missing { line, first, count }) = self.missing else { return Ok(()) };
        Err(IngestError::ListMissing {
            path: self.list.to_owned(),
            root: self.root.to_owned(),
            line,
            first,
            missing: count,
            total: self.lines_by_key.len(),
        })
    }
}

/// Path and label of a line: what follows a tab must be an integer; without a tab, an integer at the end of the line after
/// white space is the label.
fn split_label(line: &[u8]) -> Result<(&[u8], i32), String> {
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

/// Drops `.` and doubled slashes. Absolute paths and `..` are refused: keys would depend on where the list lies.
fn normalize(path: &Path) -> Result<PathBuf, String> {
    let mut relative = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => relative.push(part),
            Component::CurDir => {}
            Component::ParentDir => return Err(format!("'{}' leads out of the list's folder", path.display())),
            _ => return Err(format!("'{}' is an absolute path", path.display())),
        }
    }
    if relative.as_os_str().is_empty() { Err(format!("'{}' is no file", path.display())) } else { Ok(relative) }
}
