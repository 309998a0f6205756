//! All files of the corpus, and the damage that suits every format.

use crate::{bitmap_files, gif_files, jpeg_files, other_files, png_files, webp_files};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub(crate) type Files = BTreeMap<String, Vec<u8>>;

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/damaged")
}

/// A sound file.
pub(crate) fn seed(name: &str) -> Vec<u8> {
    std::fs::read(fixtures().join("seeds").join(name)).expect("seed")
}

fn seeds() -> Files {
    let folder = std::fs::read_dir(fixtures().join("seeds")).expect("seeds");
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.expect("entry").file_name().into_string();
    folder.map(|entry| name(entry).expect("a name")).map(|name| (name.clone(), seed(&name))).collect()
}

/// Every file: its name, whose ending tells the format it was, and its bytes.
pub(crate) fn corpus() -> Files {
    let mut files = Files::new();
    for (name, bytes) in seeds() {
        let (stem, kind) = name.split_once('.').expect("an ending");
        files.extend(generic(&bytes).into_iter().map(|(how, bytes)| (format!("{stem}_{how}.{kind}"), bytes)));
    }
    let special =
        [png_files::files(), jpeg_files::files(), gif_files::files(), webp_files::files(), bitmap_files::files()];
    for (name, bytes) in special.into_iter().flatten().chain(other_files::files()) {
        assert!(files.insert(name.clone(), bytes).is_none(), "{name} twice");
    }
    files
}

/// Damage that any file can take.
fn generic(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let length = bytes.len();
    let cut = |to: usize| bytes[..to].to_vec();
    let mut files = vec![
        ("head_only".to_owned(), cut(40.min(length / 3))),
        ("half".to_owned(), cut(length / 2)),
        ("most".to_owned(), cut(length - length / 10)),
        ("last_byte_missing".to_owned(), cut(length - 1)),
        ("tail".to_owned(), [bytes, b"trailing bytes"].concat()),
    ];
    let mut random = Random(length as u64);
    for number in 0..4 {
        let mut flipped = bytes.to_vec();
        for _ in 0..1 + number {
            // The first two hit the headers.
            let range = if number < 2 { length.min(64) } else { length };
            flipped[random.below(range)] ^= 1 << random.below(8);
        }
        files.push((format!("flipped{number}"), flipped));
    }
    let mut zeroed = bytes.to_vec();
    let at = length / 2;
    zeroed[at..(at + 32).min(length)].fill(0);
    files.push(("hole".to_owned(), zeroed));
    files
}

/// SplitMix64: the same numbers on every machine.
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// Overwrites bytes of a seed.
pub(crate) fn patched(name: &str, patches: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = seed(name);
    for (at, with) in patches {
        bytes[*at..*at + with.len()].copy_from_slice(with);
    }
    bytes
}
