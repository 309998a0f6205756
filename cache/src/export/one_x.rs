//! A cache as a set of video frames.

use crate::error::CacheError;
use crate::export::folder::ExportFolder;
use crate::export::segments::SegmentIds;
use crate::export::visit_all;
use crate::format::attached::{AttachedFile, attached_path, visit_chunks};
use crate::format::bit_order::BitOrder;
use crate::format::frame_key::FrameKey;
use crate::import::error::import_error;
use crate::import::frame_set::{METADATA_FILE, SEGMENTS_FILE, VIDEO_FILES};
use crate::import::one_x::details;
use crate::read::cache::TokenCache;
use crate::remote::staged::LocalFolder;
use crate::write::writer::OpenMode;
use serde_json::{Value, json};
use std::path::Path;

/// How tokens of a set are written.
struct Layout {
    /// `None`: they are not made of bits.
    order: Option<BitOrder>,
    dtype: String,
    video: String,
    has_segments: bool,
}

/// Writes the rows of a cache to `out` in the layout of the 1X world-model data. A cache that [`crate::import_1x`] made gives
/// the files back that it was made of, byte by byte; one that was cut out of it or merged of such, the files of its rows.
/// Where several sets follow each other, the ids of a later one's clips count on from those before, if they are the same. Of any other one with one view and square grids `video.bin` (uint32),
/// `segment_ids.bin` where all keys are `<segment>/<frame>`, and a `metadata.json` are made, with channel 0 where `order` says.
/// Returns the names of the files.
///
/// # Errors
/// [`CacheError::Import`] where the cache cannot be written this way, or an attached file is missing or altered; otherwise
/// as [`crate::export_npy`].
pub fn export_1x(
    cache: &TokenCache,
    order: Option<BitOrder>,
    out: &Path,
    mode: OpenMode,
) -> Result<Vec<String>, CacheError> {
    let source = &cache.manifest().source;
    let layout = layout_of(cache, order)?;
    let mut names = vec![layout.video.clone()];
    names.extend(layout.has_segments.then(|| SEGMENTS_FILE.to_owned()));
    names.extend(source.attached.keys().cloned());
    let is_own_metadata = !source.attached.contains_key(METADATA_FILE);
    names.extend(is_own_metadata.then(|| METADATA_FILE.to_owned()));
    let folder = ExportFolder::open(out, &names.iter().map(String::as_str).collect::<Vec<_>>(), mode)?;

    let mut video = folder.create(&layout.video)?;
    let mut segments = match layout.has_segments {
        true => Some((folder.create(SEGMENTS_FILE)?, SegmentIds::of(cache)?)),
        false => None,
    };
    let (bits, mut bytes) = (cache.grid().bits, Vec::new());
    visit_all(cache, &mut |_, rows| {
        for row in rows {
            bytes.clear();
            for token in row.tokens {
                let token = layout.order.map_or(*token, |order| order.convert(*token, bits));
                put_token(&mut bytes, token, &layout.dtype);
            }
            video.put(&bytes)?;
            if let Some((segments, ids)) = &mut segments {
                segments.put(&ids.next(cache, row.key)?.to_le_bytes())?;
            }
        }
        Ok(())
    })?;
    let mut outputs = vec![video];
    outputs.extend(segments.map(|(output, _)| output));
    let attached = LocalFolder::of_attached(cache.dir(), cache.manifest())?;
    for (name, expected) in &source.attached {
        let path = attached_path(attached.path(), name)
            .ok_or_else(|| import_error(cache.dir(), "name of an attached file", "a relative path".into(), name))?;
        let mut output = folder.create(name)?;
        visit_chunks(&path, &mut |chunk| output.put(chunk))?;
        if output.hash() != expected.blake3 {
            return Err(changed(&path, expected, output.hash()));
        }
        outputs.push(output);
    }
    if is_own_metadata {
        let mut output = folder.create(METADATA_FILE)?;
        let grid = cache.grid();
        let metadata = json!({
            "num_images": cache.num_rows(), "s": grid.height, "vocab_size": 1u32 << grid.bits, "token_dtype": layout.dtype,
        });
        output.put(metadata.to_string().as_bytes())?;
        outputs.push(output);
    }
    folder.publish(outputs)?;
    Ok(names)
}

fn changed(path: &Path, expected: &AttachedFile, actual: String) -> CacheError {
    import_error(path, "checksum", format!("{}, as the manifest says", expected.blake3), actual)
}

fn layout_of(cache: &TokenCache, wanted: Option<BitOrder>) -> Result<Layout, CacheError> {
    let (source, grid) = (&cache.manifest().source, cache.grid());
    let refuse = |what, expected: &str, actual: String| Err(import_error(cache.dir(), what, expected.into(), actual));
    if grid.height != grid.width {
        return refuse("grid", "as high as wide", grid.to_string());
    }
    if cache.num_views() != 1 {
        return refuse("number of views", "1: take one by `cache subset --views`", cache.num_views().to_string());
    }
    if source.details.contains_key(details::DTYPE) {
        let text = |name: &str| source.details.get(name).and_then(Value::as_str);
        let recorded = text(details::BIT_ORDER).and_then(|order| order.parse().ok());
        if wanted.is_some() && wanted != recorded {
            let recorded = recorded.map_or("tokens that are not made of bits".to_owned(), |order| order.to_string());
            return refuse("bit order", &recorded, wanted.map(|order| order.to_string()).unwrap_or_default());
        }
        return Ok(Layout {
            order: recorded,
            dtype: text(details::DTYPE).unwrap_or("uint32").to_owned(),
            video: VIDEO_FILES
                .into_iter()
                .find(|name| text(details::VIDEO) == Some(name))
                .unwrap_or(VIDEO_FILES[0])
                .into(),
            has_segments: source.details.get(details::HAS_SEGMENTS).and_then(Value::as_bool).unwrap_or(false),
        });
    }
    let Some(order) = wanted else {
        return refuse("bit order", "given: the cache is not of such a set, and its readers differ", "missing".into());
    };
    let has_segments = cache.meta(0).is_ok_and(|meta| FrameKey::parse(&meta.key).is_some());
    Ok(Layout { order: Some(order), dtype: "uint32".into(), video: VIDEO_FILES[0].into(), has_segments })
}

/// Appends a token as the given type stores it, little-endian.
fn put_token(bytes: &mut Vec<u8>, token: u32, dtype: &str) {
    match dtype {
        "uint16" => bytes.extend_from_slice(&(token as u16).to_le_bytes()),
        "uint64" | "int64" => bytes.extend_from_slice(&u64::from(token).to_le_bytes()),
        _ => bytes.extend_from_slice(&token.to_le_bytes()),
    }
}
