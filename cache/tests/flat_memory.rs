//! Memory that grows with the rows: how much for each, measured at two sizes. In a file of its own, as memory is counted for
//! the whole process.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use tokengrid_cache::{
    CacheWriter, ClassIndex, GridSpec, ImportOptions, Inspection, JobSpec, MergeInput, OpenMode, Row, RowFilter,
    RowReader, Selection, TokenCache, diff, export_npy, export_parquet, find_rows, import_npy, import_parquet, leak,
    merge, near_rows, subset, verify,
};
use tokengrid_test_support::heap::{self, Counting, check_growth, held};

static NEVER: AtomicBool = AtomicBool::new(false);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most memory that `work` holds at a time, beside what was there before.
fn peak(work: impl FnOnce()) -> usize {
    let before = held();
    heap::peak(work) - before
}

const GRID: GridSpec = GridSpec { height: 1, width: 4, bits: 18 };

/// A cache of random grids. Images are numbered from `first` on, upwards or, with `turned`, downwards.
fn write(dir: &Path, first: usize, images: usize, turned: bool) {
    let mut job = JobSpec::new(GRID, images, 1);
    job.source.location = format!("{first}");
    // Small ones, of which even the smaller cache has more than are held at a time.
    (job.rows_per_group, job.groups_per_shard) = (4096, 4);
    let mut writer = CacheWriter::open(dir, job, OpenMode::Resume).unwrap();
    for place in 0..images {
        let image = first + if turned { images - 1 - place } else { place };
        let mixed = (image as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let tokens = [0, 12, 24, 36].map(|shift| (mixed >> shift) as u32 & 0x3FFFF);
        let (key, label) = (format!("n{:08}/{image}.JPEG", image / 1300), (image / 1300) as i32);
        let row = Row { tokens: &tokens, label, key: &key, view: 0, crop_x: 0, crop_y: 0, flip: false };
        writer.push_image(place, &[row]).unwrap();
    }
    writer.finish().unwrap();
}

/// Peak memory of each job on a cache of so many rows.
fn peaks(rows: usize) -> Vec<(&'static str, usize)> {
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name);
    let [cache, turned, half_a, half_b] = ["cache", "turned", "half-a", "half-b"].map(path);
    let mut peaks = Vec::new();
    let mut measure = |name, work: &mut dyn FnMut()| peaks.push((name, peak(work)));
    measure("write", &mut || write(&cache, 0, rows, false));
    write(&turned, 0, rows, true);
    write(&half_a, 0, rows / 2, false);
    write(&half_b, rows / 2, rows / 2, false);
    let open = |dir: &Path| TokenCache::open(dir).unwrap();
    measure("open", &mut || drop(open(&cache)));
    let inputs = [MergeInput::new(&half_a), MergeInput::new(&half_b)];
    measure("merge", &mut || drop(merge(&path("merged"), &inputs, OpenMode::Resume).unwrap()));
    let selection = Selection { limit: Some(rows - 1), ..Selection::default() };
    measure("subset", &mut || drop(subset(&cache, &path("subset"), &selection, OpenMode::Resume).unwrap()));
    fs::remove_dir_all(path("merged")).unwrap();
    fs::remove_dir_all(path("subset")).unwrap();
    let [npy, lists] = ["npy", "lists"].map(path);
    measure("export npy", &mut || export_npy(&open(&cache), &npy, OpenMode::Resume).unwrap());
    measure("export parquet", &mut || export_parquet(&open(&cache), &lists, OpenMode::Resume).unwrap());
    let options = ImportOptions { grid: (1, 4), bits: Some(18), views: 1, ..ImportOptions::default() };
    let [tokens, labels, keys] = ["tokens.npy", "labels.npy", "keys.txt"].map(|name| npy.join(name));
    measure("import npy", &mut || {
        let out = path("imported");
        drop(import_npy(&tokens, Some(&labels), Some(&keys), &options, &out, OpenMode::Resume).unwrap());
    });
    fs::remove_dir_all(path("imported")).unwrap();
    measure("import parquet", &mut || {
        let input = [lists.join("tokens.parquet")];
        drop(import_parquet(&input, &options, &path("imported"), OpenMode::Resume).unwrap());
    });
    measure("verify", &mut || assert!(verify(&cache, &mut |_, _| {}).unwrap().is_ok()));
    measure("diff", &mut || {
        let found = diff([&open(&cache), &open(&cache)], 10, &mut |_, _| {}).unwrap();
        assert!(found.same);
    });
    measure("diff in another order", &mut || {
        let found = diff([&open(&cache), &open(&turned)], 10, &mut |_, _| {}).unwrap();
        assert_eq!((found.common_rows, found.tokens_differ), (rows, 0));
    });
    measure("stats", &mut || {
        let found = Inspection::of(&open(&cache), Some(2), &NEVER, &mut |_, _| {}).unwrap();
        assert_eq!((found.stats.rows, found.stats.duplicates.rows), (rows, 0));
    });
    measure("find by key", &mut || {
        let (cache, filter) = (open(&cache), RowFilter { key: Some("/77777.".into()), ..RowFilter::default() });
        assert_eq!(find_rows(&cache, &ClassIndex::of(&cache), &filter, &NEVER).unwrap().len(), 1);
    });
    measure("look at rows", &mut || {
        let reader = RowReader::open(&cache).unwrap();
        let filter = RowFilter { key: Some("/77777.".into()), ..RowFilter::default() };
        assert_eq!(reader.find(&filter, &NEVER).unwrap().unwrap().get(0), Some(77_777));
        for start in (0..rows).step_by(4096) {
            assert_eq!(reader.metas(start..(start + 4096).min(rows)).unwrap()[0].view, 0);
        }
    });
    measure("near", &mut || {
        let cache = open(&cache);
        assert_eq!(near_rows(&cache, &[cache.packed_row(5)], 0, 10, Some(2), &mut |_, _| {}).unwrap().found, 1);
    });
    measure("leak", &mut || {
        let found = leak(&open(&cache), &open(&half_a), 0, 10, Some(2), &mut |_, _| {}).unwrap();
        assert_eq!(found.rows, rows as u64 / 2);
    });
    peaks
}

/// Bytes that a job may take for each row; one and a half of them are metadata of these small row groups. At 12.8 million
/// rows, 20 of them are 256 MB.
const BYTES_PER_ROW: [(&str, usize); 16] = [
    ("write", 9),
    ("open", 4),
    // More where hashes of keys take more than row groups, up to 64 MiB together.
    ("merge", 5),
    ("subset", 5),
    ("export npy", 4),
    ("export parquet", 5),
    ("import npy", 2),
    ("import parquet", 2),
    ("verify", 1),
    // Of these, 28 per row of a block of a million rows.
    ("diff", 37),
    ("diff in another order", 41),
    // Of these, 8 per row of a million rows that are sorted at a time.
    ("stats", 17),
    ("find by key", 9),
    ("look at rows", 2),
    ("near", 4),
    ("leak", 8),
];

#[test]
fn memory_grows_by_a_few_bytes_per_row() {
    check_growth([100_000, 400_000], peaks, &BYTES_PER_ROW);
}
