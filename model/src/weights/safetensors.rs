//! The safetensors format, through its own crate.

use super::index::{Entry, Format, Index};
use crate::ModelError;
use ::safetensors::tensor::{Dtype, SafeTensors, View};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Whether `bytes` start with a plausible header: its length, then a JSON object.
pub(super) fn looks_like(bytes: &[u8]) -> bool {
    let is_text = |&b: &u8| b.is_ascii_graphic() || b.is_ascii_whitespace();
    bytes.len() > 8 && bytes[8] == b'{' && !bytes[..8].iter().all(is_text)
}

/// Names, shapes and byte ranges of a file; the crate checks that they are in bounds and fill the file without overlap.
pub(super) fn index(path: &Path, bytes: &[u8]) -> Result<Index, ModelError> {
    let damaged = |what: String| ModelError::Damaged { path: path.into(), what };
    let (header_len, header) =
        SafeTensors::read_metadata(bytes).map_err(|e| damaged(format!("safetensors header: {e}")))?;
    refuse_repeated_names(&bytes[8..8 + header_len]).map_err(&damaged)?;
    let file = SafeTensors::deserialize(bytes).map_err(|e| damaged(format!("safetensors header: {e}")))?;
    let mut entries = BTreeMap::new();
    for (name, view) in file.iter() {
        let kind = kind_of(view.dtype()).ok_or_else(|| {
            let kind = format!("{:?} (tensor `{name}`)", view.dtype());
            ModelError::UnsupportedType { path: path.into(), kind }
        })?;
        let shape: Result<Vec<i64>, _> = view.shape().iter().map(|&n| i64::try_from(n)).collect();
        let shape = shape.map_err(|_| damaged(format!("tensor `{name}` has the shape {:?}", view.shape())))?;
        let strides = row_major(&shape).ok_or_else(|| damaged(format!("tensor `{name}` has the shape {shape:?}")))?;
        let start = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
        let entry = Entry { kind, strides, shape, bytes: start..start + view.data().len() };
        entries.insert(name.to_string(), entry);
    }
    let facts = header.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
    let format = Format::Safetensors;
    Ok(Index { format, entries, facts, num_other_tensors: 0, notes: vec![], no_tensors: "" })
}

/// JSON allows a name twice, and which one counts depends on the reader.
fn refuse_repeated_names(header: &[u8]) -> Result<(), String> {
    struct Names(HashSet<String>);
    impl<'de> serde::de::Visitor<'de> for Names {
        type Value = ();

        fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
            while let Some(name) = map.next_key::<String>()? {
                map.next_value::<serde::de::IgnoredAny>()?;
                if let Some(name) = self.0.replace(name) {
                    return Err(serde::de::Error::custom(format!("tensor `{name}` twice")));
                }
            }
            Ok(())
        }
    }
    let mut reader = serde_json::Deserializer::from_slice(header);
    serde::Deserializer::deserialize_map(&mut reader, Names(HashSet::new()))
        .map_err(|e| format!("safetensors header: {e}"))
}

/// Strides of a row-major tensor, in elements; None where a number overflows.
fn row_major(shape: &[i64]) -> Option<Vec<i64>> {
    let mut strides = vec![1i64; shape.len()];
    let mut numel = 1i64;
    for (stride, &n) in strides.iter_mut().zip(shape).rev() {
        *stride = numel;
        numel = numel.checked_mul(n.max(1))?;
    }
    Some(strides)
}

fn kind_of(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::I16 => Kind::Int16,
        Dtype::I8 => Kind::Int8,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        _ => return None,
    })
}

fn dtype_of(kind: Kind) -> Option<Dtype> {
    Some(match kind {
        Kind::Double => Dtype::F64,
        Kind::Float => Dtype::F32,
        Kind::Half => Dtype::F16,
        Kind::BFloat16 => Dtype::BF16,
        Kind::Int64 => Dtype::I64,
        Kind::Int => Dtype::I32,
        Kind::Int16 => Dtype::I16,
        Kind::Int8 => Dtype::I8,
        Kind::Uint8 => Dtype::U8,
        Kind::Bool => Dtype::BOOL,
        _ => return None,
    })
}

/// Metadata by which other readers of safetensors recognise tensors in PyTorch's layout.
pub fn pt_metadata() -> HashMap<String, String> {
    HashMap::from([("format".to_string(), "pt".to_string())])
}

/// The bytes of a safetensors file. Equal tensors and metadata make equal files.
///
/// # Panics
/// When a tensor is of a kind that the format does not know.
pub fn to_safetensors<'a>(
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    metadata: HashMap<String, String>,
) -> Vec<u8> {
    let tensors = tensors.into_iter().map(|(name, tensor)| (name, Stored::of(tensor)));
    let bytes = ::safetensors::serialize(tensors, None).expect("tensors have the bytes that their shapes need");
    with_metadata(bytes, metadata.into_iter().collect())
}

/// Puts metadata into the header of a serialized file, sorted. The crate would write them in an order that changes from one call
/// to the next, and equal checkpoints have to be equal files.
fn with_metadata(mut bytes: Vec<u8>, metadata: BTreeMap<String, String>) -> Vec<u8> {
    if metadata.is_empty() {
        return bytes;
    }
    let (len, rest) = bytes.split_first_chunk::<8>().expect("a file begins with the length of its header");
    let header_len = u64::from_le_bytes(*len) as usize;
    let tensors = rest[..header_len].trim_ascii_end().strip_prefix(b"{").expect("the header is an object");
    let separator: &[u8] = if tensors == b"}" { b"" } else { b"," };
    let metadata = serde_json::to_vec(&metadata).expect("texts serialize");
    let mut header = [b"{\"__metadata__\":", &metadata[..], separator, tensors].concat();
    // The tensors begin at a multiple of eight.
    header.resize(header.len().next_multiple_of(8), b' ');
    bytes.splice(..8 + header_len, [&(header.len() as u64).to_le_bytes()[..], &header].concat());
    bytes
}

/// A tensor whose bytes are copied when it is its turn: besides the file there is never more than one in memory.
struct Stored<'a> {
    tensor: &'a Tensor,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl<'a> Stored<'a> {
    fn of(tensor: &'a Tensor) -> Stored<'a> {
        let dtype = dtype_of(tensor.kind()).expect("a tensor of a storable kind");
        Stored { tensor, dtype, shape: tensor.size().iter().map(|&n| n as usize).collect() }
    }
}

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let tensor = self.tensor.detach().to_device(Device::Cpu).contiguous();
        let mut bytes = vec![0u8; self.data_len()];
        tensor.copy_data_u8(&mut bytes, tensor.numel());
        bytes.into()
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * self.tensor.kind().elt_size_in_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Weights;

    #[test]
    fn equal_tensors_and_metadata_make_equal_files() {
        let folder = tempfile::tempdir().unwrap();
        let (x, y) = (Tensor::from_slice(&[1.0f32, 2.0, 3.0]), Tensor::from(7i64));
        let metadata = || (0..20).map(|i| (format!("key \"{i}\""), format!("text\n{i}"))).collect::<HashMap<_, _>>();
        let write = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, to_safetensors([("x", &x), ("y", &y)], metadata())).unwrap();
            (std::fs::read(&path).unwrap(), Weights::open(&path).unwrap())
        };
        let (first, read) = write("first");
        assert!((0..5).all(|_| write("again").0 == first));
        assert_eq!(read.facts().count(), 20);
        assert!(metadata().iter().all(|(key, text)| read.fact(key) == Some(text)));
        assert!(read.tensor("x").unwrap().equal(&x) && read.tensor("y").unwrap().equal(&y));
        let header_len = u64::from_le_bytes(first[..8].try_into().unwrap());
        assert_eq!(header_len % 8, 0);
    }
}
