//! Whole pictures: within the memory budget, in order, refused from the header when they are not wanted; odd shapes.

mod support;

use flate2::Compression;
use flate2::Crc;
use flate2::write::ZlibEncoder;
use std::fs;
use std::io::Write;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use support::assert_same_pixels;
use tokengrid_ingest::{
    DecodeError, Limits, Source, SourceOptions, Stage, StreamConfig, WholeStream, decode_rgb, decode_rgb_if,
    picture_size, set_memory_budget,
};

/// Set in child processes: the folder to work on.
const FOLDER: &str = "TOKENGRID_WHOLE_FOLDER";

const BUDGET_BYTES: u64 = 320 << 20;
const THREADS: usize = 8;

/// What the system's allocator keeps for a thread of memory that was freed.
const KEPT_BY_ALLOCATOR_BYTES: u64 = 24 << 20;

/// Columns and rows of the pictures of which only a few fit into the budget.
const SIDE: u32 = 5000;
const PICTURE_BYTES: u64 = 3 * SIDE as u64 * SIDE as u64;

fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = Crc::new();
    crc.update(kind);
    crc.update(data);
    [&(data.len() as u32).to_be_bytes()[..], kind, data, &crc.sum().to_be_bytes()].concat()
}

/// A PNG file of this bit depth and colour type, whose inflated data is `data`.
fn png(width: u32, height: u32, [depth, color]: [u8; 2], data: &[u8]) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[depth, color, 0, 0, 0]].concat();
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
    zlib.write_all(data).expect("in memory");
    let compressed = zlib.finish().expect("in memory");
    let signature = b"\x89PNG\r\n\x1a\n".to_vec();
    [signature, chunk(b"IHDR", &header), chunk(b"IDAT", &compressed), chunk(b"IEND", b"")].concat()
}

/// A black picture in gray.
fn black(width: u32, height: u32) -> Vec<u8> {
    png(width, height, [8, 0], &vec![0; (1 + width as usize) * height as usize])
}

#[test]
fn pictures_that_wait_for_the_consumer_count_as_memory() {
    let root = tempfile::tempdir().expect("temporary folder");
    let file = black(SIDE, SIDE);
    for i in 0..3 * THREADS {
        fs::write(root.path().join(format!("{i:02}.png")), &file).expect("file");
    }
    fs::write(root.path().join("large.png"), black(11_000, 11_000)).expect("file");
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.args(["--exact", "--nocapture", "child_within_a_budget"]).env(FOLDER, root.path());
    let output = command.output().expect("the child starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let peak_kb = text.split("peak_kb=").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a peak");
    let peak_bytes = 1024 * peak_kb.parse::<u64>().expect("a number");
    // The budget, and the picture that the consumer holds.
    let most_bytes = BUDGET_BYTES + PICTURE_BYTES + THREADS as u64 * KEPT_BY_ALLOCATOR_BYTES;
    assert!(peak_bytes < most_bytes, "{peak_bytes} bytes, more than {most_bytes}");
}

#[test]
fn child_within_a_budget() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    set_memory_budget(BUDGET_BYTES);
    let source = Arc::new(Source::open(folder.as_ref(), &SourceOptions::default()).expect("source"));
    let config = StreamConfig { threads: THREADS, in_flight: 2 * THREADS, ..StreamConfig::default() };
    let mut keys = Vec::new();
    for image in WholeStream::spawn(Arc::clone(&source), 0..source.len(), Arc::new(|_, _| Ok(())), config) {
        // Time to decode as many more as there is memory for.
        std::thread::sleep(Duration::from_millis(50));
        match &image.outcome {
            Ok(picture) => assert_eq!(picture.pixels.len() as u64, PICTURE_BYTES, "{}", image.key),
            Err(bad) => assert!(image.key == "large.png" && bad.reason.contains("--memory"), "{}: {bad}", image.key),
        }
        keys.push(image.key);
    }
    assert!(keys.is_sorted() && keys.len() == source.len(), "{keys:?}");
    // Dropped while some are finished, some are decoded, and some wait for memory.
    let mut dropped = WholeStream::spawn(Arc::clone(&source), 0..source.len(), Arc::new(|_, _| Ok(())), config);
    assert_eq!(dropped.next().map(|image| image.key).as_deref(), Some("00.png"));
    drop(dropped);
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    println!("peak_kb={}", peak.trim().trim_end_matches(" kB"));
}

#[test]
fn sizes_without_a_use_are_bad_images_and_the_others_go_on() {
    let root = tempfile::tempdir().expect("temporary folder");
    let sizes = [(3, 5), (1, 4000), (7, 2)];
    for (i, (width, height)) in sizes.into_iter().enumerate() {
        fs::write(root.path().join(format!("{i}.png")), black(width, height)).expect("file");
    }
    fs::write(root.path().join("3.png"), b"no picture").expect("file");
    let source = Arc::new(Source::open(root.path(), &SourceOptions::default()).expect("source"));
    let accept = |_, height| if height > 1000 { Err(format!("{height} rows are too many")) } else { Ok(()) };
    let spawn = |order| WholeStream::spawn(Arc::clone(&source), order, Arc::new(accept), StreamConfig::default());
    let images: Vec<_> = spawn(0..source.len()).collect();
    let fates: Vec<_> = images.iter().map(|image| image.outcome.as_ref().map_err(|bad| bad.stage)).collect();
    let fates: Vec<_> = fates.iter().map(|fate| fate.as_ref().map(|image| (image.width, image.height))).collect();
    assert_eq!(fates, [Ok((3, 5)), Err(&Stage::Decode), Ok((7, 2)), Err(&Stage::Decode)]);
    assert_eq!(images[1].outcome.as_ref().map_err(|bad| bad.reason.as_str()), Err("4000 rows are too many"));
    let part: Vec<String> = spawn(1..3).map(|image| image.key).collect();
    assert_eq!(part, ["1.png", "2.png"]);
}

#[test]
fn a_size_without_a_use_is_refused_before_the_pixels() {
    // Of the largest size there is, and without any data after the header.
    let bmp_info = [40u32, 1, 100_000_000, 24 << 16 | 1, 0, 0, 0, 0, 0, 0].map(u32::to_le_bytes).concat();
    let bmp = [&b"BM"[..], &[0; 8], &54u32.to_le_bytes(), &bmp_info].concat();
    let gif = [&b"GIF89a"[..], &[1, 0, 0xFF, 0xFF, 0, 0, 0], &[0x2C, 0, 0, 0, 0, 1, 0, 0xFF, 0xFF, 0, 8]].concat();
    let png = png(1, 178_956_970, [8, 0], b"");
    let limits = Limits::default();
    for (name, file, size) in
        [("BMP", &bmp, (1, 100_000_000)), ("GIF", &gif, (1, 65_535)), ("PNG", &png, (1, 178_956_970))]
    {
        let refused = decode_rgb_if(file, &limits, &mut |_, _| Err("too long".into()));
        assert_eq!(refused, Err(DecodeError::NoUse { reason: "too long".into() }), "{name}");
        assert_eq!(picture_size(file, &limits), Ok(size), "{name}");
        assert!(decode_rgb(file, &limits).is_err(), "{name}");
    }
    assert_eq!(picture_size(b"", &limits), Err(DecodeError::NoBytes));
}

/// Rows of noise under every filter, and of every width around the blocks in which they are inflated.
#[test]
fn narrow_and_wide_pictures_have_the_pixels_that_another_decoder_finds() {
    let mut state = 1u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    for (width, height) in
        [(1, 70_000), (2, 40_000), (3, 1), (21_844, 3), (21_845, 3), (21_846, 2), (65_536, 2), (1, 1)]
    {
        let mut data = Vec::new();
        for _ in 0..height {
            data.push(noise() % 5);
            data.extend((0..3 * width).map(|_| noise()));
        }
        let file = png(width, height, [8, 2], &data);
        let path = tempfile::NamedTempFile::new().expect("temporary file");
        fs::write(path.path(), &file).expect("file");
        let ours = decode_rgb(&file, &Limits::default()).expect("sound");
        let theirs = support::read_png(path.path());
        assert_eq!((ours.width, ours.height, ours.warnings), (theirs.width, theirs.height, 0));
        assert_same_pixels(&format!("{width} x {height}"), &ours.pixels, &theirs.pixels);
        // Data that ends within a row, and between two.
        let row = 1 + 3 * width as usize;
        let within = decode_rgb(&png(width, height, [8, 2], &data[..data.len() - 1]), &Limits::default());
        assert!(matches!(within, Err(DecodeError::Broken { .. } | DecodeError::Truncated { .. })), "{within:?}");
        if height > 1 {
            let between = png(width, height, [8, 2], &data[..data.len() - row]);
            let short = decode_rgb(&between, &Limits::default()).expect("as Pillow has it");
            assert_eq!(short.warnings, 1, "{width} x {height}");
            assert_same_pixels("the rows before", &short.pixels[..data.len() - row - (height as usize - 1)], {
                &ours.pixels[..data.len() - row - (height as usize - 1)]
            });
        }
    }
}

#[test]
fn rows_of_a_wide_picture_count_as_memory() {
    // Two rows of eight bytes for each pixel, beside the picture itself.
    let refused = decode_rgb(&png(89_000_000, 2, [16, 6], b""), &Limits::default());
    assert!(matches!(refused, Err(DecodeError::TooMuchMemory { bytes: 1_900_000_000.., .. })), "{refused:?}");
}

/// The last bytes hold the whole picture, but a reader that asks for one row at a time, as Pillow does, has used them up before it
/// asks for the last one.
#[test]
fn a_picture_whose_last_row_comes_after_the_last_byte_is_too_short() {
    const DATA: [u8; 81] = [
        0x78, 0x01, 0x63, 0x60, 0xC3, 0x04, 0x8C, 0x0C, 0x98, 0x80, 0x99, 0x09, 0x13, 0x30, 0xB2, 0x60, 0x02, 0x6C,
        0xEA, 0x30, 0x4D, 0x63, 0x60, 0x60, 0xC4, 0x02, 0x58, 0x30, 0x9D, 0xC2, 0xC6, 0x84, 0x45, 0x33, 0xF3, 0xFC,
        0x77, 0x47, 0xF6, 0x9D, 0xCB, 0x3D, 0xC9, 0xB1, 0xB6, 0x59, 0xC6, 0x28, 0xE3, 0xCE, 0xEA, 0xAF, 0x3B, 0x33,
        0x38, 0xB1, 0xB9, 0x19, 0x8B, 0x15, 0x8C, 0x2C, 0xEC, 0x98, 0x00, 0x9B, 0x63, 0x98, 0x30, 0x95, 0xB1, 0x33,
        0x62, 0x11, 0x63, 0x60, 0xC5, 0x04, 0xD8, 0xC4, 0x00,
    ];
    let header = [&38u32.to_be_bytes()[..], &18u32.to_be_bytes(), &[4, 0, 0, 0, 0]].concat();
    let start = [&b"\x89PNG\r\n\x1a\n"[..], &chunk(b"IHDR", &header)].concat();
    let cut = [&start[..], &85u32.to_be_bytes(), b"IDAT", &DATA].concat();
    let refused = decode_rgb(&cut, &Limits::default());
    assert!(matches!(refused, Err(DecodeError::Truncated { .. })), "{refused:?}");
}
