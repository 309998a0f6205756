//! The record inside a picture: the settings that it was made with, and the hash of the file that belongs to it.
//!
//! A folder may hold pictures of a run that was stopped, of one with other settings, of one that a power cut damaged. So
//! every picture has a record in a text chunk, and counts only where the record names the settings of the run, the
//! pixels are whole, and the file beside it (its tokens) is the recorded one.

use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, ErrorKind, Seek};
use std::path::Path;
use tokengrid_model::Picture;

/// A file claims its size before its pixels come; what claims more is not a picture of ours.
const PIXELS_MAX: u64 = 1 << 28;

/// Keyword of the text chunk. The text is a [`Record`] in JSON.
pub(crate) const KEYWORD: &str = "tokengrid";

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// [`super::folder::settings_of`] the run.
    settings: String,
    /// BLAKE3 of the file beside the picture.
    beside: String,
}

/// The text of a picture's record.
pub(super) fn text(settings: &str, beside: &[u8]) -> String {
    let record = Record { settings: settings.into(), beside: blake3::hash(beside).to_hex().to_string() };
    serde_json::to_string(&record).expect("strings serialize")
}

/// What lies where a picture and the file beside it should be.
#[derive(Debug)]
pub(super) enum Found {
    /// Both, of these settings.
    Whole {
        /// The picture.
        picture: Picture,
        /// The file beside it.
        beside: Vec<u8>,
    },
    /// Nothing, or the rest of a picture after a crash: it is made again.
    Missing,
    /// A file of other settings or of another program.
    Foreign,
}

/// Looks for a picture of `settings`. What cannot be read counts as missing: writing it will say why.
pub(super) fn find(picture: &Path, beside: &Path, settings: &str) -> Found {
    let Ok(bytes) = std::fs::read(picture) else { return Found::Missing };
    let record = match open(Cursor::new(&bytes)) {
        Some((_, Some(record))) => record,
        Some((_, None)) => return Found::Foreign,
        None if is_remnant(&bytes) => return Found::Missing,
        None => return Found::Foreign,
    };
    if record.settings != settings {
        return Found::Foreign;
    }
    let is_recorded = |bytes: &Vec<u8>| blake3::hash(bytes).to_hex().as_str() == record.beside;
    let beside = std::fs::read(beside).ok().filter(is_recorded);
    match (decode(&bytes), beside) {
        (Some(picture), Some(beside)) => Found::Whole { picture, beside },
        _ => Found::Missing,
    }
}

/// The settings that a picture of ours names; `None` for any other file.
pub(crate) fn settings_of(picture: &Path) -> Option<String> {
    let (_, record) = open(BufReader::new(File::open(picture).ok()?))?;
    record.map(|record| record.settings)
}

/// Whether there is a file that is neither a picture of ours nor what is left of one.
pub(super) fn is_foreign(picture: &Path) -> bool {
    match std::fs::read(picture) {
        Err(error) => error.kind() != ErrorKind::NotFound,
        Ok(bytes) => match open(Cursor::new(&bytes)) {
            Some((_, record)) => record.is_none(),
            None => !is_remnant(&bytes),
        },
    }
}

/// Reads all that comes before the pixels.
fn open<R: BufRead + Seek>(input: R) -> Option<(png::Reader<R>, Option<Record>)> {
    let reader = png::Decoder::new(input).read_info().ok()?;
    let texts = &reader.info().uncompressed_latin1_text;
    let record = texts.iter().find(|text| text.keyword == KEYWORD);
    let record = record.and_then(|text| serde_json::from_str(&text.text).ok());
    Some((reader, record))
}

/// Whether bytes may be what a crash left of a picture: empty, zeros, or a PNG that breaks off.
fn is_remnant(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0) || bytes.starts_with(b"\x89PNG")
}

/// The pixels, if all checksums hold.
fn decode(bytes: &[u8]) -> Option<Picture> {
    let (mut reader, _) = open(Cursor::new(bytes))?;
    let (width, height) = reader.info().size();
    let is_ours = reader.output_color_type() == (png::ColorType::Rgb, png::BitDepth::Eight);
    if !is_ours || u64::from(width) * u64::from(height) > PIXELS_MAX {
        return None;
    }
    let mut rgb = vec![0; width as usize * height as usize * 3];
    reader.next_frame(&mut rgb).ok()?;
    // The end, too: without it the file broke off.
    reader.finish().ok()?;
    Some(Picture::new(width as usize, height as usize, rgb))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_counts_only_if_complete_with_its_settings_and_its_token_file() {
        let folder = tempfile::tempdir().unwrap();
        let (png, tokens) = (folder.path().join("a.png"), folder.path().join("a.npy"));
        let picture = Picture::new(4, 4, (0..48).collect());
        let find = |settings: &str| find(&png, &tokens, settings);
        assert!(matches!(find("x"), Found::Missing));
        std::fs::write(&tokens, b"tokens").unwrap();
        std::fs::write(&png, picture.to_png_with(&[(KEYWORD, &text("x", b"tokens"))])).unwrap();
        let whole = std::fs::read(&png).unwrap();
        let Found::Whole { picture: read, beside } = find("x") else { panic!("it is whole") };
        assert_eq!((read, beside), (picture.clone(), b"tokens".to_vec()));
        assert!(matches!(find("y"), Found::Foreign));
        assert_eq!(settings_of(&png).as_deref(), Some("x"));

        for cut in [0, 4, 20, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&png, &whole[..cut]).unwrap();
            assert!(matches!(find("x"), Found::Missing), "the first {cut} bytes");
        }
        for bytes in [vec![0; 4096], [&whole[..whole.len() - 30], &[0; 30]].concat()] {
            std::fs::write(&png, bytes).unwrap();
            assert!(matches!(find("x"), Found::Missing), "zeros");
        }
        std::fs::write(&png, &whole).unwrap();
        for beside in [&b""[..], b"\0\0\0\0\0\0", b"others"] {
            std::fs::write(&tokens, beside).unwrap();
            assert!(matches!(find("x"), Found::Missing), "{beside:?}");
        }
        std::fs::write(&png, picture.to_png()).unwrap();
        assert!(matches!(find("x"), Found::Foreign) && is_foreign(&png), "no record");
        std::fs::write(&png, b"notes").unwrap();
        assert!(matches!(find("x"), Found::Foreign) && is_foreign(&png), "no picture");
    }
}
