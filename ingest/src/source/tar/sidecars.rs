//! What the members beside a picture say: its class in `.cls`, its class and name in `.json`.

use super::runs::{Member, base, ending};
use super::samples::{Endings, Sample, group};
use crate::source::imagenet::key_of_path;
use crate::source::is_image_name;
use crate::source::label_names::LabelNames;
use crate::source::options::{Columns, OTHER_LABEL_NAMES};
use crate::source::table::{Place, Table};
use crate::source::text::without_bom;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;
use tokengrid_store::Blob;

/// Largest `.cls` or `.json` member that is read, in bytes.
const MAX_SIDECAR_BYTES: u32 = 1 << 20;

/// Most names of endings and fields that are spoken of, and their length in bytes.
const MAX_NAMES: usize = 64;
const MAX_NAME_BYTES: usize = 64;

/// A member that is not an image.
pub(super) struct Sidecar {
    pub(super) key: String,
    pub(super) place: Place,
    /// Its contents, if they came with its header.
    pub(super) held: Option<Box<[u8]>>,
}

/// Whether a member may say the label: by its ending, or by the one that the user named.
pub(super) fn is_label_file(name: &[u8], label: Option<&str>) -> bool {
    let has_ending = |ending: &str| {
        let rest = name.len().checked_sub(ending.len()).map(|at| name.split_at(at));
        rest.is_some_and(|(stem, end)| stem.ends_with(b".") && end.eq_ignore_ascii_case(ending.as_bytes()))
    };
    ["cls", "json"].into_iter().chain(label).any(has_ending)
}

/// Where label files are read: those of a tar in a bucket came with their headers, unless they are large.
struct LabelFiles<'a> {
    file: &'a Blob,
    held: HashMap<u64, &'a [u8]>,
}

impl<'a> LabelFiles<'a> {
    fn of(file: &'a Blob, sidecars: &'a [Sidecar]) -> LabelFiles<'a> {
        let held = sidecars.iter().filter_map(|sidecar| Some((sidecar.place.at, sidecar.held.as_deref()?))).collect();
        LabelFiles { file, held }
    }

    fn read(&self, place: Place) -> io::Result<Vec<u8>> {
        if let Some(held) = self.held.get(&place.at) {
            return Ok(held.to_vec());
        }
        let mut bytes = vec![0; place.length as usize];
        self.file.read_exact_at(&mut bytes, place.at).map(|()| bytes)
    }
}

/// What sidecars said.
#[derive(Default)]
pub(super) struct Sidecars {
    /// Whether there was a sample, and whether one had a `.cls` or `.json`.
    pub(super) has_samples: bool,
    pub(super) has_label_files: bool,
    pub(super) labels: LabelNames,
    /// Whether what the user named as the label was there.
    has_wanted: bool,
    /// Endings of members beside pictures and fields in `.json`: what a label could be called.
    names: BTreeSet<String>,
    /// The first of those that cannot be read, why, and how many there are.
    pub(super) unread: Option<(String, usize)>,
}

impl Sidecars {
    /// Takes what was said of the rows of a table that will follow `before` others.
    pub(super) fn append(&mut self, other: Sidecars, before: usize) {
        self.has_samples |= other.has_samples;
        self.has_label_files |= other.has_label_files;
        self.has_wanted |= other.has_wanted;
        self.note_names(other.names.iter().map(String::as_str));
        self.labels.append(other.labels, before);
        if let Some((first, number)) = other.unread {
            self.unread.get_or_insert((first, 0)).1 += number;
        }
    }

    /// Joins the images of a tar with its sidecars. Returns the number of members that are not a picture of a sample and say
    /// nothing of one; an error says what is ambiguous, or no label.
    pub(super) fn join(
        &mut self,
        table: &mut Table,
        file: &Blob,
        sidecars: &[Sidecar],
        columns: Columns<'_>,
    ) -> Result<usize, String> {
        let rows = (0..table.len()).filter(|row| is_image_name(Path::new(table.key(*row))));
        let images = rows.map(|row| Member { key: table.key(row), place: table.place(row), row: Some(row) });
        let others = sidecars.iter().map(|sidecar| Member { key: &sidecar.key, place: sidecar.place, row: None });
        let endings = Endings { image: columns.image, label: columns.label };
        let Some(found) = group(images.chain(others).collect(), endings)? else { return Ok(sidecars.len()) };
        self.has_samples |= !found.samples.is_empty();
        self.note_names(sidecars.iter().map(|sidecar| ending(&sidecar.key, base(&sidecar.key))));
        let files = LabelFiles::of(file, sidecars);
        let mut keys = HashMap::new();
        for sample in &found.samples {
            let row = sample.row - found.spare.partition_point(|spare| *spare < sample.row);
            keys.extend(self.read(table, row, &files, sample, columns)?.map(|key| (sample.row, key)));
        }
        if !found.spare.is_empty() || !keys.is_empty() {
            let kept = (0..table.len()).filter(|row| found.spare.binary_search(row).is_err());
            *table = table.gather(kept, |row, key| keys.get(&row).map_or(key, String::as_str));
        }
        Ok(found.ignored)
    }

    /// Notes the label of a sample, which will be at `row`; returns the name that its sidecars give the image.
    fn read(
        &mut self,
        table: &mut Table,
        row: usize,
        files: &LabelFiles<'_>,
        sample: &Sample,
        columns: Columns<'_>,
    ) -> Result<Option<String>, String> {
        self.has_label_files |= sample.class.is_some() || sample.json.is_some();
        let own = table.key(sample.row).to_owned();
        let class = sample.class.and_then(|place| self.contents(files, place, &own));
        let json = sample.json.and_then(|place| self.contents(files, place, &own));
        let json = json.and_then(|bytes| match serde_json::from_slice::<Value>(&without_bom(&bytes)) {
            Ok(json) => Some(json),
            Err(error) => {
                self.miss(&own, &format!("is not JSON ({error})"));
                None
            }
        });
        self.has_wanted |= sample.class.is_some();
        self.note_names(json.iter().filter_map(Value::as_object).flatten().map(|(name, _)| name.as_str()));
        let refuse = |problem: String| format!("the label of '{own}': {problem}");
        if !columns.without_labels() {
            let text = class.map(|bytes| String::from_utf8(without_bom(&bytes).into_owned()));
            match text.map(|text| text.map_err(|_| refuse("not text".to_owned()))).transpose()? {
                Some(text) if !text.trim().is_empty() => self.labels.push(row, &text).map_err(refuse)?,
                _ => self.label_of_json(table, row, sample.row, json.as_ref(), columns).map_err(refuse)?,
            }
        }
        let path = ["filename", "path"].iter().find_map(|&name| json.as_ref()?.get(name)?.as_str());
        let key = path.filter(|path| is_image_name(path.as_ref())).and_then(key_of_path);
        Ok(key.or_else(|| key_of_path(&own).filter(|key| *key != own)))
    }

    /// The first of the fields that may hold the label and is there.
    fn label_of_json(
        &mut self,
        table: &mut Table,
        row: usize,
        row_now: usize,
        json: Option<&Value>,
        columns: Columns<'_>,
    ) -> Result<(), String> {
        let Some(json) = json else { return Ok(()) };
        let usual = ["label", "cls"];
        let names = columns.label.as_ref().map_or(&usual[..], std::slice::from_ref);
        let field = |name| json.get(name).filter(|value| !value.is_null());
        let Some((name, value)) = names.iter().find_map(|name| Some((name, field(name)?))) else { return Ok(()) };
        self.has_wanted = true;
        match value {
            Value::String(text) => self.labels.push(row, text),
            Value::Number(number) => {
                // Some programs write indices as floats, such as 7.0.
                let whole_float = || number.as_f64().filter(|n| n.fract() == 0.0);
                let whole = number.as_i64().or_else(|| whole_float().map(|n| n as i64));
                let index = whole.and_then(|index| i32::try_from(index).ok()).filter(|index| *index >= -1);
                let index = index.ok_or_else(|| format!("'{name}' is {number}, which is not a class index"))?;
                self.labels.has_indices = true;
                table.set_label(row_now, index);
                Ok(())
            }
            _ => Err(format!(
                "'{name}' is neither a number nor text; choose another field with --label-column, or none with --label-column none"
            )),
        }
    }

    fn contents(&mut self, files: &LabelFiles<'_>, place: Place, image: &str) -> Option<Vec<u8>> {
        if place.length > MAX_SIDECAR_BYTES {
            self.miss(image, &format!("has more than {MAX_SIDECAR_BYTES} bytes"));
            return None;
        }
        match files.read(place) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.miss(image, &format!("cannot be read ({error})"));
                None
            }
        }
    }

    fn miss(&mut self, image: &str, why: &str) {
        self.unread.get_or_insert_with(|| (format!("that of '{image}' {why}"), 0)).1 += 1;
    }

    fn note_names<'n>(&mut self, names: impl Iterator<Item = &'n str>) {
        for name in names {
            if self.names.len() < MAX_NAMES
                && !name.is_empty()
                && name.len() <= MAX_NAME_BYTES
                && !self.names.contains(name)
            {
                self.names.insert(name.to_owned());
            }
        }
    }

    /// Refuses a label that the user named and no sample has.
    pub(super) fn check_wanted(&self, columns: Columns<'_>) -> Result<(), String> {
        let Some(label) = columns.label.filter(|_| self.has_samples && !self.has_wanted && !columns.without_labels())
        else {
            return Ok(());
        };
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let there = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        Err(format!(
            "no sample has a member or a field in .json called '{label}' (--label-column); beside the pictures there are {there}"
        ))
    }

    /// The ignored members, for users.
    pub(super) fn notes(&self) -> Vec<String> {
        let unread =
            |(first, number): &(String, usize)| format!("label files that were passed over: {number}; {first}");
        self.unread.iter().map(unread).chain(self.hint()).collect()
    }

    /// What may be the label where there is none.
    fn hint(&self) -> Option<String> {
        let is_like_label = |name: &&String| OTHER_LABEL_NAMES.iter().any(|known| name.eq_ignore_ascii_case(known));
        let others: Vec<&String> = self.names.iter().filter(is_like_label).filter(|_| !self.labels.any()).collect();
        let first = others.first()?;
        let named: Vec<String> = others.iter().map(|name| format!("'{name}'")).collect();
        Some(format!(
            "no label in .cls or in .json, but {}: --label-column {first} takes it as the label",
            named.join(", ")
        ))
    }
}
