//! `torch.save` before PyTorch 1.6, as torchvision's and many other networks are still published: five pickles one after
//! the other, then the storages.
//!
//! ```text
//! magic number | protocol version | system | data | keys of the storages
//! for each key: number of elements (i64), elements
//! ```

use super::index::{Format, Index};
use super::pickle::{self, Pickle, PickleError, Value};
use super::state_dict;
use crate::ModelError;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use tch::Kind;

/// The first pickle: an integer of ten bytes.
const MAGIC: [u8; 12] = [0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// The second pickle.
const PROTOCOL: i64 = 1001;

/// Whether `bytes` begin with a pickle of the magic number; its frame depends on the pickle protocol.
pub(super) fn looks_like(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(32)];
    head.starts_with(b"\x80") && head.windows(MAGIC.len()).any(|window| window == MAGIC)
}

/// Tensors of the file, as for the zip format.
pub(super) fn index(path: &Path, bytes: &[u8]) -> Result<Index, ModelError> {
    let damaged = |what: String| ModelError::Damaged { path: path.into(), what };
    let failed = |part: &'static str| move |error: PickleError| state_dict::pickle_error(path, part, error);
    let mut at = 0;
    let mut next = || {
        let (pickle, value, len) = pickle::read(&bytes[at..])?;
        at += len;
        Ok((pickle, value))
    };
    next().map_err(failed("magic number"))?;
    let (_, protocol) = next().map_err(failed("protocol version"))?;
    if !matches!(protocol, Value::Int(PROTOCOL)) {
        return Err(damaged(format!("protocol version {protocol:?}, expected {PROTOCOL}")));
    }
    let (system, value) = next().map_err(failed("system information"))?;
    if let Some(Value::Bool(false)) = system.get(&value, "little_endian") {
        return Err(ModelError::BigEndian { path: path.into() });
    }
    let (data, root) = next().map_err(failed("data pickle"))?;
    let (keys, list) = next().map_err(failed("list of storages"))?;
    let storages = storages(bytes, at, &data, keys.items(&list).unwrap_or_default()).map_err(damaged)?;
    state_dict::index(Format::TorchLegacy, &data, &root, |key| storages.get(key)).map_err(damaged)
}

/// Byte ranges of the storages, which follow from `at` on in the order of `keys`.
fn storages<'a>(
    bytes: &[u8],
    mut at: usize,
    data: &'a Pickle,
    keys: &[Value],
) -> Result<HashMap<&'a str, Range<usize>>, String> {
    let kinds = kinds(data)?;
    let mut ranges = HashMap::new();
    for key in keys {
        let Value::Str(key) = key else { return Err("a storage whose key is no text".into()) };
        let (&key, kind) = kinds.get_key_value(&**key).ok_or_else(|| format!("a storage `{key}` of unknown type"))?;
        let cut = || format!("it ends inside the storage `{key}`");
        let head = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()).ok_or_else(cut)?;
        let numel = i64::from_le_bytes(*head);
        let len = usize::try_from(numel).ok().and_then(|numel| numel.checked_mul(kind.elt_size_in_bytes()));
        let len = len.ok_or_else(|| format!("storage `{key}` of {numel} elements"))?;
        let range = at + 8..(at + 8).checked_add(len).filter(|&end| end <= bytes.len()).ok_or_else(cut)?;
        at = range.end;
        if ranges.insert(key, range).is_some() {
            return Err(format!("the storage `{key}` twice"));
        }
    }
    if at < bytes.len() {
        return Err(format!("{} bytes behind the last storage", bytes.len() - at));
    }
    Ok(ranges)
}

/// The element type of every storage; in this format it has only one.
fn kinds(data: &Pickle) -> Result<HashMap<&str, Kind>, String> {
    let mut kinds = HashMap::new();
    for storage in data.storages() {
        let kind = kinds.entry(&*storage.key).or_insert(storage.kind);
        if *kind != storage.kind {
            return Err(format!("the storage `{}` as {kind:?} and as {:?}", storage.key, storage.kind));
        }
    }
    Ok(kinds)
}
