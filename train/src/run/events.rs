//! TensorBoard event files: a TFRecord of protocol buffers for each logged step.
//!
//! ```text
//! record   length u64 | masked CRC-32C of the length u32 | event | masked CRC-32C of the event u32     (little endian)
//! event    1 wall_time f64 | 2 step i64 | 3 file_version string | 5 summary | 7 session_log
//! summary  1 value: 1 tag string | 2 simple_value f32 | 4 image: 1 height | 2 width | 3 colour channels | 4 png bytes
//! ```
//!
//! A run that is resumed gets a further file. It begins with a session log "start" at its first step, at which TensorBoard
//! forgets what earlier files say about that step and later ones.

use crate::TrainError;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tokengrid_model::Picture;

/// What the names of event files begin with; seconds since 1970 follow, so that they sort by age.
pub(super) const PREFIX: &str = "events.out.tfevents.";

/// The version of the format from which TensorBoard reads session logs.
const FILE_VERSION: &[u8] = b"brain.Event:2";

/// An open event file.
#[derive(Debug)]
pub(super) struct Events {
    path: PathBuf,
    file: File,
}

impl Events {
    /// Starts a new file in `folder` for the steps after `step`.
    pub(super) fn open(folder: &Path, step: u64) -> Result<Events, TrainError> {
        let newest = event_files(folder)?.iter().filter_map(|path| seconds_in_name(path)).max();
        // A second process within the same second, or a clock that was set back: still the newest.
        let secs = (now() as u64).max(newest.map_or(0, |secs| secs + 1));
        let path = folder.join(format!("{PREFIX}{secs:010}.tokengrid"));
        let file = OpenOptions::new().create_new(true).append(true).open(&path);
        let mut events = Events { file: file.map_err(TrainError::io("create", &path))?, path };
        events.write(0, |event| event.bytes(3, FILE_VERSION))?;
        if newest.is_some() {
            const START: u64 = 1;
            let mut session_log = Message::default();
            session_log.int(1, START);
            events.write(step + 1, |event| event.bytes(7, &session_log.0))?;
        }
        Ok(events)
    }

    /// One event with all numbers of a step.
    pub(super) fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<(), TrainError> {
        let mut summary = Message::default();
        for (tag, value) in values {
            let mut scalar = Message::default();
            scalar.bytes(1, tag.as_bytes());
            scalar.float(2, *value as f32);
            summary.bytes(1, &scalar.0);
        }
        self.write(step, |event| event.bytes(5, &summary.0))
    }

    /// One event with a picture, whose file is `png`.
    pub(super) fn picture(&mut self, step: u64, tag: &str, picture: &Picture, png: &[u8]) -> Result<(), TrainError> {
        const RGB: u64 = 3;
        let mut image = Message::default();
        image.int(1, picture.height as u64);
        image.int(2, picture.width as u64);
        image.int(3, RGB);
        image.bytes(4, png);
        let (mut value, mut summary) = (Message::default(), Message::default());
        value.bytes(1, tag.as_bytes());
        value.bytes(4, &image.0);
        summary.bytes(1, &value.0);
        self.write(step, |event| event.bytes(5, &summary.0))
    }

    /// Appends a record in one write: a reader never waits for a buffer, and a killed run leaves at most one torn record.
    fn write(&mut self, step: u64, fill: impl FnOnce(&mut Message)) -> Result<(), TrainError> {
        let mut event = Message::default();
        event.double(1, now());
        event.int(2, step);
        fill(&mut event);
        let length = (event.0.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked_crc32c(&length).to_le_bytes());
        record.extend_from_slice(&event.0);
        record.extend(masked_crc32c(&event.0).to_le_bytes());
        self.file.write_all(&record).map_err(TrainError::io("write", &self.path))
    }
}

/// The event files in a folder.
pub(super) fn event_files(folder: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let entries = std::fs::read_dir(folder).map_err(TrainError::io("read", folder))?;
    let paths = entries.flatten().map(|entry| entry.path());
    Ok(paths.filter(|path| seconds_in_name(path).is_some()).collect())
}

fn seconds_in_name(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_prefix(PREFIX)?;
    name.split('.').next()?.parse().ok()
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// A protocol buffer that grows field by field.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

/// How the value of a field is laid out.
enum Wire {
    Varint = 0,
    Fixed64 = 1,
    Bytes = 2,
    Fixed32 = 5,
}

impl Message {
    fn key(&mut self, field: u64, wire: Wire) {
        self.varint(field << 3 | wire as u64);
    }

    /// Seven bits per byte, the lowest first; the top bit says that more follow.
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn int(&mut self, field: u64, value: u64) {
        self.key(field, Wire::Varint);
        self.varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.key(field, Wire::Fixed64);
        self.0.extend(value.to_le_bytes());
    }

    fn float(&mut self, field: u64, value: f32) {
        self.key(field, Wire::Fixed32);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.key(field, Wire::Bytes);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }
}

/// The checksum of TFRecords: CRC-32C, rotated, plus a constant, so that the checksum of data that holds its own is not
/// degenerate.
fn masked_crc32c(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), a byte at a time: event files are small.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| (crc >> 8) ^ CRC_TABLE[usize::from(crc as u8 ^ byte)])
}

static CRC_TABLE: [u32; 256] = {
    const POLYNOMIAL: u32 = 0x82f6_3b78; // bits reversed
    let mut table = [0u32; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
