//! Lists whose lines are URLs, and lists that lie in a bucket: lines are URLs, or paths below the list's folder.

use super::objects::{Objects, Where};
use crate::error::IngestError;
use crate::source::cancel::Cancel;
use crate::source::keys::key_part;
use crate::source::list::{normalize, split_label};
use crate::source::table::Place as Row;
use crate::source::text::without_bom;
use crate::source::{Contents, Store, Table};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tokengrid_store::{Bucket, Object, Place, is_remote};

/// Largest list that is read from a bucket, in bytes.
const MAX_LIST_BYTES: u64 = 1 << 30;

/// Whether a line of a list is a URL.
pub(in crate::source) fn has_urls(text: &[u8]) -> bool {
    text.split(|&byte| byte == b'\n')
        .any(|line| std::str::from_utf8(line).is_ok_and(|line| is_remote(Path::new(line.trim()))))
}

/// A list that is an object.
pub(super) fn open_object(
    url: &Path,
    place: &Place,
    bucket: &Bucket,
    object: &Object,
    cancel: Cancel<'_>,
) -> Result<Contents, IngestError> {
    let text = bucket.fetch_all(&object.key, MAX_LIST_BYTES)?.wait()?;
    let root = PathBuf::from(place.folder().to_string());
    open_list(url, &root, &text, cancel)
}

/// The images of a list's text. `root` is the list's folder, a path or a URL.
pub(in crate::source) fn open_list(
    list: &Path,
    root: &Path,
    text: &[u8],
    cancel: Cancel<'_>,
) -> Result<Contents, IngestError> {
    let text = without_bom(text);
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.split(|&byte| byte == b'\n')) {
        let line = line.trim_ascii_end();
        if !line.is_empty() {
            let refuse = |problem: String| IngestError::ListLine { path: list.to_owned(), line: number, problem };
            lines.push(Line::parse(number, line, root).map_err(refuse)?);
        }
    }
    cancel.check()?;
    let keys = keys_of(list, root, &lines)?;
    let (mut table, mut buckets, mut images) = (Table::default(), Buckets::default(), Vec::new());
    for (line, key) in lines.iter().zip(keys) {
        table.push(&key, line.label, Row { file: 0, at: images.len() as u64, length: 0 });
        images.push(match Place::parse(Path::new(&line.target))? {
            Some(place) => {
                let refuse = |problem| IngestError::ListLine { path: list.to_owned(), line: line.number, problem };
                let bucket = buckets.number_of(&place, refuse)?;
                Where::Object { bucket, key: place.key().into(), bytes: None }
            }
            None => Where::File(PathBuf::from(&line.target)),
        });
    }
    let store = Store::Objects(Objects::new(buckets.buckets, images));
    Ok(Contents { kind: "file list", table, store, ..Contents::new(root) })
}

/// A line, understood: where the image lies, as text.
struct Line {
    number: usize,
    target: String,
    label: i32,
}

impl Line {
    fn parse(number: usize, text: &[u8], root: &Path) -> Result<Line, String> {
        let (name, label) = split_label(text)?;
        let name = std::str::from_utf8(name).map_err(|_| "a name that is not UTF-8".to_owned())?;
        let path = Path::new(name);
        let target = if is_remote(path) {
            name.to_owned()
        } else {
            let plain = normalize(path)?;
            let is_in_bucket = is_remote(root);
            if plain.is_absolute() && is_in_bucket {
                return Err(format!("'{name}' is a path of some machine, in a list that lies in a bucket"));
            }
            root.join(plain).to_string_lossy().into_owned()
        };
        Ok(Line { number, target, label })
    }
}

/// A key for each line: the path below the list's folder; for what lies elsewhere the path below the folder that all of that
/// has in common.
fn keys_of(list: &Path, root: &Path, lines: &[Line]) -> Result<Vec<String>, IngestError> {
    let inside = format!("{}/", root.to_string_lossy().trim_end_matches('/'));
    let is_outside = |line: &&Line| !line.target.starts_with(&inside);
    let outside = common_folder(lines.iter().filter(is_outside).map(|line| line.target.as_str()));
    let (mut keys, mut by_key, mut by_target) = (Vec::new(), HashMap::new(), HashMap::new());
    for line in lines {
        let below = line.target.strip_prefix(&inside).or_else(|| line.target.strip_prefix(outside));
        let name = key_part(below.unwrap_or(&line.target).as_ref()).0;
        if let Some(earlier) = by_target.insert(line.target.as_str(), line.number) {
            let problem = format!("names the same file as line {earlier}, '{name}'");
            return Err(IngestError::ListLine { path: list.to_owned(), line: line.number, problem });
        }
        let (mut key, mut copy) = (name.clone(), 1);
        // Names of several folders may be equal where some files lie below the list and others do not, and so may escaped ones.
        while by_key.insert(key.clone(), line.number).is_some() {
            copy += 1;
            key = format!("{name}~{copy}");
        }
        keys.push(key);
    }
    Ok(keys)
}

/// The folder that holds all of them, with a `/` at its end; at least a URL's scheme and bucket stay in front.
fn common_folder<'a>(mut targets: impl Iterator<Item = &'a str>) -> &'a str {
    let Some(first) = targets.next() else { return "" };
    let folder_of = |text: &'a str| &text[..text.rfind('/').map_or(0, |slash| slash + 1)];
    let mut folder = folder_of(first);
    for target in targets {
        while !target.starts_with(folder) {
            folder = folder_of(&folder[..folder.len() - 1]);
        }
    }
    folder
}

/// Buckets in the order in which lines name them.
#[derive(Default)]
struct Buckets {
    buckets: Vec<Bucket>,
    numbers: HashMap<String, u16>,
}

impl Buckets {
    /// The number of the bucket of `place`; `refuse` makes the error for one bucket too many.
    fn number_of(&mut self, place: &Place, refuse: impl Fn(String) -> IngestError) -> Result<u16, IngestError> {
        if let Some(number) = self.numbers.get(place.root()) {
            return Ok(*number);
        }
        let number = u16::try_from(self.buckets.len()).unwrap_or(u16::MAX);
        if number == u16::MAX {
            return Err(refuse(format!("names more than {number} buckets or hosts with those before")));
        }
        self.buckets.push(Bucket::of(place)?);
        self.numbers.insert(place.root().to_owned(), number);
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(root: &str, names: &[&str]) -> Vec<String> {
        let line = |(number, name): (usize, &&str)| Line::parse(number, name.as_bytes(), Path::new(root)).unwrap();
        let lines: Vec<Line> = names.iter().enumerate().map(line).collect();
        keys_of(Path::new("list.txt"), Path::new(root), &lines).unwrap()
    }

    #[test]
    fn keys_are_those_of_the_same_files_in_a_folder() {
        assert_eq!(keys("s3://b/d", &["n01/a.jpg 3", "s3://b/d/n02/b.jpg"]), ["n01/a.jpg", "n02/b.jpg"]);
        assert_eq!(keys("lists", &["s3://b/d/n01/a.jpg", "s3://b/d/n02/a.jpg"]), ["n01/a.jpg", "n02/a.jpg"]);
        assert_eq!(keys("/l", &["gs://b/a.jpg", "s3://b/a.jpg"]).len(), 2);
        assert_eq!(keys("s3://b/d", &["a.jpg", "s3://c/a.jpg"]), ["a.jpg", "a.jpg~2"]);
        assert!(has_urls(b"a.jpg\n https://h/b.jpg 1\n") && !has_urls(b"a.jpg\nb:/c//d.jpg\n"));
    }

    #[test]
    fn the_line_of_one_bucket_too_many_is_named() {
        let place = |url: &str| Place::parse(Path::new(url)).unwrap().unwrap();
        let bucket = Bucket::of(&place("https://known.test/a.jpg")).unwrap();
        let mut full = Buckets { buckets: vec![bucket; usize::from(u16::MAX)], ..Buckets::default() };
        let refuse = |problem| IngestError::ListLine { path: "list.txt".into(), line: 7, problem };
        let error = full.number_of(&place("https://another.test/b.jpg"), refuse).unwrap_err().to_string();
        assert!(error.starts_with("list.txt line 7: names more than 65535 buckets"), "{error}");
    }
}
