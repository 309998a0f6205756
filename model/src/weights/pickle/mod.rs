//! A pickle interpreter that knows plain values and PyTorch's tensor-rebuilding calls, and nothing else.
//!
//! It never imports, calls or constructs anything: a `GLOBAL` is only a name, a call of a known tensor-rebuilding name
//! yields a description of where the tensor lies, and of any other name an opaque value that is dropped. Names from
//! modules that exist to run code cause the whole file to be refused, since no weights need them.
//!
//! Memory and time are linear in the pickle's length and bounded besides ([`STEPS_MAX`]): no opcode copies more than it
//! spells out, and what a hostile file could repeat by reference is charged against a budget.
//!
//! | module | what it is for |
//! |---|---|
//! | `machine` | the opcodes |
//! | `symbols` | names that are refused |
//! | `torch` | storages and tensors |

mod machine;
mod symbols;
#[cfg(test)]
mod tests;
mod torch;

pub(super) use machine::read;
use std::rc::Rc;
use tch::Kind;

/// Opcodes that are interpreted before a pickle is refused: at 50 per tensor, enough for 80,000 tensors.
pub(super) const STEPS_MAX: usize = 4_000_000;

/// Limit in bytes of a pickle's length that is read. Real ones have some megabytes.
pub(super) const BYTES_MAX: usize = 1 << 28;

/// Why a pickle was not read.
#[derive(Debug, PartialEq)]
pub(super) enum PickleError {
    /// It names something that runs code.
    Forbidden(String),
    /// It is malformed or uses what no checkpoint needs.
    Broken(String),
    /// It holds tensors of a type that no weights have.
    Unsupported(String),
}

type Read<T> = Result<T, PickleError>;

fn broken<T>(what: impl Into<String>) -> Read<T> {
    Err(PickleError::Broken(what.into()))
}

/// A storage that the pickle refers to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StoredStorage {
    /// Its key: the member `data/<key>` of a zip, or an entry of the list behind an old-style pickle.
    pub key: Rc<str>,
    pub kind: Kind,
    /// Number of elements, as the pickle states it.
    pub numel: i64,
    /// First element of it that a view begins with; 0 except in files of the first PyTorch versions.
    pub view_offset: i64,
}

/// Location of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StoredTensor {
    pub storage: Rc<StoredStorage>,
    /// First element within the storage.
    pub offset: i64,
    pub shape: Vec<i64>,
    pub strides: Vec<i64>,
}

/// A value of the pickle. Lists, tuples and dictionaries are indices into the pickle's own tables: however deeply a
/// hostile file nests or ties them, nothing here recurses.
#[derive(Debug, Clone)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float,
    Str(Rc<str>),
    Bytes,
    Tuple(usize),
    List(usize),
    Dict(usize),
    Global(Rc<str>),
    Storage(Rc<StoredStorage>),
    Tensor(Rc<StoredTensor>),
    /// A value that inference does not need.
    Opaque,
    Mark,
}

/// An interpreted pickle: the tables that its values point into.
#[derive(Debug, Default)]
pub(super) struct Pickle {
    lists: Vec<Vec<Value>>,
    dicts: Vec<Vec<(Value, Value)>>,
    storages: Vec<Rc<StoredStorage>>,
    /// Tensors that it describes, wherever they are.
    pub num_tensors: usize,
}

impl Pickle {
    /// Entries of a dictionary; none for any other value.
    pub(super) fn entries(&self, value: &Value) -> &[(Value, Value)] {
        if let Value::Dict(index) = value { &self.dicts[*index] } else { &[] }
    }

    /// The value of `key`, where `value` is a dictionary that has it.
    pub(super) fn get(&self, value: &Value, key: &str) -> Option<&Value> {
        self.entries(value).iter().find(|(k, _)| matches!(k, Value::Str(k) if &**k == key)).map(|(_, value)| value)
    }

    /// Items of a list or tuple.
    pub(super) fn items(&self, value: &Value) -> Option<&[Value]> {
        match value {
            Value::Tuple(index) | Value::List(index) => Some(&self.lists[*index]),
            _ => None,
        }
    }

    /// Every storage that the pickle refers to, in its order; one may occur many times.
    pub(super) fn storages(&self) -> impl Iterator<Item = &StoredStorage> {
        self.storages.iter().map(|storage| &**storage)
    }

    fn tuple(&mut self, items: Vec<Value>) -> Value {
        self.lists.push(items);
        Value::Tuple(self.lists.len() - 1)
    }

    fn list(&mut self, items: Vec<Value>) -> Value {
        self.lists.push(items);
        Value::List(self.lists.len() - 1)
    }

    fn dict(&mut self, entries: Vec<(Value, Value)>) -> Value {
        self.dicts.push(entries);
        Value::Dict(self.dicts.len() - 1)
    }
}
