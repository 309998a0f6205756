//! A walk through a tar from header to header, over the data and not through them.

use super::header::{BLOCK, Header};
use super::pax::Extension;
use crate::source::cancel::Cancel;
use std::ops::Range;
use tokengrid_store::Blob;

/// Bytes read at once: a header, and the next ones where members are tiny.
const WINDOW_BYTES: usize = 4096;
/// Bytes read at once of an object, whose every read is a request: few where members are large, and twice as many each time that
/// the next header lies near. With images of 100 kB the walk fetches two percent of the tar.
const REMOTE_WINDOW_BYTES: usize = 2048;
const REMOTE_WINDOW_BYTES_MAX: usize = 1 << 20;
/// What counts as near, in bytes.
const NEAR_BYTES: u64 = 32 << 10;
/// Bytes read at once in the search for the next header.
const SEARCH_WINDOW_BYTES: usize = 256 << 10;
/// How far the next header is looked for after damage, in bytes.
const MAX_SEARCH_BYTES: u64 = 1 << 30;
/// Zeros that are searched for more members after the end of an archive, in bytes. Archives are padded to 10 KiB,
/// seldom to more; a lost block of a disk is 4 KiB.
const MAX_ZEROS_BYTES: u64 = 1 << 20;
/// Largest long name or set of pax records, in bytes.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;

/// Largest label file of an object that is kept as the walk meets it, and how much is kept of one file, in bytes. It costs no
/// request: the next header lies after it.
const MAX_HELD_BYTES: u64 = NEAR_BYTES;
const MAX_ALL_HELD_BYTES: u64 = 64 << 20;

/// Longest name of a member, in bytes: as much as systems allow for a path.
const MAX_NAME_BYTES: usize = 4096;

/// What a walk meets. Offsets count from the beginning of the file.
pub(super) enum Entry<'a> {
    /// A file with its data. Those of a label file of an object are held, as long as it is small.
    File { name: &'a [u8], at: u64, length: u64, held: Option<Box<[u8]>> },
    /// A file whose data exceed the archive, which has `available` bytes of them.
    Overrun { name: &'a [u8], header: u64, at: u64, length: u64, available: u64 },
    /// A folder.
    Folder { name: &'a [u8] },
    /// A second name for an earlier member.
    HardLink { name: &'a [u8], target: &'a [u8], header: u64 },
    /// A symbolic link, a device, a sparse file or something unheard of.
    Other { name: &'a [u8] },
    /// A place that is not a header. The walk continues after it if it can.
    Broken { at: u64, reason: String },
}

/// Whether a member of this name describes an image.
pub(super) type IsLabelFile<'a> = dyn Fn(&[u8]) -> bool + 'a;

/// What is reported of entries. For a file, it may say where to continue, instead of after it: further on, or at [`END`].
pub(super) type Visit<'a> = dyn FnMut(Entry<'_>) -> Option<u64> + 'a;

/// Continues nowhere: the walk ends.
pub(super) const END: u64 = u64::MAX;

/// Walks through the tar that fills `region` of the file. The walk ends for any content: it only moves forward.
/// It ends early when it is cancelled, and what was found is then incomplete.
pub(super) fn scan(
    file: &Blob,
    region: Range<u64>,
    cancel: Cancel<'_>,
    is_label_file: &IsLabelFile<'_>,
    visit: &mut Visit<'_>,
) {
    let window = Window {
        file,
        end: region.end,
        start: 0,
        bytes: Vec::new(),
        remote_window: REMOTE_WINDOW_BYTES,
        error: None,
        cancel,
    };
    let (next, global) = (Extension::default(), Extension::default());
    Walk { window, next, global, is_label_file, visit, entries: 0, held_bytes: 0 }.run(region);
}

struct Walk<'a> {
    window: Window<'a>,
    /// What extended headers said about the next member, and about all that follow.
    next: Extension,
    global: Extension,
    is_label_file: &'a IsLabelFile<'a>,
    visit: &'a mut Visit<'a>,
    entries: u64,
    held_bytes: u64,
}

impl Walk<'_> {
    fn run(&mut self, region: Range<u64>) {
        let mut position = Some(region.start);
        while let Some(at) = position {
            if at >= region.end || self.window.cancel.is_set() {
                break;
            }
            let Some(block) = self.window.block(at) else {
                self.cut_header(at);
                break;
            };
            let header = Header(&block);
            position = if block == [0; BLOCK as usize] {
                self.after_zeros(at)
            } else if header.is_valid() {
                self.member(&header, at)
            } else {
                let what = if header.has_magic() { "a header with a wrong checksum" } else { "not a tar header" };
                self.broken(at, what.to_owned(), at + BLOCK)
            };
        }
        let length = region.end - region.start;
        // An empty archive is two blocks of zeros, padded.
        if self.entries == 0 && !(2 * BLOCK..=10240).contains(&length) {
            let reason = format!("not a tar archive: no member in {length} bytes");
            self.emit(Entry::Broken { at: region.start, reason });
        }
    }

    /// Less than a block is left, or it cannot be read.
    fn cut_header(&mut self, at: u64) {
        let is_padding = self.window.error.is_none() && self.window.rest(at).iter().all(|byte| *byte == 0);
        if !is_padding {
            let reason = self.window.error.take().unwrap_or_else(|| "the archive ends inside a header".to_owned());
            self.emit(Entry::Broken { at, reason });
        }
    }

    fn emit(&mut self, entry: Entry<'_>) -> Option<u64> {
        self.entries += 1;
        (self.visit)(entry)
    }

    /// Reports the place and looks for the next header from `from` on.
    fn broken(&mut self, at: u64, reason: String, from: u64) -> Option<u64> {
        self.next = Extension::default();
        self.emit(Entry::Broken { at, reason });
        self.window.find_header(from)
    }

    /// What follows zeros: the end, a second archive, or what a damaged disk left.
    fn after_zeros(&mut self, at: u64) -> Option<u64> {
        let next = self.window.skip_zeros(at)?;
        let is_header = self.window.block(next).is_some_and(|block| Header(&block).is_valid());
        if is_header {
            return Some(next);
        }
        let header = self.window.find_header(next + BLOCK)?;
        self.emit(Entry::Broken { at, reason: "zeros, and then data without a header".to_owned() });
        Some(header)
    }

    /// Reports a member and returns where the next header should be.
    fn member(&mut self, header: &Header<'_>, at: u64) -> Option<u64> {
        let data = at + BLOCK;
        let Some(size) = header.size() else {
            return self.broken(at, "a header without a size".to_owned(), data);
        };
        if matches!(header.kind(), b'x' | b'g' | b'L' | b'K') {
            return self.extension(header.kind(), at, size);
        }
        let extension = std::mem::take(&mut self.next).or(&self.global);
        let name = extension.name.unwrap_or_else(|| header.name());
        let is_folder_name = name.ends_with(b"/");
        // Links, devices and folders have no data, even with a size in the header.
        let size = if matches!(header.kind(), b'1'..=b'6') { 0 } else { extension.size.unwrap_or(size) };
        let data = if header.kind() == b'S' { self.skip_sparse_map(header, data) } else { data };
        let available = self.window.end.saturating_sub(data);
        if size > available {
            let elsewhere = self.emit(Entry::Overrun { name: &name, header: at, at: data, length: size, available });
            return elsewhere.or_else(|| self.window.find_header(data));
        }
        let elsewhere = match header.kind() {
            _ if extension.sparse => self.emit(Entry::Other { name: &name }),
            b'0' | 0 if is_folder_name => self.emit(Entry::Folder { name: &name }),
            b'0' | b'7' | 0 => {
                let held = self.hold(&name, data, size);
                self.emit(Entry::File { name: &name, at: data, length: size, held })
            }
            b'1' => {
                let target = extension.link.unwrap_or_else(|| header.link().to_vec());
                self.emit(Entry::HardLink { name: &name, target: &target, header: at })
            }
            b'5' => self.emit(Entry::Folder { name: &name }),
            _ => self.emit(Entry::Other { name: &name }),
        };
        // The padding of the last block may be missing at the end: no overflow, as the data lie within the file.
        elsewhere.or(Some(data + size.next_multiple_of(BLOCK)))
    }

    /// The data of a small label file of an object.
    fn hold(&mut self, name: &[u8], at: u64, length: u64) -> Option<Box<[u8]>> {
        let has_room = length <= MAX_HELD_BYTES && self.held_bytes + length <= MAX_ALL_HELD_BYTES;
        if !self.window.file.is_remote() || !has_room || !(self.is_label_file)(name) {
            return None;
        }
        self.held_bytes += length;
        self.window.data(at, length as usize).map(Into::into)
    }

    /// Reads what an extended header says.
    fn extension(&mut self, kind: u8, at: u64, size: u64) -> Option<u64> {
        let data = at + BLOCK;
        if size > MAX_EXTENSION_BYTES {
            return self.broken(at, format!("an extended header of {size} bytes"), data);
        }
        let Some(bytes) = self.window.bytes_at(data, size as usize) else {
            return self.broken(at, "an extended header that is cut off".to_owned(), data);
        };
        match kind {
            b'L' => self.next.name = Some(Extension::long_name(&bytes)),
            b'K' => self.next.link = Some(Extension::long_name(&bytes)),
            _ => {
                let extension = if kind == b'g' { &mut self.global } else { &mut self.next };
                if extension.read_records(&bytes).is_none() {
                    return self.broken(at, "an extended header that cannot be read".to_owned(), data);
                }
            }
        }
        let longest = [&self.next.name, &self.next.link, &self.global.name, &self.global.link].into_iter().flatten();
        if longest.map(Vec::len).max() > Some(MAX_NAME_BYTES) {
            self.global = Extension::default();
            return self.broken(at, format!("a name of more than {MAX_NAME_BYTES} bytes"), data);
        }
        Some(data + size.next_multiple_of(BLOCK))
    }

    /// The old GNU format has more blocks of the map between header and data.
    fn skip_sparse_map(&mut self, header: &Header<'_>, mut data: u64) -> u64 {
        let mut more = header.is_extended();
        while more {
            // A map that is cut off ends with the archive, and leaves nothing for the data.
            more = self.window.block(data).is_some_and(|block| block[504] != 0);
            data += BLOCK;
        }
        data
    }
}

/// Reads of the file through a small buffer.
struct Window<'a> {
    file: &'a Blob,
    end: u64,
    /// Offset of `bytes`.
    start: u64,
    bytes: Vec<u8>,
    /// How much of an object is read next.
    remote_window: usize,
    /// What the operating system said when it refused to read.
    error: Option<String>,
    cancel: Cancel<'a>,
}

impl Window<'_> {
    /// The block at `at`; `None` where the archive ends before it does, or cannot be read.
    fn block(&mut self, at: u64) -> Option<[u8; BLOCK as usize]> {
        let window = if self.file.is_remote() { 0 } else { WINDOW_BYTES };
        self.block_through(at, window)
    }

    fn block_through(&mut self, at: u64, window: usize) -> Option<[u8; BLOCK as usize]> {
        let held = self.start..self.start + self.bytes.len() as u64;
        if !(held.contains(&at) && at + BLOCK <= held.end) {
            self.fill(at, window);
        }
        let from = (at - self.start) as usize;
        self.bytes.get(from..from + BLOCK as usize).and_then(|block| block.try_into().ok())
    }

    /// What is held from `at` on.
    fn rest(&self, at: u64) -> &[u8] {
        self.bytes.get((at - self.start) as usize..).unwrap_or_default()
    }

    fn fill(&mut self, at: u64, window: usize) {
        let window = if self.file.is_remote() { window.max(self.next_remote_window(at)) } else { window };
        let length = self.end.saturating_sub(at).min(window as u64) as usize;
        self.bytes.resize(length, 0);
        let read = self.file.read_up_to(&mut self.bytes, at);
        self.bytes.truncate(*read.as_ref().unwrap_or(&0));
        self.error = read.err().map(|error| format!("cannot be read: {error}"));
        self.start = at;
    }

    fn next_remote_window(&mut self, at: u64) -> usize {
        let is_near = at.saturating_sub(self.start + self.bytes.len() as u64) < NEAR_BYTES;
        let grown = (2 * self.remote_window).min(REMOTE_WINDOW_BYTES_MAX);
        self.remote_window = if is_near { grown } else { REMOTE_WINDOW_BYTES };
        self.remote_window
    }

    /// Data of a member of an object, read with the header after them.
    fn data(&mut self, at: u64, length: usize) -> Option<&[u8]> {
        let held = self.start..self.start + self.bytes.len() as u64;
        if at < held.start || at + length as u64 > held.end {
            self.fill(at, length.next_multiple_of(BLOCK as usize) + BLOCK as usize);
        }
        let from = (at - self.start) as usize;
        self.bytes.get(from..from + length)
    }

    fn bytes_at(&mut self, at: u64, length: usize) -> Option<Vec<u8>> {
        if at.checked_add(length as u64).is_none_or(|end| end > self.end) {
            return None;
        }
        if self.file.is_remote() {
            return self.data(at, length).map(<[u8]>::to_vec);
        }
        let mut bytes = vec![0; length];
        let read = self.file.read_up_to(&mut bytes, at).ok()?;
        (read == length).then_some(bytes)
    }

    /// The next block at or after `from` that is certainly a header. Members lie at multiples of the block size, so
    /// only these are read.
    fn find_header(&mut self, from: u64) -> Option<u64> {
        let last = from.saturating_add(MAX_SEARCH_BYTES).min(self.end);
        let mut at = from;
        while at < last && !self.cancel.is_set() {
            let block = self.block_through(at, SEARCH_WINDOW_BYTES)?;
            let header = Header(&block);
            if header.has_magic() && header.is_valid() && header.size().is_some() {
                return Some(at);
            }
            at += BLOCK;
        }
        None
    }

    /// The next block that is not all zeros, if it is near.
    fn skip_zeros(&mut self, from: u64) -> Option<u64> {
        let last = from.saturating_add(MAX_ZEROS_BYTES).min(self.end);
        // What follows is padding, usually a few blocks: of an object it comes at once.
        let window = if self.file.is_remote() { SEARCH_WINDOW_BYTES } else { WINDOW_BYTES };
        let mut at = from;
        while at < last {
            if self.block_through(at, window)? != [0; BLOCK as usize] {
                return Some(at);
            }
            at += BLOCK;
        }
        None
    }
}
