//! An opened checkpoint of any kind: names, shapes, and the bytes in a read-only map.

use super::index::{Entry, Format, Index};
use super::{finite, identify, legacy, safetensors, torch_zip};
use crate::ModelError;
use memmap2::Mmap;
use std::fs::File;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// A checkpoint, mapped read-only. Tensors are copied out one by one on request.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    data: Data,
    index: Index,
}

#[derive(Debug)]
enum Data {
    Mapped(Mmap),
    Static(&'static [u8]),
}

impl Data {
    fn bytes(&self) -> &[u8] {
        match self {
            Data::Mapped(map) => map,
            Data::Static(bytes) => bytes,
        }
    }
}

impl Weights {
    /// Opens a `.ckpt` / `.pt` / `.pth` file of any PyTorch version since 0.1.10, or a `.safetensors` file; the content shows
    /// which. Pickles are interpreted by a reader that builds tensors and plain values only; nothing in them is ever
    /// executed.
    ///
    /// # Errors
    /// Unreadable, not a checkpoint, damaged, or hostile files.
    pub fn open(path: &Path) -> Result<Weights, ModelError> {
        let read = |action: &'static str| move |source| ModelError::Read { path: path.into(), action, source };
        let file = File::open(path).map_err(read("opening the weights"))?;
        if file.metadata().map_err(read("asking for its size"))?.is_dir() {
            let found = "it is a folder".to_string();
            return Err(ModelError::NotACheckpoint { path: path.into(), found });
        }
        // SAFETY: the map is read-only and private to this process; as with every mapped file, it is required of
        // the user that nothing truncates the checkpoint while it is being read (publish by rename, as we do).
        let map = unsafe { Mmap::map(&file) }.map_err(read("mapping the weights"))?;
        let weights = Weights::index(path.into(), Data::Mapped(map))?;
        weights.notes().iter().for_each(|note| tracing::warn!("{}: {note}", path.display()));
        Ok(weights)
    }

    /// Weights that are compiled into the program; `name` stands for the path in messages.
    ///
    /// # Errors
    /// As for [`Weights::open`].
    pub fn from_static(name: &str, bytes: &'static [u8]) -> Result<Weights, ModelError> {
        Weights::index(name.into(), Data::Static(bytes))
    }

    fn index(path: PathBuf, data: Data) -> Result<Weights, ModelError> {
        let bytes = data.bytes();
        let index = index_of(&path, bytes)?;
        Ok(Weights { path, data, index })
    }

    /// The file, or the name of built-in weights.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.index.entries.keys().map(String::as_str)
    }

    /// Whether there is a tensor called `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.index.entries.contains_key(name)
    }

    /// Names with their entries, in name order.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.index.entries.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// Type, shape and byte range of the tensor called `name`.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.index.entries.get(name)
    }

    /// The kind of file.
    pub fn format(&self) -> Format {
        self.index.format
    }

    /// The text of `key` in the file's metadata: an entry of a safetensors file's metadata, or a plain value at the top
    /// of a training checkpoint (`epoch`, `global_step`, ...).
    pub fn fact(&self, key: &str) -> Option<&str> {
        self.index.facts.get(key).map(String::as_str)
    }

    /// Everything that [`Weights::fact`] returns, by key.
    pub fn facts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.index.facts.iter().map(|(key, text)| (key.as_str(), text.as_str()))
    }

    /// How the weights of another program's file were found and renamed, for messages. [`Weights::open`] logs them.
    pub fn notes(&self) -> &[String] {
        &self.index.notes
    }

    /// Tensors outside the state dictionary, such as those of optimizers. They cannot be read.
    pub fn num_other_tensors(&self) -> usize {
        self.index.num_other_tensors
    }

    /// Copies one tensor out of the map, with the stored kind and shape, to the CPU.
    ///
    /// # Errors
    /// No such tensor, or libtorch fails.
    pub fn tensor(&self, name: &str) -> Result<Tensor, ModelError> {
        let entry = self.index.entries.get(name).ok_or_else(|| ModelError::MissingTensor {
            path: self.path.clone(),
            name: name.into(),
            others: 0,
            wanted: "the model that was asked for",
        })?;
        let bytes = self.bytes_of(entry);
        let flat_len = (bytes.len() / entry.kind.elt_size_in_bytes()) as i64;
        let flat = Tensor::f_from_data_size(bytes, &[flat_len], entry.kind).map_err(ModelError::torch("reading"))?;
        let strided = flat.f_as_strided(&entry.shape, &entry.strides, 0).map_err(ModelError::torch("reading"))?;
        Ok(strided.contiguous())
    }

    /// [`Weights::tensor`] for weights that a computation uses: all values are finite.
    ///
    /// # Errors
    /// As [`Weights::tensor`], and [`ModelError::NotFinite`].
    pub fn parameter(&self, name: &str) -> Result<Tensor, ModelError> {
        self.check_finite(name)?;
        self.tensor(name)
    }

    /// Checks that no value is infinite or NaN. A tensor that does not exist passes.
    ///
    /// # Errors
    /// [`ModelError::NotFinite`].
    pub fn check_finite(&self, name: &str) -> Result<(), ModelError> {
        match self.entry(name) {
            Some(entry) if !finite::all_finite(entry.kind, self.bytes_of(entry)) => {
                finite::check(&self.path, name, &self.tensor(name)?)
            }
            _ => Ok(()),
        }
    }

    fn bytes_of(&self, entry: &Entry) -> &[u8] {
        &self.data.bytes()[entry.bytes.clone()]
    }
}

/// The tensors of a file of any format.
pub(super) fn index_of(path: &Path, bytes: &[u8]) -> Result<Index, ModelError> {
    let index = if bytes.starts_with(b"PK") {
        torch_zip::index(path, bytes)?
    } else if legacy::looks_like(bytes) {
        legacy::index(path, bytes)?
    } else if safetensors::looks_like(bytes) {
        safetensors::index(path, bytes)?
    } else {
        return Err(ModelError::NotACheckpoint { found: identify::describe(bytes), path: path.into() });
    };
    Ok(index.check(path, bytes.len())?.rename())
}
