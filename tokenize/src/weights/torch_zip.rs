//! The zip container of `torch.save`: `<name>/data.pkl` and one stored, uncompressed member a storage.

use super::index::{Format, Index};
use super::{pickle, state_dict};
use crate::TokenizeError;
use std::collections::HashMap;
use std::io::Cursor;
use std::ops::Range;
use std::path::Path;
use zip::{CompressionMethod, ZipArchive};

/// Tensors of a checkpoint: of its `state_dict` where it has one (a training checkpoint), else of the whole object.
pub(super) fn index(path: &Path, bytes: &[u8]) -> Result<Index, TokenizeError> {
    let damaged = |what: String| TokenizeError::Damaged { path: path.into(), what };
    let members = members(bytes).map_err(&damaged)?;
    let pickles: Vec<&String> = members.keys().filter(|name| name.ends_with("/data.pkl")).collect();
    let [pickle_name] = pickles.as_slice() else {
        return Err(damaged(format!("a PyTorch zip has one `data.pkl`, this one has {}", pickles.len())));
    };
    let root = pickle_name.trim_end_matches("data.pkl").to_string();
    if members.get(&format!("{root}byteorder")).is_some_and(|range| bytes[range.clone()].trim_ascii() == b"big") {
        return Err(TokenizeError::BigEndian { path: path.into() });
    }
    let (pickle, value, _) = pickle::read(&bytes[members[*pickle_name].clone()])
        .map_err(|error| state_dict::pickle_error(path, pickle_name, error))?;
    let storage_of = |key: &str| members.get(&format!("{root}data/{key}"));
    state_dict::index(Format::TorchZip, &pickle, &value, storage_of).map_err(damaged)
}

/// Byte ranges of the stored members.
fn members(bytes: &[u8]) -> Result<HashMap<String, Range<usize>>, String> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|e| format!("zip directory: {e}"))?;
    check_directory(bytes, archive.central_directory_start(), archive.len())?;
    let mut members = HashMap::new();
    for i in 0..archive.len() {
        let file = archive.by_index_raw(i).map_err(|e| format!("zip member {i}: {e}"))?;
        let name = file.name().map_err(|e| format!("zip member {i}: {e}"))?.to_string();
        if name.starts_with('/') || name.contains('\\') || name.split('/').any(|part| part == "..") {
            return Err(format!("zip member `{name}` points outside of the archive"));
        }
        if file.compression() != CompressionMethod::Stored {
            return Err(format!("zip member `{name}` is compressed, which PyTorch never does"));
        }
        if file.encrypted() {
            return Err(format!("zip member `{name}` is encrypted"));
        }
        let start = file.data_start().ok_or_else(|| format!("zip member `{name}` has no data"))?;
        let end = start.checked_add(file.size()).filter(|&end| end <= bytes.len() as u64);
        let end = end.ok_or_else(|| format!("zip member `{name}` reaches beyond the end of the file"))?;
        members.insert(name, start as usize..end as usize);
    }
    refuse_overlaps(&members)?;
    Ok(members)
}

/// Two members under one name would be read differently by different programs.
fn check_directory(bytes: &[u8], start: u64, num_names: usize) -> Result<(), String> {
    let mut rest = usize::try_from(start).ok().and_then(|start| bytes.get(start..)).unwrap_or_default();
    let mut count = 0;
    while let Some(head) = rest.first_chunk::<46>().filter(|head| head.starts_with(b"PK\x01\x02")) {
        let length = |at: usize| usize::from(u16::from_le_bytes([head[at], head[at + 1]]));
        rest = rest.get(46 + length(28) + length(30) + length(32)..).unwrap_or_default();
        count += 1;
    }
    if count == num_names { Ok(()) } else { Err(format!("a zip of {count} members under {num_names} names")) }
}

/// Members that share bytes make a small file pass for a large one.
fn refuse_overlaps(members: &HashMap<String, Range<usize>>) -> Result<(), String> {
    let mut ranges: Vec<(&Range<usize>, &String)> = members.iter().map(|(name, range)| (range, name)).collect();
    ranges.retain(|(range, _)| !range.is_empty());
    ranges.sort_by_key(|(range, name)| (range.start, *name));
    match ranges.windows(2).find(|pair| pair[0].0.end > pair[1].0.start) {
        Some(pair) => Err(format!("zip members `{}` and `{}` overlap", pair[0].1, pair[1].1)),
        None => Ok(()),
    }
}
