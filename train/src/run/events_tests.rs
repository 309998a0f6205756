//! Event files read back: by a parser here, and by TensorBoard where Python has it.

use super::*;
use std::collections::BTreeMap;
use std::process::Command;

/// CRC-32C bit by bit, independent of the code under test.
fn slow_crc32c(bytes: &[u8]) -> u32 {
    let mut remainder = u32::MAX;
    for byte in bytes {
        for bit in 0..8 {
            let feedback = (remainder & 1) ^ u32::from(byte >> bit & 1);
            remainder = (remainder >> 1) ^ if feedback == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !remainder
}

#[test]
fn the_checksum_is_castagnolis() {
    // The check value of the CRC catalogue, and 32 zeros of RFC 3720.
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    assert_eq!(slow_crc32c(b"123456789"), 0xe306_9283);
}

/// Number of a field, and its value: the bytes, or an integer as eight of them.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value += u64::from(byte % 128) << shift;
            if byte < 128 {
                break;
            }
        }
        value
    }
    let mut found = vec![];
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let length = match key % 8 {
            0 => {
                found.push((key / 8, varint(&mut bytes).to_le_bytes().to_vec()));
                continue;
            }
            1 => 8,
            2 => varint(&mut bytes) as usize,
            5 => 4,
            other => panic!("wire type {other}"),
        };
        found.push((key / 8, bytes[..length].to_vec()));
        bytes = &bytes[length..];
    }
    found
}

fn field(message: &[u8], number: u64) -> Option<Vec<u8>> {
    fields(message).into_iter().find(|(n, _)| *n == number).map(|(_, value)| value)
}

fn int(message: &[u8], number: u64) -> Option<u64> {
    field(message, number).map(|value| u64::from_le_bytes(value.try_into().unwrap()))
}

/// The events of a file, with every checksum checked.
fn events(path: &Path) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(path).unwrap();
    let mut rest = &bytes[..];
    let mut found = vec![];
    let check = |data: &[u8], stored: &[u8]| {
        let crc = slow_crc32c(data);
        let masked = crc.rotate_left(17).wrapping_add(0xa282_ead8);
        assert_eq!(masked.to_le_bytes(), stored, "checksum");
    };
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        check(&rest[..8], &rest[8..12]);
        check(&rest[12..12 + length], &rest[12 + length..16 + length]);
        found.push(rest[12..12 + length].to_vec());
        rest = &rest[16 + length..];
    }
    found
}

/// The loss by step, as a reader that honours session logs returns it.
fn losses(folder: &Path) -> BTreeMap<u64, f32> {
    let mut files = event_files(folder).unwrap();
    files.sort();
    let mut losses = BTreeMap::new();
    for event in files.iter().flat_map(|path| events(path)) {
        let step = int(&event, 2).unwrap();
        if let Some(log) = field(&event, 7) {
            assert_eq!(int(&log, 1), Some(1), "a session starts");
            losses.retain(|earlier, _| *earlier < step);
        }
        for (_, value) in field(&event, 5).iter().flat_map(|summary| fields(summary)) {
            if field(&value, 1).unwrap() == b"train/loss" {
                let loss = f32::from_le_bytes(field(&value, 2).unwrap().try_into().unwrap());
                assert_eq!(losses.insert(step, loss), None, "step {step} twice");
            }
        }
    }
    losses
}

/// A run of six steps that is killed, and continues from the checkpoint of step 4.
fn resumed_run(folder: &Path) {
    let mut run = Events::open(folder, 0).unwrap();
    for step in 1..=6 {
        run.scalars(step, &[("train/loss", step as f64), ("lr", 0.5)]).unwrap();
    }
    let mut run = Events::open(folder, 4).unwrap();
    for step in 5..=8 {
        run.scalars(step, &[("train/loss", step as f64 + 100.0), ("lr", 0.25)]).unwrap();
    }
    let picture = Picture::new(3, 2, (0..18).collect());
    run.picture(8, "samples", &picture, &picture.to_png()).unwrap();
}

#[test]
fn every_number_and_picture_is_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    resumed_run(folder.path());
    let mut files = event_files(folder.path()).unwrap();
    files.sort();
    assert_eq!(files.len(), 2);
    let (first, second) = (events(&files[0]), events(&files[1]));
    assert_eq!(field(&first[0], 3).unwrap(), b"brain.Event:2");
    let lr = field(&field(&first[1], 5).unwrap(), 1).map(|_| fields(&field(&first[1], 5).unwrap())[1].1.clone());
    assert_eq!(field(&lr.unwrap(), 2).unwrap(), 0.5f32.to_le_bytes());
    let value = field(&field(second.last().unwrap(), 5).unwrap(), 1).unwrap();
    assert_eq!(field(&value, 1).unwrap(), b"samples");
    let image = field(&value, 4).unwrap();
    assert_eq!([1, 2, 3].map(|n| int(&image, n)), [Some(2), Some(3), Some(3)]);
    let png = field(&image, 4).unwrap();
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
    let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut rgb).unwrap();
    assert_eq!(rgb, (0..18).collect::<Vec<u8>>());
}

#[test]
fn steps_after_the_point_of_resumption_appear_once() {
    let folder = tempfile::tempdir().unwrap();
    resumed_run(folder.path());
    let expected = [1.0, 2.0, 3.0, 4.0, 105.0, 106.0, 107.0, 108.0];
    assert_eq!(losses(folder.path()).into_values().collect::<Vec<_>>(), expected);
}

#[test]
fn tensorboard_reads_the_same() {
    let program = "import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
run = EventAccumulator(sys.argv[1], size_guidance={'images': 0, 'scalars': 0}).Reload()
print([(event.step, event.value) for event in run.Scalars('train/loss')])
print([(image.step, image.width, image.height) for image in run.Images('samples')])";
    let python = std::env::var("TENSORBOARD_PYTHON").unwrap_or("python3".into());
    let known = Command::new(&python).args(["-c", "import tensorboard"]).output();
    if !known.is_ok_and(|output| output.status.success()) {
        // It is large, and needs a Python older than the newest.
        let text = format!("{python} has no tensorboard (TENSORBOARD_PYTHON names another Python)");
        tokengrid_test_support::skip_anywhere(&text);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    resumed_run(folder.path());
    let output = Command::new(&python).args(["-c", program]).arg(folder.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let losses = "[(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, 105.0), (6, 106.0), (7, 107.0), (8, 108.0)]";
    assert_eq!(text.trim(), format!("{losses}\n[(8, 3, 2)]"), "{}", String::from_utf8_lossy(&output.stderr));
}
