//! A cache out of a set of video frames.

use crate::cancel;
use crate::error::{CacheError, io_error};
use crate::format::bit_order::BitOrder;
use crate::format::frame_key::frame_key;
use crate::format::identity::{SourceInfo, TokenizerInfo};
use crate::format::job::JobSpec;
use crate::format::row::Row;
use crate::import::error::import_error;
use crate::import::frame_set::{FrameSet, SEGMENTS_FILE};
use crate::write::attach::{Attachment, Content, attach_all, described, remove_replaced};
use crate::write::copy::CopyWriter;
use crate::write::folder::identity_there;
use crate::write::writer::{Finished, OpenMode};
use serde_json::Value;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use tokengrid_store::is_remote;

/// The kind of source that such sets are.
pub(crate) const FRAMES_KIND: &str = "1x";

/// Names of `source.details`.
pub(crate) mod details {
    pub(crate) const BIT_ORDER: &str = "bit_order";
    pub(crate) const DTYPE: &str = "token_dtype";
    pub(crate) const VIDEO: &str = "video";
    pub(crate) const HAS_SEGMENTS: &str = "has_segment_ids";
    /// In caches that were made of others.
    pub(crate) const HAS_FRAMES: &str = "has_frames";
}

/// Whether rows are video frames: then shards have the columns `segment` and `frame`.
pub(crate) fn holds_frames(source: &SourceInfo) -> bool {
    let is_marked = source.details.get(details::HAS_FRAMES).and_then(Value::as_bool);
    source.kind == FRAMES_KIND || is_marked.unwrap_or(false)
}

/// Frames that are read at a time: 1 MB of 16 x 16 tokens of 32 bits.
const CHUNK_FRAMES: usize = 1024;

/// Imports `set`, whose tokens are of `order` (`None` where tokens are not made of bits), one row per frame, with keys
/// `<segment>/<frame>`. All other files of the set are kept below [`crate::ATTACHED_FOLDER`] and known by their checksums, so
/// that [`crate::export_1x`] gives the same files back.
///
/// # Errors
/// As [`FrameSet::read_frames`] and [`CacheWriter`](crate::CacheWriter); [`CacheError::InputsDiffer`] when `out` was begun with
/// other frames.
pub fn import_1x(
    set: &FrameSet,
    order: Option<BitOrder>,
    tokenizer: TokenizerInfo,
    out: &Path,
    mode: OpenMode,
) -> Result<Finished, CacheError> {
    if is_remote(out) {
        let expected = "a local folder, to be copied to the bucket with all files below it".to_owned();
        return Err(import_error(out, "output", expected, "a URL"));
    }
    let mut job = job_of(set, order, tokenizer, out, mode);
    let whole = |name: String| Attachment::new(name.clone(), Content::Files(vec![set.dir.join(name)]));
    let attachments: Result<Vec<_>, CacheError> = set.other_files()?.into_iter().map(whole).collect();
    let attachments = attachments?;
    job.source.attached = described(&attachments);
    let writer = CopyWriter::open(out, job, mode)?;
    remove_replaced(out, mode)?;
    let finished = push_frames(set, order, writer)?;
    attach_all(&attachments, out)?;
    Ok(finished)
}

fn job_of(set: &FrameSet, order: Option<BitOrder>, tokenizer: TokenizerInfo, out: &Path, mode: OpenMode) -> JobSpec {
    let mut job = JobSpec::new(set.grid, set.num_frames, 1);
    job.tokenizer = tokenizer;
    job.source.kind = FRAMES_KIND.to_owned();
    job.source.location = set.dir.display().to_string();
    if let Some(order) = order {
        job.source.details.insert(details::BIT_ORDER.into(), order.to_string().into());
    }
    job.source.details.insert(details::DTYPE.into(), set.dtype.clone().into());
    job.source.details.insert(details::VIDEO.into(), set.video_name.into());
    job.source.details.insert(details::HAS_SEGMENTS.into(), set.has_segments.into());
    // A set is known by what it holds, not by where it lies.
    if let Some(found) =
        identity_there(out).filter(|found| mode == OpenMode::Resume && found.source.kind == FRAMES_KIND)
    {
        job.source.location = found.source.location;
    }
    job
}

fn push_frames(set: &FrameSet, order: Option<BitOrder>, mut writer: CopyWriter) -> Result<Finished, CacheError> {
    let segments_path = set.dir.join(SEGMENTS_FILE);
    let mut segments = match set.has_segments {
        true => Some(BufReader::new(File::open(&segments_path).map_err(io_error("open", &segments_path))?)),
        false => None,
    };
    let (bits, num_tokens, mut tokens) = (set.grid.bits, set.grid.num_tokens(), Vec::new());
    for start in (0..set.num_frames).step_by(CHUNK_FRAMES) {
        let frames = start..(start + CHUNK_FRAMES).min(set.num_frames);
        set.read_frames(frames.clone(), &mut tokens)?;
        if order == Some(BitOrder::HighFirst) {
            tokens.iter_mut().for_each(|token| *token = BitOrder::HighFirst.convert(*token, bits));
        }
        for (frame, tokens) in frames.zip(tokens.chunks_exact(num_tokens)) {
            let mut segment = [0; 4];
            if let Some(segments) = &mut segments {
                segments.read_exact(&mut segment).map_err(io_error("read", &segments_path))?;
            }
            let key = frame_key(&set.key_prefix, i32::from_le_bytes(segment), frame);
            let row = Row { tokens, label: -1, key: &key, view: 0, crop_x: 0, crop_y: 0, flip: false };
            writer.push_image(frame, &[row])?;
        }
        cancel::check()?;
    }
    writer.finish()
}
