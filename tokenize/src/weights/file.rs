//! An opened checkpoint of either kind: names, shapes, and the bytes in a read-only map.

use super::{safetensors, torch_zip};
use crate::TokenizeError;
use memmap2::Mmap;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

/// One tensor of a file.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Element type.
    pub kind: Kind,
    /// Shape.
    pub shape: Vec<i64>,
    /// Strides in elements; row-major where the file does not say.
    pub strides: Vec<i64>,
    /// The bytes of the elements, from the tensor's first one on.
    pub bytes: Range<usize>,
}

/// A checkpoint, mapped read-only. Tensors are copied out one by one as they are asked for.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    data: Data,
    entries: BTreeMap<String, Entry>,
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
    /// Opens a `.ckpt` / `.pt` / `.pth` (zip) or `.safetensors` file, recognised by content. Pickles are interpreted by
    /// a reader that builds tensors and plain values only; nothing in them is ever executed.
    ///
    /// # Errors
    /// Unreadable, not a checkpoint, damaged, or hostile files.
    pub fn open(path: &Path) -> Result<Weights, TokenizeError> {
        let read = |action: &'static str| move |source| TokenizeError::Read { path: path.into(), action, source };
        let file = File::open(path).map_err(read("opening the weights"))?;
        if file.metadata().map_err(read("asking for its size"))?.is_dir() {
            let found = "it is a folder".to_string();
            return Err(TokenizeError::NotACheckpoint { path: path.into(), found });
        }
        // SAFETY: the map is read-only and private to this process; as with every mapped file, the promise needed from
        // the user is that nobody truncates the checkpoint while it is being read (publish by rename, as we do).
        let map = unsafe { Mmap::map(&file) }.map_err(read("mapping the weights"))?;
        Weights::index(path.into(), Data::Mapped(map))
    }

    /// Weights that are compiled into the program; `name` stands for the path in messages.
    ///
    /// # Errors
    /// As for [`Weights::open`].
    pub fn from_static(name: &str, bytes: &'static [u8]) -> Result<Weights, TokenizeError> {
        Weights::index(name.into(), Data::Static(bytes))
    }

    fn index(path: PathBuf, data: Data) -> Result<Weights, TokenizeError> {
        let bytes = data.bytes();
        let entries = if bytes.starts_with(b"PK\x03\x04") {
            torch_zip::index(&path, bytes)?
        } else if safetensors::looks_like(bytes) {
            safetensors::index(&path, bytes)?
        } else {
            return Err(TokenizeError::NotACheckpoint { found: describe(bytes), path });
        };
        Ok(Weights { path, data, entries })
    }

    /// The file, or the name of built-in weights.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether there is a tensor called `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Names with their entries, in name order.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// Copies one tensor out of the map, as it is stored (kind and shape), to the CPU.
    ///
    /// # Errors
    /// No such tensor, or the tensor library refuses it.
    pub fn tensor(&self, name: &str) -> Result<Tensor, TokenizeError> {
        let entry = self.entries.get(name).ok_or_else(|| TokenizeError::MissingTensor {
            path: self.path.clone(),
            name: name.into(),
            others: 0,
            wanted: "the model that was asked for",
        })?;
        let bytes = &self.data.bytes()[entry.bytes.clone()];
        let flat_len = (bytes.len() / entry.kind.elt_size_in_bytes()) as i64;
        let flat = Tensor::f_from_data_size(bytes, &[flat_len], entry.kind).map_err(TokenizeError::torch("reading"))?;
        let strided = flat.f_as_strided(&entry.shape, &entry.strides, 0).map_err(TokenizeError::torch("reading"))?;
        Ok(strided.contiguous())
    }
}

/// A few words on what the first bytes look like, for people who picked the wrong file.
fn describe(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(64)];
    if bytes.is_empty() {
        "it is empty".into()
    } else if head.starts_with(b"\x80") {
        "it is a bare pickle (PyTorch before 1.6); save it again with a newer PyTorch".into()
    } else if head.iter().all(|&b| b.is_ascii_graphic() || b.is_ascii_whitespace()) {
        let line = String::from_utf8_lossy(head);
        format!("it is a text that starts with `{}`", line.lines().next().unwrap_or_default().trim())
    } else {
        "its first bytes are of no kind that is known here".into()
    }
}
