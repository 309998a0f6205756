//! One tar, walked through once: images, folders, members beside images, hard links, tars inside it, damage.

use super::header::BLOCK;
use super::scan::{END, Entry, scan};
use super::sidecars::{Sidecar, is_label_file};
use crate::source::cancel::Cancel;
use crate::source::keys::{MemberName, file_name, member_name};
use crate::source::options::Columns;
use crate::source::table::{Place, Table};
use crate::source::{has_extension, is_image_name};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use tokengrid_store::Blob;

/// A hard link, by keys.
pub(super) struct Link {
    pub(super) key: String,
    pub(super) target: String,
    /// Offset of its header, in bytes.
    pub(super) header: u64,
}

/// What was found in one tar, without the tars inside it.
#[derive(Default)]
pub(super) struct Found {
    pub(super) table: Table,
    pub(super) folders: BTreeSet<String>,
    pub(super) sidecars: Vec<Sidecar>,
    pub(super) links: Vec<Link>,
    pub(super) ignored: usize,
}

/// A tar in a tar, named after its class.
pub(super) struct ClassTar {
    container: String,
    prefix: String,
    region: Range<u64>,
    /// Whether it exceeds the outer tar, by the size in its header.
    is_cut: bool,
}

impl ClassTar {
    pub(super) fn read<'a>(
        &self,
        file: &'a Blob,
        number: u32,
        columns: Columns<'a>,
        cancel: Cancel<'a>,
    ) -> Reading<'a> {
        let mut reading = Reading::new(file, number, self.container.clone(), self.prefix.clone(), columns, cancel);
        (reading.start, reading.is_inner, reading.is_cut) = (self.region.start, true, self.is_cut);
        reading.scan(self.region.clone());
        reading
    }
}

/// One tar that is walked through.
pub(super) struct Reading<'a> {
    file: &'a Blob,
    number: u32,
    /// The tar's name, for the keys of damaged positions.
    container: String,
    /// Offset of the tar in the file.
    start: u64,
    /// What keys begin with: the class and a `/`, or nothing.
    prefix: String,
    /// Whether this tar lies in another, and whether it is cut off there.
    is_inner: bool,
    is_cut: bool,
    /// Where the walk found the next class tar, if it was in one that is cut.
    next_tar: Option<u64>,
    pub(super) found: Found,
    /// Class tars that are still to be read.
    pub(super) inner: Vec<ClassTar>,
    /// What was found in class tars that are cut off: where they end is known only after reading them.
    pub(super) inner_found: Vec<Found>,
    /// First row after damage, whose images may be of a class tar that lost its name.
    gap: Option<usize>,
    /// Ranges of such rows.
    pub(super) gaps: Vec<Range<usize>>,
    columns: Columns<'a>,
    cancel: Cancel<'a>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(
        file: &'a Blob,
        number: u32,
        container: String,
        prefix: String,
        columns: Columns<'a>,
        cancel: Cancel<'a>,
    ) -> Reading<'a> {
        Reading {
            columns,
            cancel,
            file,
            number,
            container,
            start: 0,
            prefix,
            is_inner: false,
            is_cut: false,
            next_tar: None,
            found: Found::default(),
            inner: Vec::new(),
            inner_found: Vec::new(),
            gap: None,
            gaps: Vec::new(),
        }
    }

    pub(super) fn scan(&mut self, region: Range<u64>) {
        let label = self.columns.label;
        scan(self.file, region, self.cancel, &|name| is_label_file(name, label), &mut |entry| self.entry(entry));
        self.close_gap();
    }

    /// Notes an entry. Returns the offset at which to continue, if that is not after the entry.
    fn entry(&mut self, entry: Entry<'_>) -> Option<u64> {
        match entry {
            Entry::File { name, at, length, held } => return self.member(name, at, length, held),
            Entry::Overrun { name, header, at, length, available } => {
                return self.overrun(name, header, at..at + available, length);
            }
            Entry::Folder { name } => {
                if let MemberName::Key(key) = member_name(name) {
                    let key = self.key(&key);
                    self.found.folders.insert(key);
                }
            }
            Entry::HardLink { name, target, header } => self.hard_link(name, target, header),
            Entry::Other { name } => {
                if member_name(name) != MemberName::Hidden {
                    self.found.ignored += 1;
                }
            }
            Entry::Broken { at, reason } => self.broken(at, reason),
        }
        None
    }

    fn member(&mut self, name: &[u8], at: u64, length: u64, held: Option<Box<[u8]>>) -> Option<u64> {
        let MemberName::Key(key) = member_name(name) else { return None };
        let path = Path::new(&key);
        let place = Place { file: self.number, length: u32::try_from(length).unwrap_or(u32::MAX), at };
        let is_tar = has_extension(path, &["tar"]);
        if is_image_name(path) {
            let key = self.key(&key);
            self.cancel.count(1);
            self.found.table.push(&key, -1, place);
        } else if is_tar && !self.is_inner {
            self.class_tar(&key, at..at + length, false);
        } else if is_tar && self.is_cut {
            self.next_tar = Some(at - BLOCK);
            return Some(END);
        } else {
            let key = self.key(&key);
            // A folder of other files is one without images, whether it has an entry or not.
            if let Some((folder, _)) = key.rsplit_once('/').filter(|(folder, _)| !self.found.folders.contains(*folder))
            {
                self.found.folders.insert(folder.to_owned());
            }
            self.found.sidecars.push(Sidecar { key, place, held });
        }
        None
    }

    /// A member that the file does not hold all of.
    fn overrun(&mut self, name: &[u8], header: u64, data: Range<u64>, length: u64) -> Option<u64> {
        let MemberName::Key(key) = member_name(name) else {
            self.broken(header, format!("a member of {length} bytes that is cut off"));
            return None;
        };
        let reason = format!("cut off: {} of {length} bytes of '{key}' are there", data.end - data.start);
        if is_image_name(Path::new(&key)) {
            let key = self.key(&key);
            self.found.table.push_broken(&key, self.place(header), reason);
            self.gap.get_or_insert(self.found.table.len());
            return None;
        }
        let is_class_tar = has_extension(Path::new(&key), &["tar"]) && !self.is_inner;
        let next = is_class_tar.then(|| self.class_tar(&key, data, true));
        self.broken(header, reason);
        next
    }

    /// Notes a class tar. Returns the offset at which to continue: after a tar that `is_cut` others may follow if only its size is
    /// wrong, and what was read of it is not read again.
    fn class_tar(&mut self, key: &str, region: Range<u64>, is_cut: bool) -> u64 {
        self.close_gap();
        let container = file_name(key).to_owned();
        let class = container.rsplit_once('.').map_or(container.as_str(), |(stem, _)| stem).to_owned();
        let prefix = format!("{class}/");
        self.found.folders.insert(class);
        let end = region.end;
        let tar = ClassTar { container, prefix, region, is_cut };
        if !is_cut {
            self.inner.push(tar);
            return end;
        }
        let reading = tar.read(self.file, self.number, self.columns, self.cancel);
        self.inner_found.push(reading.found);
        reading.next_tar.unwrap_or(end)
    }

    fn hard_link(&mut self, name: &[u8], target: &[u8], header: u64) {
        let (MemberName::Key(key), MemberName::Key(target)) = (member_name(name), member_name(target)) else { return };
        if is_image_name(Path::new(&key)) {
            let (key, target) = (self.key(&key), self.key(&target));
            self.found.links.push(Link { key, target, header });
        } else {
            self.found.ignored += 1;
        }
    }

    /// The key of a member: below its class, which may or may not be a folder inside the class's tar.
    fn key(&self, key: &str) -> String {
        if key.starts_with(&self.prefix) { key.to_owned() } else { format!("{}{key}", self.prefix) }
    }

    fn broken(&mut self, at: u64, reason: String) {
        let key = format!("{}@{}", self.container, at - self.start);
        self.found.table.push_broken(&key, self.place(at), reason);
        self.gap.get_or_insert(self.found.table.len());
    }

    fn place(&self, at: u64) -> Place {
        Place { file: self.number, length: 0, at }
    }

    fn close_gap(&mut self) {
        self.gaps.extend(self.gap.take().map(|start| start..self.found.table.len()));
    }
}
