//! The zip container of `torch.save`: `<name>/data.pkl` and one stored, uncompressed member a storage.

use super::file::Entry;
use super::pickle::{self, Pickle, StoredTensor, Value};
use crate::TokenizeError;
use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;
use std::ops::Range;
use std::path::Path;
use zip::{CompressionMethod, ZipArchive};

/// Tensors of a checkpoint: of its `state_dict` where it has one (a training checkpoint), else of the whole object.
pub(super) fn index(path: &Path, bytes: &[u8]) -> Result<BTreeMap<String, Entry>, TokenizeError> {
    let damaged = |what: String| TokenizeError::Damaged { path: path.into(), what };
    let members = members(bytes).map_err(&damaged)?;
    let pickles: Vec<&String> = members.keys().filter(|name| name.ends_with("/data.pkl")).collect();
    let [pickle_name] = pickles.as_slice() else {
        return Err(damaged(format!("a PyTorch zip has one `data.pkl`, this one has {}", pickles.len())));
    };
    let root = pickle_name.trim_end_matches("data.pkl").to_string();
    let (pickle, value) = pickle::read(&bytes[members[*pickle_name].clone()]).map_err(|error| match error {
        pickle::PickleError::Forbidden(symbol) => TokenizeError::HostilePickle { path: path.into(), symbol },
        pickle::PickleError::Broken(what) => damaged(format!("{pickle_name}: {what}")),
    })?;
    let state = pickle.get(&value, "state_dict").unwrap_or(&value);
    let mut entries = BTreeMap::new();
    for (name, tensor) in tensors(&pickle, state) {
        let member = format!("{root}data/{}", tensor.storage);
        let range = members
            .get(&member)
            .ok_or_else(|| damaged(format!("tensor `{name}` lies in `{member}`, which is not in the file")))?;
        let entry = locate(&tensor, range).map_err(|what| damaged(format!("tensor `{name}`: {what}")))?;
        entries.insert(name, entry);
    }
    if entries.is_empty() {
        return Err(damaged("it holds no named tensors".into()));
    }
    Ok(entries)
}

/// Byte ranges of the stored members.
fn members(bytes: &[u8]) -> Result<HashMap<String, Range<usize>>, String> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|e| format!("zip directory: {e}"))?;
    let mut members = HashMap::new();
    for i in 0..archive.len() {
        let file = archive.by_index_raw(i).map_err(|e| format!("zip member {i}: {e}"))?;
        let name = file.name().map_err(|e| format!("zip member {i}: {e}"))?.to_string();
        if file.compression() != CompressionMethod::Stored {
            return Err(format!("zip member `{name}` is compressed, which PyTorch never does"));
        }
        let start = file.data_start().ok_or_else(|| format!("zip member `{name}` has no data"))? as usize;
        let end = start.checked_add(file.size() as usize).filter(|&end| end <= bytes.len());
        let end = end.ok_or_else(|| format!("zip member `{name}` reaches beyond the end of the file"))?;
        members.insert(name, start..end);
    }
    Ok(members)
}

/// The bytes of `tensor` within its storage's range, with every number checked.
fn locate(tensor: &StoredTensor, storage: &Range<usize>) -> Result<Entry, String> {
    let size = tensor.kind.elt_size_in_bytes();
    if tensor.shape.len() != tensor.strides.len() || tensor.shape.len() > 8 {
        return Err(format!("{} sizes but {} strides", tensor.shape.len(), tensor.strides.len()));
    }
    if tensor.shape.iter().chain(&tensor.strides).any(|&n| n < 0) || tensor.offset < 0 {
        return Err("a negative size, stride or offset".into());
    }
    let overflow = || "sizes that overflow".to_string();
    let mut numel: usize = 1;
    let mut last: usize = 0;
    for (&n, &stride) in tensor.shape.iter().zip(&tensor.strides) {
        numel = numel.checked_mul(n as usize).ok_or_else(overflow)?;
        let reach = (n as usize).saturating_sub(1).checked_mul(stride as usize).ok_or_else(overflow)?;
        last = last.checked_add(reach).ok_or_else(overflow)?;
    }
    let span = if numel == 0 { 0 } else { last.checked_add(1).ok_or_else(overflow)? };
    let from = (tensor.offset as usize).checked_mul(size).ok_or_else(overflow)?;
    let len = span.checked_mul(size).ok_or_else(overflow)?;
    if numel > span {
        return Err("elements that overlap each other".into());
    }
    let end = from.checked_add(len).ok_or_else(overflow)?;
    if end > storage.len() {
        return Err(format!("needs {end} bytes of a storage that has {}", storage.len()));
    }
    let bytes = storage.start + from..storage.start + end;
    Ok(Entry { kind: tensor.kind, shape: tensor.shape.clone(), strides: tensor.strides.clone(), bytes })
}

/// Named tensors: direct ones, and those of nested dictionaries joined by dots.
fn tensors(pickle: &Pickle, state: &Value) -> Vec<(String, StoredTensor)> {
    let mut walk = Walk { pickle, found: vec![], visits_left: 4_000_000 };
    walk.collect(state, "", 0);
    walk.found
}

/// Bounded, because a hostile pickle may tie dictionaries into themselves.
struct Walk<'a> {
    pickle: &'a Pickle,
    found: Vec<(String, StoredTensor)>,
    visits_left: usize,
}

impl Walk<'_> {
    fn collect(&mut self, value: &Value, name: &str, depth: usize) {
        const DEPTH_MAX: usize = 4;
        for (key, value) in self.pickle.entries(value) {
            let Some(left) = self.visits_left.checked_sub(1) else { return };
            self.visits_left = left;
            let Value::Str(key) = key else { continue };
            let name = if name.is_empty() { key.to_string() } else { format!("{name}.{key}") };
            match value {
                Value::Tensor(tensor) => self.found.push((name, (**tensor).clone())),
                Value::Dict(_) if depth < DEPTH_MAX => self.collect(value, &name, depth + 1),
                _ => {}
            }
        }
    }
}
