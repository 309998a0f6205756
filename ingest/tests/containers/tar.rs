//! Tars, written block by block so that every field can be wrong.

use super::Image;

/// A header with a valid checksum.
pub(crate) fn header(name: &str, size: u64, kind: u8) -> [u8; 512] {
    header_with_size(name, format!("{size:011o}\0").as_bytes(), kind)
}

pub(crate) fn header_with_size(name: &str, size: &[u8], kind: u8) -> [u8; 512] {
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..108].copy_from_slice(b"0000644\0");
    block[124..124 + size.len()].copy_from_slice(size);
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    sum(&mut block);
    block
}

/// Writes the checksum.
pub(crate) fn sum(block: &mut [u8; 512]) {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Data, padded to whole blocks.
pub(crate) fn padded(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    data.resize(data.len().next_multiple_of(512), 0);
    data
}

pub(crate) fn member(name: &str, data: &[u8]) -> Vec<u8> {
    [&header(name, data.len() as u64, b'0')[..], &padded(data)].concat()
}

/// A pax header with these records for the member that follows, or with `g` for all that follow.
pub(crate) fn pax(kind: u8, records: &[(&str, &str)]) -> Vec<u8> {
    let record = |(key, value): &(&str, &str)| {
        let rest = key.len() + value.len() + 3;
        let length = (rest + 1..).find(|n| n.to_string().len() + rest == *n).expect("a length");
        format!("{length} {key}={value}\n")
    };
    let data: String = records.iter().map(record).collect();
    [&header("./PaxHeaders/x", data.len() as u64, kind)[..], &padded(data.as_bytes())].concat()
}

/// A GNU long name for the member that follows.
pub(crate) fn long_name(name: &str) -> Vec<u8> {
    let data = [name.as_bytes(), b"\0"].concat();
    [&header("././@LongLink", data.len() as u64, b'L')[..], &padded(&data)].concat()
}

/// A whole archive.
pub(crate) fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    [&members.concat()[..], &[0; 1024]].concat()
}

pub(crate) fn archive_of<'a>(files: impl IntoIterator<Item = (String, &'a [u8])>) -> Vec<u8> {
    archive(&files.into_iter().map(|(name, data)| member(&name, data)).collect::<Vec<_>>())
}

/// The images as class tars, by class in the order of the first of each.
pub(crate) fn class_tars(images: &[Image]) -> Vec<(String, Vec<u8>)> {
    let mut classes: Vec<&str> = Vec::new();
    for image in images {
        let class = image.key.split_once('/').expect("a class").0;
        if !classes.contains(&class) {
            classes.push(class);
        }
    }
    let of_class = |class: &str| {
        let prefix = format!("{class}/");
        archive_of(images.iter().filter(|i| i.key.starts_with(&prefix)).map(|i| (i.name().to_owned(), &i.bytes[..])))
    };
    classes.iter().map(|class| ((*class).to_owned(), of_class(class))).collect()
}

/// `ILSVRC2012_img_train.tar`.
pub(crate) fn tar_of_tars(images: &[Image]) -> Vec<u8> {
    let tars = class_tars(images);
    archive_of(tars.iter().map(|(class, tar)| (format!("{class}.tar"), &tar[..])))
}
