//! What files may cost a process: memory over all threads, passes over a picture, descriptors; and what a defect costs.

mod containers;
mod support;

use containers::tar::archive_of;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;
use tokengrid_ingest::{
    DecodeError, Limits, Recipe, Source, SourceOptions, Stage, StreamConfig, ViewStream, Views, decode_rgb,
    memory_budget, set_memory_budget, views_of_file,
};

/// Set in child processes: the folder to work on.
const FOLDER: &str = "TOKENGRID_RESOURCES_FOLDER";

fn segment(marker: u8, data: &[u8]) -> Vec<u8> {
    [&[0xFF, marker], &(data.len() as u16 + 2).to_be_bytes()[..], data].concat()
}

/// A progressive JPEG file of a few hundred bytes: `num_scans` scans without data, which libjpeg takes for zeros. The first
/// component has `sampling` x `sampling` samples for one of the others.
fn progressive(width: u16, height: u16, sampling: u8, num_scans: usize) -> Vec<u8> {
    let sampling = sampling << 4 | sampling;
    let frame =
        [&[8][..], &height.to_be_bytes(), &width.to_be_bytes(), &[3, 1, sampling, 0, 2, 0x11, 0, 3, 0x11, 0]].concat();
    let one_code = [&[0, 1][..], &[0; 15], &[0]].concat();
    let scan = segment(0xDA, &[3, 1, 0, 2, 0, 3, 0, 0, 0, 1]);
    [
        vec![0xFF, 0xD8],
        segment(0xDB, &[&[0][..], &[1; 64]].concat()),
        segment(0xC2, &frame),
        segment(0xC4, &one_code),
        scan.repeat(num_scans),
        vec![0xFF, 0xD9],
    ]
    .concat()
}

fn decode(bytes: &[u8]) -> Result<(u32, u32), DecodeError> {
    decode_rgb(bytes, &Limits::default()).map(|image| (image.width, image.height))
}

#[test]
fn large_pictures_may_have_fewer_scans() {
    assert_eq!(decode(&progressive(300, 200, 2, 400)), Ok((300, 200)), "a small one may have many");
    assert_eq!(decode(&progressive(4000, 3000, 2, 17)), Ok((4000, 3000)));
    let refused = |bytes: &[u8], scans: &str| {
        let error = decode(bytes).expect_err("a bomb");
        assert!(matches!(&error, DecodeError::Unsupported { what, .. } if what == scans), "{error}");
    };
    // 13,000 x 13,000 pixels are almost the largest number, of which there may be 16 scans.
    refused(&progressive(13_000, 13_000, 2, 18), "more than 16 scans");
    refused(&progressive(13_000, 13_000, 2, 499), "more than 16 scans");
    refused(&progressive(6_500, 6_500, 2, 68), "more than 67 scans");
    refused(&progressive(300, 200, 2, 501), "more than 500 scans");
}

#[test]
fn several_scans_without_an_end_are_refused_by_their_markers() {
    let whole = progressive(13_000, 13_000, 2, 3);
    // An end marker before the scans, as that of a thumbnail, is no end.
    let thumbnail = segment(0xE1, b"thumbnail\xFF\xD9");
    let cut = [&whole[..2], &thumbnail, &whole[2..whole.len() - 2]].concat();
    assert!(matches!(decode(&cut), Err(DecodeError::Truncated { .. })));
}

#[test]
fn coefficients_count_as_memory_of_a_picture() {
    // Three full planes of two bytes per sample, and three of one: 1.4 GiB.
    let error = decode(&progressive(13_000, 13_000, 1, 1)).expect_err("more than a gibibyte");
    assert!(matches!(error, DecodeError::TooMuchMemory { width: 13_000, bytes: 1_500_000_000.., .. }), "{error}");
    let limits = Limits { max_decode_bytes: 9 * 64 * 64 - 1, ..Limits::default() };
    assert!(decode_rgb(&progressive(64, 64, 1, 1), &limits).is_err());
    let limits = Limits { max_decode_bytes: 9 * 64 * 64, ..limits };
    assert!(decode_rgb(&progressive(64, 64, 1, 1), &limits).is_ok(), "exactly the limit");
}

#[test]
fn a_size_that_the_recipe_cannot_use_is_refused_from_the_header() {
    let mut png = support::input("rgb.png");
    png[16..24].copy_from_slice(&[0, 0, 0, 1, 0x0A, 0xAA, 0xAA, 0xAA]);
    let mut crc = flate2::Crc::new();
    crc.update(&png[12..29]);
    png[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    let bmp_info = [40u32, 1, 100_000_000, 24 << 16 | 1, 0, 0, 0, 0, 0, 0].map(u32::to_le_bytes).concat();
    let bmp = [&b"BM"[..], &[0; 8], &54u32.to_le_bytes(), &bmp_info].concat();
    for (name, file) in [("PNG", &png), ("BMP", &bmp)] {
        let recipe = Recipe { size: 256, views: Views::Center, ..Recipe::default() };
        let bad = views_of_file(file, "k", &recipe, &Limits::default()).expect_err(name);
        // The data is broken as well, but nobody looks at it.
        assert_eq!(bad.stage, Stage::Resize, "{name}: {bad}");
        assert!(bad.reason.contains("the longer one would exceed 2147483647"), "{name}: {bad}");
    }
}

/// Runs a test of this program as a process of its own, and returns what it printed.
fn child(test: &str, folder: &Path, prepare: impl FnOnce(&mut Command)) -> String {
    let mut command = Command::new("sh");
    prepare(&mut command);
    let program = std::env::current_exe().expect("this program");
    command.arg(program).args(["--exact", "--nocapture", test]).env(FOLDER, folder);
    let output = command.output().expect("the child starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn folder_of_child() -> Option<std::path::PathBuf> {
    std::env::var_os(FOLDER).map(Into::into)
}

fn folder_of(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> TempDir {
    let root = tempfile::tempdir().expect("temporary folder");
    files.into_iter().for_each(|(name, bytes)| fs::write(root.path().join(name), bytes).expect("file"));
    root
}

const BUDGET_BYTES: u64 = 320 << 20;
const THREADS: usize = 8;

/// What the system's allocator keeps for a thread of memory that was freed.
const KEPT_BY_ALLOCATOR_BYTES: u64 = 48 << 20;
const SHELL: [&str; 2] = ["-c", "exec \"$0\" \"$@\""];

#[test]
fn all_threads_together_decode_within_one_budget() {
    // 150 MB each, so that eight threads would take 1.2 GB; and one that takes more than the budget alone.
    let files = (0..THREADS).map(|i| (format!("{i:02}.jpg"), progressive(5000, 5000, 2, 1)));
    let root = folder_of(files.chain([("large.jpg".to_owned(), progressive(12_000, 12_000, 2, 1))]));
    let text = child("child_within_a_budget", root.path(), |command| {
        command.args(SHELL);
    });
    let peak_kb = text.split("peak_kb=").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a peak");
    let peak_kb: u64 = peak_kb.parse().expect("a number");
    eprintln!("peak resident memory (VmHWM): {peak_kb} kB");
    assert!(peak_kb * 1024 < BUDGET_BYTES + THREADS as u64 * KEPT_BY_ALLOCATOR_BYTES, "{peak_kb} kB");
}

#[test]
fn child_within_a_budget() {
    let Some(folder) = folder_of_child() else { return };
    assert!(memory_budget() >= 128 << 20, "the default is a part of the machine's memory");
    set_memory_budget(BUDGET_BYTES);
    let source = Arc::new(Source::open(&folder, &SourceOptions::default()).expect("source"));
    let recipe = Recipe { size: 64, ..Recipe::default() };
    let config = StreamConfig { threads: THREADS, in_flight: 2 * THREADS, ..StreamConfig::default() };
    let images: Vec<_> = ViewStream::spawn(Arc::clone(&source), 0..source.len(), recipe, config).collect();
    for image in &images[..THREADS] {
        assert!(image.outcome.is_ok(), "{:?}", image.outcome);
    }
    let bad = images[THREADS].outcome.as_ref().expect_err("more than the budget");
    assert!(bad.stage == Stage::Decode && bad.reason.contains("--memory"), "{bad}");
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    println!("peak_kb={}", peak.trim().trim_end_matches(" kB"));
}

#[test]
fn more_shards_than_the_system_lets_a_process_open() {
    let tars = (0..256).map(|i| (format!("{i:03}.tar"), archive_of([(format!("{i:03}.jpg"), &[i as u8][..])])));
    let root = folder_of(tars);
    child("child_with_few_descriptors", root.path(), |command| {
        command.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""]);
    });
}

#[test]
fn child_with_few_descriptors() {
    let Some(folder) = folder_of_child() else { return };
    let source = Source::open(&folder, &SourceOptions::default()).expect("source");
    assert_eq!((source.len(), source.damaged()), (256, 0));
    // What else a program has open.
    let others: Vec<_> = (0..24).map(|_| fs::File::open("/dev/null").expect("a descriptor is left")).collect();
    let mut file = Vec::new();
    for index in 0..source.len() {
        source.read(index, &mut file).expect("read");
        assert_eq!(file, [index as u8]);
    }
    drop(others);
}

#[test]
fn a_decoder_that_panics_costs_its_image() {
    let good = support::input("tiny_17x13.JPEG");
    let faulty = [&good[..], b"FAULT"].concat();
    let png = [&support::input("rgb.png")[..], b"FAULT"].concat();
    let files = [("a.jpg", &good), ("b.jpg", &faulty), ("c.png", &png), ("d.jpg", &good)];
    let root = folder_of(files.map(|(name, bytes)| (name.to_owned(), bytes.clone())));
    child("child_with_a_fault", root.path(), |command| {
        command.args(SHELL).env("TOKENGRID_PANIC_IN_DECODER", "FAULT");
    });
    assert!(decode(&faulty).is_ok() && decode(&png).is_ok(), "without the request nothing is wrong");
}

#[test]
fn child_with_a_fault() {
    let Some(folder) = folder_of_child() else { return };
    let source = Arc::new(Source::open(&folder, &SourceOptions::default()).expect("source"));
    let recipe = Recipe { size: 16, ..Recipe::default() };
    for threads in [1, 3] {
        let config = StreamConfig { threads, ..StreamConfig::default() };
        let images: Vec<_> = ViewStream::spawn(Arc::clone(&source), 0..4, recipe, config).collect();
        let fates: Vec<_> = images.iter().map(|image| (image.key.as_str(), image.outcome.is_ok())).collect();
        assert_eq!(fates, [("a.jpg", true), ("b.jpg", false), ("c.png", false), ("d.jpg", true)]);
        let bad = images[1].outcome.as_ref().expect_err("the fault");
        assert!(bad.stage == Stage::Decode && bad.reason.starts_with("internal error: "), "{bad}");
    }
    let faulty = fs::read(folder.join("b.jpg")).expect("file");
    assert!(matches!(decode(&faulty), Err(DecodeError::Internal { .. })));
    let bad = views_of_file(&faulty, "b.jpg", &recipe, &Limits::default()).expect_err("the fault");
    assert_eq!(bad.stage, Stage::Decode);
}
