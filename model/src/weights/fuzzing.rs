//! Entry points of the fuzz targets, and of the test that replays their corpus. Not part of the interface.
//!
//! Each takes arbitrary bytes and must return: an error is allowed, a panic is a defect, and so is a tensor that lies
//! outside of its file.

use super::file::index_of;
use super::index::{Format, Index};
use super::{pickle, state_dict};
use std::path::Path;

/// A file of any format.
pub fn file(bytes: &[u8]) {
    if let Ok(index) = index_of(Path::new("fuzz"), bytes) {
        check(&index, bytes.len());
    }
}

/// What follows the fixed beginning of an old-style file: data pickle, keys, storages.
pub fn legacy(bytes: &[u8]) {
    const START: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.";
    file(&[START, bytes].concat());
}

/// A pickle whose storages all have 16 floats.
pub fn pickle(bytes: &[u8]) {
    let Ok((pickle, value, len)) = pickle::read(bytes) else { return };
    assert!(len <= bytes.len(), "a pickle longer than its bytes");
    if let Ok(index) = state_dict::index(Format::TorchZip, &pickle, &value, |_| Some(&(0..64))) {
        check(&index, 64);
    }
}

/// Every element of every tensor lies within the file.
fn check(index: &Index, file_bytes: usize) {
    for (name, entry) in &index.entries {
        assert!(entry.bytes.start <= entry.bytes.end && entry.bytes.end <= file_bytes, "{name} lies outside");
        if entry.numel() > 0 {
            let reach = |(&n, &stride): (&i64, &i64)| (n - 1) * stride;
            let last = entry.shape.iter().zip(&entry.strides).map(reach).sum::<i64>() as usize;
            assert!((last + 1) * entry.kind.elt_size_in_bytes() <= entry.bytes.len(), "{name} reaches outside");
        }
    }
}
