//! A million images: bounded memory, and soon done. In a file of its own, as memory is counted for the whole process.

mod containers;

use containers::tar::header;
use containers::{folder, open};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

const IMAGES: usize = 1_000_000;

/// A tar of a million empty images in a thousand classes, not in the order of their names.
fn write_tar(file: &File) {
    let (mut at, mut bytes) = (0, Vec::new());
    for image in 0..IMAGES {
        bytes.extend_from_slice(&header(&name(image % 1000, image / 1000), 0, b'0'));
        if bytes.len() > 1 << 20 || image + 1 == IMAGES {
            file.write_all_at(&bytes, at).expect("512 MB in the temporary folder");
            at += bytes.len() as u64;
            bytes.clear();
        }
    }
}

fn name(class: usize, number: usize) -> String {
    format!("n{class:08}/n{class:08}_{number:03}.JPEG")
}

/// Memory of this process in bytes: now, and at most so far.
fn memory() -> (usize, usize) {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let value = |name| {
        let line = status.lines().find(|line| line.starts_with(name)).expect("a line");
        1024 * line.split_whitespace().nth(1).and_then(|n| n.parse::<usize>().ok()).expect("a number")
    };
    (value("VmRSS"), value("VmHWM"))
}

#[test]
fn a_million_images_take_bounded_memory() {
    let root = folder();
    let path = root.path().join("x.tar");
    write_tar(&File::create(&path).expect("file"));
    let (before, _) = memory();
    let source = open(&path);
    let (after, peak) = memory();
    assert_eq!((source.len(), source.classes().len(), source.damaged()), (IMAGES, 1000, 0));
    for (index, key) in [(0, name(0, 0)), (123_456, name(123, 456)), (IMAGES - 1, name(999, 999))] {
        assert_eq!((source.key(index), source.label(index)), (key.as_str(), (index / 1000) as i32));
    }
    let name_bytes = name(0, 0).len();
    let held = after.saturating_sub(before) / IMAGES;
    assert!(held < name_bytes + 120, "{held} bytes per image");
    let used = peak.saturating_sub(before) / IMAGES;
    assert!(used < 3 * (name_bytes + 120), "{used} bytes per image while it was opened");
}
