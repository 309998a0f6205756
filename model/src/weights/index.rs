//! The common result of the readers of the three formats: tensors by name, and metadata.

use super::naming;
use crate::ModelError;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use tch::Kind;

/// One tensor of a file.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Element type.
    pub kind: Kind,
    /// Shape.
    pub shape: Vec<i64>,
    /// Strides in elements; row-major where the file does not say.
    pub strides: Vec<i64>,
    /// Byte range of the elements within the file, from the tensor's first one on.
    pub bytes: Range<usize>,
}

impl Entry {
    /// Number of elements.
    pub fn numel(&self) -> i64 {
        self.shape.iter().product()
    }
}

/// The kind of file that weights were read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `torch.save` of PyTorch 1.6 and later.
    TorchZip,
    /// `torch.save` of earlier versions.
    TorchLegacy,
    /// safetensors.
    Safetensors,
}

impl Format {
    /// Name for messages.
    pub fn name(self) -> &'static str {
        match self {
            Format::TorchZip => "PyTorch zip",
            Format::TorchLegacy => "PyTorch before 1.6",
            Format::Safetensors => "safetensors",
        }
    }
}

/// An indexed file.
#[derive(Debug)]
pub(super) struct Index {
    pub format: Format,
    pub entries: BTreeMap<String, Entry>,
    /// Texts beside the tensors: the metadata of safetensors, plain values of a training checkpoint.
    pub facts: BTreeMap<String, String>,
    /// Tensors outside the state dictionary, such as those of optimizers.
    pub num_other_tensors: usize,
    /// How the tensors were found and renamed, for messages.
    pub notes: Vec<String>,
    /// What a file without named tensors holds instead, in parentheses, or nothing.
    pub no_tensors: &'static str,
}

/// What all tensors of a file may take together when copied out, as a multiple of its size. Tensors may share bytes, but
/// a file whose tensors are many times as large as itself is a decompression bomb.
const EXPANSION_MAX: u128 = 16;
const EXPANSION_FREE_BYTES: u128 = 1 << 26;

impl Index {
    /// Renames tensors to the names that the models use, where a training program wrote other names.
    pub(super) fn rename(mut self) -> Index {
        let (new_names, notes) = naming::renamed(self.entries.keys().map(String::as_str));
        // All are removed before the first is inserted: a new name may be another tensor's old one.
        let taken: Vec<_> =
            new_names.iter().filter_map(|(old, new)| Some((new.clone(), self.entries.remove(old)?))).collect();
        self.entries.extend(taken);
        self.notes.extend(notes);
        self
    }

    /// Checks what holds for every format.
    ///
    /// # Errors
    /// No tensors at all, or a decompression bomb.
    pub(super) fn check(self, path: &Path, file_bytes: usize) -> Result<Index, ModelError> {
        let damaged = |what: String| Err(ModelError::Damaged { path: path.into(), what });
        if self.entries.is_empty() {
            return Err(ModelError::NoTensors { path: path.into(), reason: self.no_tensors });
        }
        let size = |entry: &Entry| {
            let numel = entry.shape.iter().fold(1u128, |numel, &n| numel.saturating_mul(n as u128));
            numel.saturating_mul(entry.kind.elt_size_in_bytes() as u128)
        };
        let total = self.entries.values().fold(0u128, |total, entry| total.saturating_add(size(entry)));
        if total > file_bytes as u128 * EXPANSION_MAX + EXPANSION_FREE_BYTES {
            return damaged(format!("its tensors would take {total} bytes, the file has {file_bytes}"));
        }
        Ok(self)
    }
}
