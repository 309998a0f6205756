//! PyTorch's part: what its storages and tensors look like in a pickle.

use super::{Pickle, PickleError, Read, StoredStorage, StoredTensor, Value, broken};
use std::rc::Rc;
use tch::Kind;

/// Most dimensions of a tensor that any weights have.
const DIMS_MAX: usize = 8;

/// `('storage', <storage type>, key, location, numel[, view])`, what a persistent id stands for. `view` is None, or
/// `(key, offset, size)` in files of the first PyTorch versions.
pub(super) fn storage(pickle: &Pickle, id: &Value) -> Read<StoredStorage> {
    let Some([Value::Str(tag), Value::Global(class), Value::Str(key), _, Value::Int(numel), view @ ..]) =
        pickle.items(id)
    else {
        return broken("a storage of an unknown form");
    };
    let is_plain = key.len() <= 64 && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if &**tag != "storage" || !is_plain {
        return broken(format!("a storage called `{key:.64}`"));
    }
    if *numel < 0 {
        return broken(format!("storage `{key}` of {numel} elements"));
    }
    let Some(kind) = storage_kind(class) else { return Err(PickleError::Unsupported(format!("`{class}`"))) };
    let view_offset = match view.first().map(|view| (view, pickle.items(view))) {
        None | Some((Value::None, _)) => 0,
        Some((_, Some([_, Value::Int(offset), _]))) => *offset,
        Some(_) => return broken(format!("storage `{key}` with a view of an unknown form")),
    };
    Ok(StoredStorage { key: key.clone(), kind, numel: *numel, view_offset })
}

/// `(storage, offset, size, stride, ...)`, the arguments of `_rebuild_tensor` and `_rebuild_tensor_v2`.
pub(super) fn tensor(pickle: &Pickle, arguments: &[Value]) -> Read<StoredTensor> {
    let [Value::Storage(storage), Value::Int(offset), shape, strides, ..] = arguments else {
        return broken("a tensor of an unknown form");
    };
    let Some(offset) = storage.view_offset.checked_add(*offset) else { return broken("a tensor's offset overflows") };
    let (shape, strides) = (ints(pickle, shape)?, ints(pickle, strides)?);
    Ok(StoredTensor { storage: Rc::clone(storage), offset, shape, strides })
}

fn ints(pickle: &Pickle, value: &Value) -> Read<Vec<i64>> {
    let Some(items) = pickle.items(value) else { return broken("a tensor's size that is no tuple") };
    if items.len() > DIMS_MAX {
        return broken(format!("a tensor of {} dimensions; weights have {DIMS_MAX} at most", items.len()));
    }
    let int = |v: &Value| if let Value::Int(n) = v { Ok(*n) } else { broken("a tensor's size that is no number") };
    items.iter().map(int).collect()
}

fn storage_kind(class: &str) -> Option<Kind> {
    let class = class.strip_prefix("torch.")?;
    Some(match class.strip_prefix("cuda.").unwrap_or(class) {
        "DoubleStorage" => Kind::Double,
        "FloatStorage" => Kind::Float,
        "HalfStorage" => Kind::Half,
        "BFloat16Storage" => Kind::BFloat16,
        "LongStorage" => Kind::Int64,
        "IntStorage" => Kind::Int,
        "ShortStorage" => Kind::Int16,
        "CharStorage" => Kind::Int8,
        "ByteStorage" => Kind::Uint8,
        "BoolStorage" => Kind::Bool,
        _ => return None,
    })
}
