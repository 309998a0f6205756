//! A cache out of a set of video frames.

use crate::cancel;
use crate::error::{CacheError, io_error};
use crate::files::atomic::AtomicFile;
use crate::format::attached::{ATTACHED_FOLDER, AttachedFile, attached_path, visit_chunks};
use crate::format::bit_order::BitOrder;
use crate::format::frame_key::frame_key;
use crate::format::identity::TokenizerInfo;
use crate::format::job::JobSpec;
use crate::format::row::Row;
use crate::import::error::import_error;
use crate::import::frame_set::{FrameSet, SEGMENTS_FILE};
use crate::write::copy::CopyWriter;
use crate::write::folder::identity_there;
use crate::write::writer::{Finished, OpenMode};
use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;
use tokengrid_store::is_remote;

/// The kind of source that such sets are. Shards of caches of this kind have the columns `segment` and `frame`.
pub(crate) const FRAMES_KIND: &str = "1x";

/// Names of `source.details`.
pub(crate) mod details {
    pub(crate) const BIT_ORDER: &str = "bit_order";
    pub(crate) const DTYPE: &str = "token_dtype";
    pub(crate) const VIDEO: &str = "video";
    pub(crate) const HAS_SEGMENTS: &str = "has_segment_ids";
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
    let job = job_of(set, order, tokenizer, out, mode)?;
    let attached = job.source.attached.clone();
    let writer = CopyWriter::open(out, job, mode)?;
    let attachments = out.join(ATTACHED_FOLDER);
    if mode == OpenMode::Overwrite && attachments.exists() {
        fs::remove_dir_all(&attachments).map_err(io_error("remove", &attachments))?;
    }
    let finished = push_frames(set, order, writer)?;
    // After the rows: a folder with these files and nothing else would not be known as a cache's. What is missing when the
    // process dies here is attached by the next run, and until then `verify` names it.
    attach(set, &attached, out)?;
    Ok(finished)
}

fn job_of(
    set: &FrameSet,
    order: Option<BitOrder>,
    tokenizer: TokenizerInfo,
    out: &Path,
    mode: OpenMode,
) -> Result<JobSpec, CacheError> {
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
    for name in set.other_files()? {
        let file = AttachedFile::of(&set.dir.join(&name))?;
        job.source.attached.insert(name, file);
    }
    // A set is known by what it holds, not by where it lies.
    if let Some(found) =
        identity_there(out).filter(|found| mode == OpenMode::Resume && found.source.kind == FRAMES_KIND)
    {
        job.source.location = found.source.location;
    }
    Ok(job)
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
            let key = frame_key(i32::from_le_bytes(segment), frame);
            let row = Row { tokens, label: -1, key: &key, view: 0, crop_x: 0, crop_y: 0, flip: false };
            writer.push_image(frame, &[row])?;
        }
        cancel::check()?;
    }
    writer.finish()
}

/// Copies the files that are not there yet into the cache's folder.
fn attach(set: &FrameSet, files: &BTreeMap<String, AttachedFile>, out: &Path) -> Result<(), CacheError> {
    for (name, expected) in files {
        let (source, target) = (set.dir.join(name), attached_path(out, name));
        let target = target.ok_or_else(|| import_error(&source, "name", "a relative path".into(), name))?;
        if target.exists() && AttachedFile::of(&target)? == *expected {
            continue;
        }
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(io_error("create folder", folder))?;
        }
        let mut file = AtomicFile::create(&target).map_err(io_error("create", &target))?;
        visit_chunks(&source, &mut |chunk| file.write_all(chunk).map_err(io_error("write", &target)))?;
        file.publish().map_err(io_error("write", &target))?;
        let actual = AttachedFile::of(&target)?;
        if actual != *expected {
            let expected = format!("{}, as when the import began", expected.blake3);
            return Err(import_error(&source, "checksum", expected, actual.blake3));
        }
    }
    Ok(())
}
