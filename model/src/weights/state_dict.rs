//! From an interpreted pickle to named tensors: the walk through the state dictionary, and where each tensor's bytes lie.

use super::index::{Entry, Format, Index};
use super::layout::Part;
use super::naming::{EMA_WRAPPERS, WRAPPERS};
use super::pickle::{Pickle, PickleError, StoredTensor, Value};
use crate::ModelError;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// Dictionaries within dictionaries.
const DEPTH_MAX: usize = 4;
/// Limit of visited entries; a hostile pickle may have cyclic dictionaries.
const VISITS_MAX: usize = 4_000_000;
/// Named tensors. The largest training checkpoints have some thousands.
const TENSORS_MAX: usize = 100_000;
/// Characters of a tensor's name.
const NAME_MAX: usize = 1024;

/// What a pickle's failure means for the file at `path`; `part` is the pickle within it.
pub(super) fn pickle_error(path: &Path, part: &str, error: PickleError) -> ModelError {
    let path = path.into();
    match error {
        PickleError::Forbidden(symbol) => ModelError::HostilePickle { path, symbol },
        PickleError::Broken(what) => ModelError::Damaged { path, what: format!("{part}: {what}") },
        PickleError::Unsupported(kind) => ModelError::UnsupportedType { path, kind },
    }
}

/// Entries of a dictionary that are examined to decide whether it holds tensors.
const PEEKS_MAX: usize = 1000;

/// Tensors of a checkpoint: of its `state_dict` or what else it calls the model's weights where it has one (a training
/// checkpoint), else of the whole object. `storage_of` gives the bytes of a storage within the file.
pub(super) fn index<'a>(
    format: Format,
    pickle: &Pickle,
    root: &Value,
    storage_of: impl Fn(&str) -> Option<&'a Range<usize>>,
) -> Result<Index, String> {
    let mut walk = Walk { pickle, found: BTreeMap::new(), visits_left: VISITS_MAX };
    let State { weights, averages, notes } = state_of(pickle, root);
    walk.collect(weights, "", 0)?;
    if let Some((key, averages)) = averages {
        walk.collect(averages, key, 0)?;
    }
    let num_other_tensors = pickle.num_tensors.saturating_sub(walk.found.len());
    let mut entries = BTreeMap::new();
    for (name, tensor) in walk.found {
        let key = &tensor.storage.key;
        let range = storage_of(key)
            .ok_or_else(|| format!("tensor `{name}` lies in the storage `{key}`, which is not in the file"))?;
        let entry = locate(tensor, range).map_err(|what| format!("tensor `{name}`: {what}"))?;
        entries.insert(name, entry);
    }
    Ok(Index { format, entries, facts: facts(pickle, root), num_other_tensors, notes, no_tensors: instead(root) })
}

/// What a pickle holds that is not a dictionary of tensors.
fn instead(root: &Value) -> &'static str {
    match root {
        Value::Tensor(_) => " (it holds a single tensor without a name)",
        Value::List(_) | Value::Tuple(_) => " (it holds a list)",
        Value::Opaque => " (it holds a Python object, which only the program that made it can load)",
        _ => "",
    }
}

/// The dictionaries of a checkpoint that hold weights.
struct State<'a> {
    weights: &'a Value,
    /// A second set of them beside the first, averaged, and the key that it has.
    averages: Option<(&'static str, &'a Value)>,
    notes: Vec<String>,
}

/// Finds the weights in what a training program saved with them: `{"state_dict": ...}`, `{"model": ..., "ema": ...}`.
fn state_of<'a>(pickle: &'a Pickle, root: &'a Value) -> State<'a> {
    let mut state = State { weights: root, averages: None, notes: vec![] };
    // Twice: Lightning's `state_dict` may be that of a checkpoint of another program.
    for _ in 0..2 {
        let wrapped =
            |key: &&'static str| Some((*key, pickle.get(state.weights, key).filter(|inner| holds(pickle, inner, 1))?));
        let averages = EMA_WRAPPERS.iter().find_map(wrapped);
        let Some((key, weights)) = WRAPPERS.iter().find_map(wrapped).or(averages) else { break };
        if key != "state_dict" && has_model(pickle, state.weights) {
            break;
        }
        state.weights = weights;
        state.averages = state.averages.or(averages.filter(|(other, _)| *other != key));
        // Where the reference has them no note is needed.
        if key != "state_dict" {
            state.notes.push(format!("the weights are what it holds under `{key}`"));
        }
    }
    state
}

/// Whether a dictionary holds tensors, or one in it does.
fn holds(pickle: &Pickle, value: &Value, depth: usize) -> bool {
    pickle.entries(value).iter().take(PEEKS_MAX).any(|(_, value)| match value {
        Value::Tensor(_) => true,
        Value::Dict(_) => depth > 0 && holds(pickle, value, depth - 1),
        _ => false,
    })
}

/// Whether tensors of a model are in a dictionary itself.
fn has_model(pickle: &Pickle, value: &Value) -> bool {
    pickle.entries(value).iter().any(|(key, value)| match (key, value) {
        (Value::Str(key), Value::Tensor(_)) => Part::of(key) != Part::Unexplained,
        _ => false,
    })
}

/// Plain values at the top of a training checkpoint: epoch, step, the version of what wrote it.
fn facts(pickle: &Pickle, root: &Value) -> BTreeMap<String, String> {
    let plain = |(key, value): &(Value, Value)| match (key, value) {
        (Value::Str(key), Value::Int(n)) => Some((key.to_string(), n.to_string())),
        (Value::Str(key), Value::Bool(b)) => Some((key.to_string(), b.to_string())),
        (Value::Str(key), Value::Str(text)) => Some((key.to_string(), text.to_string())),
        _ => None,
    };
    pickle.entries(root).iter().take(100).filter_map(plain).collect()
}

struct Walk<'a> {
    pickle: &'a Pickle,
    found: BTreeMap<String, &'a StoredTensor>,
    visits_left: usize,
}

impl<'a> Walk<'a> {
    /// Named tensors: direct ones, and those of nested dictionaries joined by dots. As in Python, the last of equal
    /// keys wins.
    fn collect(&mut self, value: &Value, name: &str, depth: usize) -> Result<(), String> {
        for (key, value) in self.pickle.entries(value) {
            self.visits_left = self.visits_left.checked_sub(1).ok_or("dictionaries that contain each other")?;
            let Value::Str(key) = key else { continue };
            if name.len() + key.len() > NAME_MAX {
                return Err(format!("a tensor's name of {} characters", name.len() + key.len()));
            }
            let name = if name.is_empty() { key.to_string() } else { format!("{name}.{key}") };
            match value {
                Value::Tensor(tensor) => drop(self.found.insert(name, tensor)),
                Value::Dict(_) if depth < DEPTH_MAX => self.collect(value, &name, depth + 1)?,
                _ => {}
            }
            if self.found.len() > TENSORS_MAX {
                return Err(format!("more than {TENSORS_MAX} tensors"));
            }
        }
        Ok(())
    }
}

/// The bytes of `tensor` within its storage's range, with every number checked.
fn locate(tensor: &StoredTensor, storage: &Range<usize>) -> Result<Entry, String> {
    let kind = tensor.storage.kind;
    let size = kind.elt_size_in_bytes();
    let (claimed, actual) = (tensor.storage.numel, storage.len() / size);
    if claimed as usize != actual {
        let key = &tensor.storage.key;
        return Err(format!("its storage `{key}` has {actual} elements, the pickle says {claimed}"));
    }
    if tensor.shape.len() != tensor.strides.len() {
        return Err(format!("{} sizes but {} strides", tensor.shape.len(), tensor.strides.len()));
    }
    if tensor.shape.iter().chain(&tensor.strides).any(|&n| n < 0) || tensor.offset < 0 {
        return Err("a negative size, stride or offset".into());
    }
    let overflow = || "sizes that overflow".to_string();
    let span = span(tensor).ok_or_else(overflow)?;
    let from = (tensor.offset as usize).checked_mul(size).ok_or_else(overflow)?;
    let len = span.checked_mul(size).ok_or_else(overflow)?;
    let end = from.checked_add(len).ok_or_else(overflow)?;
    if end > storage.len() {
        return Err(format!("it needs {end} bytes of a storage that has {}", storage.len()));
    }
    let bytes = storage.start + from..storage.start + end;
    Ok(Entry { kind, shape: tensor.shape.clone(), strides: tensor.strides.clone(), bytes })
}

/// Elements from the tensor's first to its last one; None where a number overflows.
fn span(tensor: &StoredTensor) -> Option<usize> {
    let (mut numel, mut last) = (1usize, 0usize);
    for (&n, &stride) in tensor.shape.iter().zip(&tensor.strides) {
        numel = numel.checked_mul(n as usize)?;
        last = last.checked_add((n as usize).saturating_sub(1).checked_mul(stride as usize)?)?;
    }
    i64::try_from(numel).ok()?;
    if numel == 0 { Some(0) } else { last.checked_add(1) }
}
