//! Files as `torch.save` writes them, without PyTorch: a pickle of protocol 2 and the storages, in a zip archive.

use std::collections::BTreeMap;

/// A value to save.
#[derive(Debug, Clone)]
pub enum Saved {
    /// fp32 values, row-major, with their shape.
    Tensor(Vec<i64>, Vec<f32>),
    /// A dictionary.
    Dict(Vec<(String, Saved)>),
    /// A whole number.
    Int(i32),
}

impl Saved {
    /// A dictionary.
    pub fn dict<K: Into<String>>(entries: impl IntoIterator<Item = (K, Saved)>) -> Saved {
        Saved::Dict(entries.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }
}

/// The bytes of the file that `torch.save(value, "<stem>.pt")` writes.
pub fn torch_save(stem: &str, value: &Saved) -> Vec<u8> {
    ZipLayout::PYTORCH.write(&saved_members(stem, value))
}

/// The members of that file.
pub fn saved_members(stem: &str, value: &Saved) -> Vec<(String, Vec<u8>)> {
    let mut pickle = Pickle::default();
    pickle.value(value);
    let mut members = vec![(format!("{stem}/data.pkl"), [b"\x80\x02", &pickle.opcodes[..], b"."].concat())];
    members.push((format!("{stem}/byteorder"), b"little".to_vec()));
    members.extend(pickle.storages.into_iter().map(|(key, bytes)| (format!("{stem}/data/{key}"), bytes)));
    members.push((format!("{stem}/version"), b"3\n".to_vec()));
    members
}

#[derive(Default)]
struct Pickle {
    opcodes: Vec<u8>,
    storages: BTreeMap<usize, Vec<u8>>,
}

impl Pickle {
    fn put(&mut self, opcodes: &[u8]) {
        self.opcodes.extend_from_slice(opcodes);
    }

    fn text(&mut self, text: &str) {
        self.put(b"X");
        self.put(&(text.len() as u32).to_le_bytes());
        self.put(text.as_bytes());
    }

    fn int(&mut self, number: i32) {
        self.put(b"J");
        self.put(&number.to_le_bytes());
    }

    fn value(&mut self, value: &Saved) {
        match value {
            Saved::Int(number) => self.int(*number),
            Saved::Dict(entries) => {
                self.put(b"}(");
                for (key, value) in entries {
                    self.text(key);
                    self.value(value);
                }
                self.put(b"u");
            }
            Saved::Tensor(shape, values) => self.tensor(shape, values),
        }
    }

    fn tensor(&mut self, shape: &[i64], values: &[f32]) {
        let key = self.storages.len();
        self.put(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        self.text("storage");
        self.put(b"ctorch\nFloatStorage\n");
        self.text(&key.to_string());
        self.text("cpu");
        self.int(values.len() as i32);
        self.put(b"tQ");
        self.int(0);
        let strides = shape.iter().rev().scan(1, |stride, n| Some(std::mem::replace(stride, *stride * n)));
        let strides: Vec<i64> = strides.collect();
        for numbers in [shape.to_vec(), strides.into_iter().rev().collect()] {
            self.put(b"(");
            numbers.iter().for_each(|number| self.int(*number as i32));
            self.put(b"t");
        }
        self.put(b"\x89ccollections\nOrderedDict\n)RtR");
        self.storages.insert(key, values.iter().flat_map(|value| value.to_le_bytes()).collect());
    }
}

/// How an archive is laid out. All of these are valid.
#[derive(Debug, Clone, Copy)]
pub struct ZipLayout {
    /// Pads every local header so that the bytes behind it begin at a multiple of 64.
    pub aligned: bool,
    /// A zip64 record and its locator before the end record, as PyTorch always writes them.
    pub zip64_record: bool,
    /// Lengths and offsets of members, and those of the directory, in the zip64 fields only.
    pub wide: bool,
    /// Behind the end record.
    pub comment: &'static [u8],
}

impl ZipLayout {
    /// PyTorch's layout.
    pub const PYTORCH: ZipLayout = ZipLayout { aligned: true, zip64_record: true, wide: false, comment: b"" };

    /// An archive of stored members.
    pub fn write(self, members: &[(String, Vec<u8>)]) -> Vec<u8> {
        let (mut file, mut directory) = (vec![], vec![]);
        for (name, bytes) in members {
            let start = file.len();
            let padding = if self.aligned { (64 - (start + 34 + name.len()) % 64) % 64 } else { 0 };
            let extra = if self.aligned {
                [&b"FB"[..], &(padding as u16).to_le_bytes(), &vec![b'Z'; padding]].concat()
            } else {
                vec![]
            };
            let len = bytes.len() as u32;
            file.extend(b"PK\x03\x04\0\0\0\x08\0\0\0\0\0\0\0\0\0\0");
            file.extend([len.to_le_bytes(), len.to_le_bytes()].concat());
            file.extend([(name.len() as u16).to_le_bytes(), (extra.len() as u16).to_le_bytes()].concat());
            file.extend([name.as_bytes(), &extra, bytes].concat());
            directory.extend(self.central(name, bytes.len(), start));
        }
        let (at, count) = (file.len(), members.len());
        file.extend(&directory);
        if self.zip64_record {
            let record_at = file.len() as u64;
            file.extend([&b"PK\x06\x06"[..], &44u64.to_le_bytes(), b"\x1e\x03\x2d\0", &[0; 8]].concat());
            file.extend([count, count, directory.len(), at].map(|number| (number as u64).to_le_bytes()).concat());
            file.extend([&b"PK\x06\x07\0\0\0\0"[..], &record_at.to_le_bytes(), b"\x01\0\0\0"].concat());
        }
        let [count, len, at] =
            if self.wide { [0xffff, u32::MAX as usize, u32::MAX as usize] } else { [count, directory.len(), at] };
        file.extend(
            [&b"PK\x05\x06\0\0\0\0"[..], &(count as u16).to_le_bytes(), &(count as u16).to_le_bytes()].concat(),
        );
        file.extend([(len as u32).to_le_bytes(), (at as u32).to_le_bytes()].concat());
        file.extend([&(self.comment.len() as u16).to_le_bytes(), self.comment].concat());
        file
    }

    fn central(self, name: &str, len: usize, start: usize) -> Vec<u8> {
        let wide = [len, len, start].map(|number| (number as u64).to_le_bytes()).concat();
        let extra = if self.wide { [&b"UT\x01\0\0\x01\0\x18\0"[..], &wide].concat() } else { vec![] };
        let [len, start] = if self.wide { [u32::MAX; 2] } else { [len as u32, start as u32] };
        let mut entry = b"PK\x01\x02\0\0\0\0\0\x08\0\0\0\0\0\0\0\0\0\0".to_vec();
        entry.extend([len.to_le_bytes(), len.to_le_bytes()].concat());
        entry.extend([(name.len() as u16).to_le_bytes(), (extra.len() as u16).to_le_bytes()].concat());
        entry.extend([0; 10]);
        entry.extend(start.to_le_bytes());
        entry.extend([name.as_bytes(), &extra].concat());
        entry
    }
}
