//! Unpacks `tests/fixtures/golden/*.gz` into the build folder.
//!
//! Checkpoints are stored without their weights, which the formula computes, numbers split by byte position, and pictures
//! as differences from the prediction by their neighbours: `<name>.packed.json` lists these. `scripts/pack_golden.py` makes both
//! files. The CRC-32 of the whole file verifies that unpacking restored it.

#[path = "src/formula.rs"]
#[allow(dead_code, unreachable_pub, reason = "the library uses all of it, and exports it")]
mod formula;

use flate2::Crc;
use flate2::read::GzDecoder;
use std::path::{Path, PathBuf};
use std::{env, fs, io::Read};

fn main() {
    let golden = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../fixtures/golden");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("golden");
    println!("cargo:rerun-if-changed={}", golden.display());
    fs::create_dir_all(&out).expect("the build folder can be written");
    for entry in fs::read_dir(&golden).expect("the golden fixtures") {
        let path = entry.expect("an entry of the golden fixtures").path();
        if path.extension().is_some_and(|extension| extension == "gz") {
            let name = path.file_stem().expect("a name");
            fs::write(out.join(name), unpack(&path)).expect("the build folder can be written");
        }
    }
}

/// The file that was packed into `path`.
fn unpack(path: &Path) -> Vec<u8> {
    let packed = fs::File::open(path).expect("a golden fixture");
    let mut bytes = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    if let Ok(table) = fs::read_to_string(path.with_extension("packed.json")) {
        let table: serde_json::Value = serde_json::from_str(&table).expect("JSON");
        fill(&mut bytes, &table);
        add_up(&mut bytes, &table);
        interleave(&mut bytes, &table);
        let mut crc = Crc::new();
        crc.update(&bytes);
        let is_same = table["crc32"].as_u64() == Some(u64::from(crc.sum()));
        assert!(is_same, "{}: the bytes differ from those that were packed", path.display());
    }
    bytes
}

/// Writes the tensors of a table `{"tensors": [[offset, salted name, shape], ...]}` at their offsets.
fn fill(bytes: &mut [u8], table: &serde_json::Value) {
    for entry in table["tensors"].as_array().expect("tensors") {
        let offset = entry[0].as_u64().expect("an offset") as usize;
        let sizes = entry[2].as_array().expect("a shape").iter();
        let shape: Vec<i64> = sizes.map(|size| size.as_i64().expect("a size")).collect();
        let values = formula::formula("", entry[1].as_str().expect("a name"), &shape, 3.0);
        for (place, value) in bytes[offset..].chunks_exact_mut(4).zip(values) {
            place.copy_from_slice(&value.to_le_bytes());
        }
    }
}

/// The numbers of an entry of a table.
fn numbers<const N: usize>(entry: &serde_json::Value) -> [usize; N] {
    std::array::from_fn(|i| entry[i].as_u64().expect("an offset or a length") as usize)
}

/// Restores bytes from the differences that a table `{"differences": [[offset, length, bytes per row], ...]}` lists: from left +
/// above - above left, where bytes outside are 0.
fn add_up(bytes: &mut [u8], table: &serde_json::Value) {
    for entry in table["differences"].as_array().expect("differences") {
        let [offset, length, row] = numbers(entry);
        let picture = &mut bytes[offset..offset + length];
        for i in 0..length {
            let (has_left, has_above) = (i % row > 0, i >= row);
            let neighbour = |is_there: bool, back: usize| if is_there { i16::from(picture[i - back]) } else { 0 };
            let foretold =
                neighbour(has_left, 1) + neighbour(has_above, row) - neighbour(has_left && has_above, row + 1);
            picture[i] = picture[i].wrapping_add(foretold.clamp(0, 255) as u8);
        }
    }
}

/// Restores numbers from the byte planes of a table `{"planes": [[offset, length, bytes per number], ...]}`: all first bytes,
/// all second bytes, and so on.
fn interleave(bytes: &mut [u8], table: &serde_json::Value) {
    for entry in table["planes"].as_array().expect("planes") {
        let [offset, length, width] = numbers(entry);
        let planes = bytes[offset..offset + length].to_vec();
        let count = length / width;
        for (i, number) in bytes[offset..offset + length].chunks_exact_mut(width).enumerate() {
            number.iter_mut().enumerate().for_each(|(place, byte)| *byte = planes[place * count + i]);
        }
    }
}
