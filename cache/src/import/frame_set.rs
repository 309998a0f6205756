//! Sets of video frames as the 1X world-model data lay them out, before it is decided what their bits mean.
//!
//! ```text
//! metadata.json     {"num_images": N, "s": S, "vocab_size": 2^b, "token_dtype": "uint32", "hz": 30, ...}
//! video.bin         [N, S, S] tokens, little-endian (or videos.bin)
//! segment_ids.bin   [N] int32: a clip ends where it changes (may be missing)
//! anything else     actions and the like: kept as it is
//! ```

use crate::error::{CacheError, io_error};
use crate::files::small::read_at_most;
use crate::format::grid::GridSpec;
use crate::import::error::import_error;
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

pub(crate) const METADATA_FILE: &str = "metadata.json";
/// The key of the metadata for the number of frames.
pub(crate) const NUM_IMAGES: &str = "num_images";
pub(crate) const SEGMENTS_FILE: &str = "segment_ids.bin";
/// Names of the file of tokens, the usual one first.
pub(crate) const VIDEO_FILES: [&str; 2] = ["video.bin", "videos.bin"];
/// The type of tokens where the metadata does not name it.
const DEFAULT_DTYPE: &str = "uint32";

/// Size up to which the metadata is read, in bytes.
pub(crate) const METADATA_BYTES_MAX: u64 = 1 << 24;

/// A folder of frames, opened: sizes agree with its metadata.
#[derive(Debug)]
pub struct FrameSet {
    pub(crate) dir: PathBuf,
    pub(crate) num_frames: usize,
    /// Shape of a frame. Where the vocabulary is no power of two, tokens are not made of bits.
    pub(crate) grid: GridSpec,
    pub(crate) has_bits: bool,
    pub(crate) dtype: String,
    pub(crate) token_bytes: usize,
    /// `video.bin` or `videos.bin`.
    pub(crate) video_name: &'static str,
    video: File,
    pub(crate) has_segments: bool,
    /// What keys begin with: nothing, or a name that tells this set from others.
    pub(crate) key_prefix: String,
}

impl FrameSet {
    /// Opens the set in `dir`.
    ///
    /// # Errors
    /// [`CacheError::Import`] naming the key of the metadata or the size that does not fit; [`CacheError::Io`].
    pub fn open(dir: &Path) -> Result<FrameSet, CacheError> {
        let metadata_path = dir.join(METADATA_FILE);
        let text = read_at_most(&metadata_path, METADATA_BYTES_MAX)?;
        let metadata: Value = serde_json::from_slice(&text)
            .map_err(|error| import_error(&metadata_path, "content", "JSON".into(), error))?;
        let number = |key: &'static str| -> Result<u64, CacheError> {
            let found = &metadata[key];
            found.as_u64().filter(|number| *number > 0).ok_or_else(|| {
                let expected = format!("a number from 1 as {key:?}, as sets with num_images, s and vocab_size have");
                import_error(&metadata_path, "metadata", expected, found)
            })
        };
        let (num_frames, side, vocabulary) = (number(NUM_IMAGES)? as usize, number("s")?, number("vocab_size")?);
        let grid = GridSpec {
            height: u32::try_from(side).unwrap_or(u32::MAX),
            width: u32::try_from(side).unwrap_or(u32::MAX),
            bits: (64 - (vocabulary - 1).leading_zeros()).max(1),
        };
        grid.validate()?;
        let dtype = metadata["token_dtype"].as_str().unwrap_or(DEFAULT_DTYPE).to_owned();
        let token_bytes = match dtype.as_str() {
            "uint16" => 2,
            "uint32" | "int32" => 4,
            "uint64" | "int64" => 8,
            _ => {
                let expected = "uint16, uint32, int32, uint64 or int64".to_owned();
                return Err(import_error(&metadata_path, "token_dtype", expected, dtype));
            }
        };
        let there = VIDEO_FILES.into_iter().find(|name| dir.join(name).exists());
        let video_name = there.unwrap_or(VIDEO_FILES[0]);
        let video_path = dir.join(video_name);
        let video = File::open(&video_path).map_err(io_error("open", &video_path))?;
        let set = FrameSet {
            dir: dir.into(),
            num_frames,
            grid,
            has_bits: vocabulary.is_power_of_two(),
            dtype,
            token_bytes,
            video_name,
            video,
            has_segments: dir.join(SEGMENTS_FILE).exists(),
            key_prefix: String::new(),
        };
        let tokens_bytes = (num_frames as u64).saturating_mul((grid.num_tokens() * token_bytes) as u64);
        set.check_size(video_name, tokens_bytes)?;
        if set.has_segments {
            set.check_size(SEGMENTS_FILE, 4 * num_frames as u64)?;
        }
        Ok(set)
    }

    fn check_size(&self, name: &str, expected: u64) -> Result<(), CacheError> {
        let path = self.dir.join(name);
        let actual = path.metadata().map_err(io_error("read the size of", &path))?.len();
        if actual == expected {
            return Ok(());
        }
        let frames = self.num_frames;
        let expected = format!("{expected} bytes for {frames} frames of {} ({})", self.grid, self.dtype);
        Err(import_error(&path, "size", expected, format!("{actual} bytes")))
    }

    /// The same set with keys `<prefix>/<segment>/<frame>`, so that it can be merged with another one that counts its
    /// segments and frames from 0, too.
    pub fn with_key_prefix(self, prefix: &str) -> FrameSet {
        FrameSet { key_prefix: prefix.to_owned(), ..self }
    }

    /// Frames of the set.
    pub fn num_frames(&self) -> usize {
        self.num_frames
    }

    /// Shape of a frame.
    pub fn grid(&self) -> GridSpec {
        self.grid
    }

    /// Whether tokens are made of bits, one per channel: the vocabulary is a power of two.
    pub fn has_bits(&self) -> bool {
        self.has_bits
    }

    /// Reads the tokens of `frames`, as they are stored, into `out`: `[frames.len(), s * s]`.
    ///
    /// # Errors
    /// [`CacheError::Io`]; [`CacheError::Import`] for a token that the vocabulary does not have.
    pub fn read_frames(&self, frames: Range<usize>, out: &mut Vec<u32>) -> Result<(), CacheError> {
        let path = self.dir.join(self.video_name);
        let frame_bytes = self.grid.num_tokens() * self.token_bytes;
        let mut bytes = vec![0; frames.len() * frame_bytes];
        let mut file = &self.video;
        file.seek(SeekFrom::Start((frames.start * frame_bytes) as u64)).map_err(io_error("read", &path))?;
        file.read_exact(&mut bytes).map_err(io_error("read", &path))?;
        out.clear();
        out.reserve(frames.len() * self.grid.num_tokens());
        match self.token_bytes {
            2 => out.extend(bytes.as_chunks().0.iter().map(|token| u32::from(u16::from_le_bytes(*token)))),
            4 => out.extend(bytes.as_chunks().0.iter().map(|token| u32::from_le_bytes(*token))),
            // What does not fit is no token, and becomes one that is refused below.
            _ => out.extend(
                bytes.as_chunks().0.iter().map(|token| u32::try_from(u64::from_le_bytes(*token)).unwrap_or(u32::MAX)),
            ),
        }
        // One pass without a branch per token: the largest one has all bits that any has.
        let all_bits = out.iter().fold(0, |seen, token| seen | token);
        if u64::from(all_bits) >> self.grid.bits == 0 {
            return Ok(());
        }
        let place = out.iter().position(|token| u64::from(*token) >> self.grid.bits > 0).unwrap_or_default();
        let expected = format!("below 2^{} (frame {})", self.grid.bits, frames.start + place / self.grid.num_tokens());
        Err(import_error(&path, "token", expected, out[place]))
    }

    /// Frames at even distances, at most `most` of them, as they are stored: `[frames, s * s]`.
    ///
    /// # Errors
    /// As [`FrameSet::read_frames`].
    pub fn sample(&self, most: usize) -> Result<Vec<u32>, CacheError> {
        let count = most.clamp(1, self.num_frames);
        let (mut all, mut one) = (Vec::new(), Vec::new());
        for i in 0..count {
            let frame = (i as u128 * self.num_frames as u128 / count as u128) as usize;
            self.read_frames(frame..frame + 1, &mut one)?;
            all.extend_from_slice(&one);
        }
        Ok(all)
    }

    /// The files that are neither tokens nor segments, as relative paths in order; those with a name that begins with a dot
    /// (`.gitattributes`, a download's `.cache`) are left out.
    pub(crate) fn other_files(&self) -> Result<Vec<String>, CacheError> {
        let mut found = Vec::new();
        collect_files(&self.dir, "", &mut found)?;
        found.retain(|name| name != self.video_name && name != SEGMENTS_FILE);
        found.sort();
        Ok(found)
    }
}

/// Adds the files below `dir`, whose own relative path is `prefix`.
pub(super) fn collect_files(dir: &Path, prefix: &str, found: &mut Vec<String>) -> Result<(), CacheError> {
    for entry in dir.read_dir().map_err(io_error("list", dir))? {
        let entry = entry.map_err(io_error("list", dir))?;
        let path = entry.path();
        let name = entry.file_name().into_string().map_err(|name| {
            import_error(dir, "name of a file", "UTF-8 text".into(), name.to_string_lossy().into_owned())
        })?;
        if name.starts_with('.') {
            continue;
        }
        let relative = format!("{prefix}{name}");
        // Links are followed: downloads keep large files elsewhere.
        if path.is_dir() {
            collect_files(&path, &format!("{relative}/"), found)?;
        } else {
            found.push(relative);
        }
    }
    Ok(())
}
