//! WebDataset: members that share a name up to its first dot are one sample, `x.jpg` with its class in `x.cls` or `x.json`.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;

use serde_json::Value;

use crate::source::imagenet::{is_wnid, key_of_path};
use crate::source::keys::file_name;
use crate::source::table::{Place, Table};
use crate::source::{IMAGE_EXTENSIONS, is_image_name};

/// Largest `.cls` or `.json` member that is read, in bytes.
const MAX_SIDECAR_BYTES: u32 = 1 << 20;

/// A member that says something about an image.
pub(super) struct Sidecar {
    pub(super) key: String,
    pub(super) place: Place,
}

/// What sidecars said.
#[derive(Default)]
pub(super) struct Sidecars {
    any: bool,
    indexed: bool,
    /// Rows whose class is given as a name.
    named: Vec<(usize, String)>,
}

/// The members of a sample.
#[derive(Default)]
struct Sample {
    class: Option<Place>,
    json: Option<Place>,
    /// Its picture: rank of the extension, and row.
    image: Option<(usize, usize)>,
}

impl Sidecars {
    /// Whether there was a sample with a sidecar.
    pub(super) fn any(&self) -> bool {
        self.any
    }

    /// Takes what was said of the rows of a table that will follow `before` others.
    pub(super) fn append(&mut self, other: Sidecars, before: usize) {
        self.any |= other.any;
        self.indexed |= other.indexed;
        self.named.extend(other.named.into_iter().map(|(row, name)| (before + row, name)));
    }

    /// Joins the images of a tar with its sidecars. Returns the number of members that belong to no sample.
    pub(super) fn join(&mut self, table: &mut Table, file: &File, sidecars: Vec<Sidecar>) -> usize {
        if sidecars.is_empty() {
            return 0;
        }
        let mut samples: HashMap<String, Sample> = HashMap::new();
        for Sidecar { key, place } in sidecars {
            let sample = samples.entry(base(&key).to_owned()).or_default();
            let is_class = key.ends_with(['s', 'S']);
            *(if is_class { &mut sample.class } else { &mut sample.json }) = Some(place);
        }
        let spare = choose_images(table, &mut samples);
        let mut keys = HashMap::new();
        let mut ignored = spare.len();
        for sample in samples.values() {
            match sample.image {
                Some((_, row)) => {
                    self.any = true;
                    keys.extend(self.read(table, row, file, sample).map(|key| (row, key)));
                }
                None => ignored += 1,
            }
        }
        for (row, _) in &mut self.named {
            *row -= spare.partition_point(|spare| *spare < *row);
        }
        if !spare.is_empty() || !keys.is_empty() {
            let kept = (0..table.len()).filter(|row| spare.binary_search(row).is_err());
            *table = table.gather(kept, |row, key| keys.get(&row).map_or(key, String::as_str));
        }
        ignored
    }

    /// Sets the label of a row by what its sidecars say; returns the name that they give the image.
    fn read(&mut self, table: &mut Table, row: usize, file: &File, sample: &Sample) -> Option<String> {
        let class = sample.class.and_then(|place| contents(file, place));
        let json = sample.json.and_then(|place| contents(file, place));
        let json: Option<Value> = json.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let from_class = class.and_then(|bytes| Label::from_text(&String::from_utf8_lossy(&bytes)));
        let label =
            from_class.or_else(|| ["label", "cls"].iter().find_map(|&name| Label::of(json.as_ref()?.get(name)?)));
        match label {
            Some(Label::Index(index)) => {
                self.indexed = true;
                table.set_label(row, index);
            }
            Some(Label::Name(name)) => self.named.push((row, name)),
            None => {}
        }
        let path = ["filename", "path"].iter().find_map(|&name| json.as_ref()?.get(name)?.as_str());
        let key = path.filter(|path| is_image_name(path.as_ref())).and_then(key_of_path);
        key.or_else(|| key_of_path(table.key(row)).filter(|key| key != table.key(row)))
    }

    /// Turns class names into ranks, unless there are indices already. Returns whether any image has a label.
    pub(super) fn label(&self, table: &mut Table) -> bool {
        if !self.indexed {
            let names: BTreeSet<&str> = self.named.iter().map(|(_, name)| name.as_str()).collect();
            let ranks: HashMap<&str, i32> = names.into_iter().zip(0..).collect();
            self.named.iter().for_each(|(row, name)| table.set_label(*row, ranks[name.as_str()]));
        }
        self.indexed || !self.named.is_empty()
    }
}

/// Finds the picture of each sample; returns the rows of the other images of samples, in order.
fn choose_images(table: &Table, samples: &mut HashMap<String, Sample>) -> Vec<usize> {
    let mut spare = Vec::new();
    for row in 0..table.len() {
        let key = table.key(row);
        let Some(sample) = samples.get_mut(base(key)) else { continue };
        let extension = key[base(key).len()..].trim_start_matches('.').to_ascii_lowercase();
        let rank = IMAGE_EXTENSIONS.iter().position(|known| **known == extension).unwrap_or(IMAGE_EXTENSIONS.len());
        match sample.image {
            // A duplicate of the whole sample: both are kept, as duplicates are everywhere.
            Some((best, _)) if best == rank => {}
            Some((best, _)) if best < rank => spare.push(row),
            previous => {
                spare.extend(previous.map(|(_, row)| row));
                sample.image = Some((rank, row));
            }
        }
    }
    spare.sort_unstable();
    spare
}

/// The name of the sample that a member belongs to: its path up to the first dot of the last part.
fn base(key: &str) -> &str {
    let name = file_name(key);
    let stem = name.split_once('.').map_or(name, |(stem, _)| stem);
    &key[..key.len() - name.len() + stem.len()]
}

fn contents(file: &File, place: Place) -> Option<Vec<u8>> {
    if place.length > MAX_SIDECAR_BYTES {
        return None;
    }
    let mut bytes = vec![0; place.length as usize];
    file.read_exact_at(&mut bytes, place.at).ok()?;
    Some(bytes)
}

/// A class as a container gives it.
enum Label {
    Index(i32),
    /// A wnid.
    Name(String),
}

impl Label {
    fn from_text(text: &str) -> Option<Label> {
        let text = text.trim();
        if is_wnid(text) {
            return Some(Label::Name(text.to_owned()));
        }
        text.parse().ok().filter(|&index| index >= 0).map(Label::Index)
    }

    fn of(value: &Value) -> Option<Label> {
        match value {
            Value::String(text) => Label::from_text(text),
            _ => value.as_i64().and_then(|index| i32::try_from(index).ok()).filter(|&i| i >= 0).map(Label::Index),
        }
    }
}
