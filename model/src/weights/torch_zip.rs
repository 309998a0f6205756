//! The zip container of `torch.save`: `<name>/data.pkl` and one stored, uncompressed member per storage.

use super::index::{Format, Index};
use super::zip_directory::{self, Member};
use super::{identify, pickle, state_dict};
use crate::ModelError;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

/// The compression method of members that are not compressed.
const STORED: u16 = 0;

/// Tensors of a checkpoint: of its `state_dict` where it has one (a training checkpoint), else of the whole object.
pub(super) fn index(path: &Path, bytes: &[u8]) -> Result<Index, ModelError> {
    let damaged = |what: String| ModelError::Damaged { path: path.into(), what };
    let members = zip_directory::members(bytes).map_err(&damaged)?;
    check_paths(&members).map_err(&damaged)?;
    if let Some((found, advice)) = identify::other_archive(&members) {
        return Err(ModelError::OtherFormat { path: path.into(), found, advice });
    }
    let members = stored(path, members)?;
    let pickles: Vec<&String> = members.keys().filter(|name| name.ends_with("/data.pkl")).collect();
    let [pickle_name] = pickles.as_slice() else {
        return Err(damaged(format!("a PyTorch zip has one `data.pkl`, this one has {}", pickles.len())));
    };
    let root = pickle_name.trim_end_matches("data.pkl").to_string();
    if members.get(&format!("{root}byteorder")).is_some_and(|range| bytes[range.clone()].trim_ascii() == b"big") {
        return Err(ModelError::BigEndian { path: path.into() });
    }
    let (pickle, value, _) = pickle::read(&bytes[members[*pickle_name].clone()])
        .map_err(|error| state_dict::pickle_error(path, pickle_name, error))?;
    let storage_of = |key: &str| members.get(&format!("{root}data/{key}"));
    state_dict::index(Format::TorchZip, &pickle, &value, storage_of).map_err(damaged)
}

/// Nothing is ever unpacked, but a genuine archive has no such names.
fn check_paths(members: &[Member]) -> Result<(), String> {
    let is_outside =
        |name: &str| name.starts_with('/') || name.contains('\\') || name.split('/').any(|part| part == "..");
    match members.iter().find(|member| is_outside(&member.name)) {
        Some(member) => Err(format!("zip member `{}` points outside of the archive", member.name)),
        None => Ok(()),
    }
}

/// Byte ranges of the members, all of which must be stored as they are: a tensor is read where it lies.
fn stored(path: &Path, members: Vec<Member>) -> Result<HashMap<String, Range<usize>>, ModelError> {
    let mut ranges = HashMap::new();
    for Member { name, method, is_encrypted, bytes, unpacked_len } in members {
        let other = |found: String, advice| Err(ModelError::OtherFormat { path: path.into(), found, advice });
        if is_encrypted {
            let advice = "decrypt it with the program that made it";
            return other(format!("a zip archive whose member `{name}` is encrypted"), advice);
        }
        if method != STORED {
            let advice = "load it with PyTorch, and save it again with `torch.save`";
            let found = format!("a zip archive whose member `{name}` is compressed, which `torch.save` never does");
            return other(found, advice);
        }
        if bytes.len() as u64 != unpacked_len {
            let what = format!("zip member `{name}` has {} bytes instead of {unpacked_len}", bytes.len());
            return Err(ModelError::Damaged { path: path.into(), what });
        }
        ranges.insert(name, bytes);
    }
    refuse_overlaps(&ranges).map_err(|what| ModelError::Damaged { path: path.into(), what })?;
    Ok(ranges)
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
