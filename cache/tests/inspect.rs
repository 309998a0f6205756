//! What an inspection finds in caches with known faults, where it is kept, and how caches are compared and searched.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::{copy_dir, names, scramble, small_cache};
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use tokengrid_cache::{
    CacheError, CacheWriter, ClassIndex, GridSpec, INSPECTION_FILE, Inspection, JobSpec, OpenMode, Row, RowFilter,
    RowMeta, StoredAt, TokenCache, diff, find_rows, write_synthetic_cache,
};

static NEVER: AtomicBool = AtomicBool::new(false);

/// One image: its label, the name of its folder, and what becomes of its tokens.
type Image<'a> = (i32, &'a str, Box<dyn Fn(&mut [u32]) + 'a>);

/// A cache of 8 x 8 grids of 10 bits; image i has random tokens, which its entry may change.
fn cache_of(dir: &Path, classes: &[&str], views: u32, images: &[Image<'_>]) -> TokenCache {
    let grid = GridSpec { height: 8, width: 8, bits: 10 };
    let mut job = JobSpec::new(grid, images.len(), views);
    job.classes = classes.iter().map(|name| (*name).to_owned()).collect();
    job.rows_per_group = 4 * views as usize;
    let mut writer = CacheWriter::open(dir, job, OpenMode::Resume).unwrap();
    for (image, (label, folder, change)) in images.iter().enumerate() {
        let key = format!("{folder}/{image}.jpg");
        let grids: Vec<Vec<u32>> = (0..views as usize)
            .map(|view| {
                let mut tokens: Vec<u32> =
                    (0..64).map(|i| scramble((image * 10 + view) as u64 * 1000 + i) as u32 % 1024).collect();
                change(&mut tokens);
                tokens
            })
            .collect();
        let row = |(view, tokens)| Row { tokens, label: *label, key: &key, view, crop_x: 3, crop_y: 0, flip: false };
        let rows: Vec<Row> = (0..).zip(grids.iter().map(Vec::as_slice)).map(row).collect();
        writer.push_image(image, &rows).unwrap();
    }
    writer.finish().unwrap();
    TokenCache::open(dir).unwrap()
}

fn as_they_are<'a>(label: i32, folder: &'a str) -> Image<'a> {
    (label, folder, Box::new(|_| {}))
}

fn inspect(cache: &TokenCache, threads: usize) -> Inspection {
    Inspection::of(cache, Some(threads), &NEVER, &mut |_, _| {}).unwrap()
}

/// Equal, but for the last digit of what went through a decimal text. Says no more: there are tables in it.
#[track_caller]
fn assert_same(a: &Inspection, b: &Inspection) {
    assert!(a.code_counts == b.code_counts && a.code_first == b.code_first && a.duplicates == b.duplicates);
    assert_eq!(a.stats.near_duplicates, b.stats.near_duplicates);
    assert_eq!(a.stats.label_conflicts, b.stats.label_conflicts);
    assert!((a.stats.code_entropy_bits - b.stats.code_entropy_bits).abs() < 1e-12);
}

/// The tokens that image `image` of [`cache_of`] has in its first view, with the first `changed` of them changed.
fn like(image: usize, changed: usize) -> impl Fn(&mut [u32]) {
    move |tokens| {
        for (i, token) in tokens.iter_mut().enumerate() {
            *token = (scramble(image as u64 * 10_000 + i as u64) as u32 % 1024) ^ u32::from(i < changed);
        }
    }
}

#[test]
fn duplicates_near_duplicates_and_swapped_labels_are_found() {
    let temp = tempfile::tempdir().unwrap();
    let mut images: Vec<Image> = (0..40).map(|i| as_they_are(i / 20, if i < 20 { "cat" } else { "dog" })).collect();
    images[10].2 = Box::new(like(3, 0));
    images[30].2 = Box::new(like(4, 16));
    images[31].2 = Box::new(like(5, 33)); // fewer than half of the tokens are left
    images[12].0 = 1;
    images[33].0 = 0;
    let cache = cache_of(temp.path(), &["cat", "dog", "fish"], 1, &images);
    let found = inspect(&cache, 2);
    let duplicates: Vec<_> = found.duplicates.iter().map(|pair| (pair.first, pair.row, pair.same_image)).collect();
    assert_eq!(duplicates, [(3, 10, false)]);
    let near = &found.stats.near_duplicates;
    let pairs: Vec<_> =
        near.listed.iter().map(|pair| (pair.first, pair.row, pair.equal_tokens, pair.equal_bits)).collect();
    assert_eq!((near.pairs, near.is_cut_short, pairs), (1, false, vec![(4, 30, 48, 640 - 16)]));
    let conflicts = &found.stats.label_conflicts;
    assert_eq!((conflicts.compared, conflicts.images), (40, 2));
    let listed: Vec<_> = conflicts.listed.iter().map(|c| (c.row, c.label, c.folder)).collect();
    assert_eq!(listed, [(12, 1, 0), (33, 0, 1)]);
    assert_eq!(found.stats.empty_classes, 1);
}

#[test]
fn figures_are_those_counted_by_hand_whatever_the_threads() {
    let temp = tempfile::tempdir().unwrap();
    // Bit 2 is dead, bit 5 equals bit 4; classes are not in order.
    let change = |tokens: &mut [u32]| tokens.iter_mut().for_each(|t| *t = *t & !36 | (*t >> 4 & 1) << 5);
    let images: Vec<Image> =
        (0..60).map(|i| (i * 7 % 3 - 1, "x", Box::new(change) as Box<dyn Fn(&mut [u32])>)).collect();
    let cache = cache_of(temp.path(), &["a", "b"], 2, &images);
    let found = inspect(&cache, 1);
    for threads in [2, 3, 16] {
        assert!(inspect(&cache, threads) == found, "{threads} threads");
    }
    let mut counts = vec![0u64; 1024];
    let mut first = vec![None; 1024];
    let mut class_codes = vec![std::collections::BTreeMap::<u32, u64>::new(); 3];
    for row in 0..cache.num_rows() {
        for (i, token) in tokens_of(&cache, row).iter().enumerate() {
            counts[*token as usize] += 1;
            first[*token as usize].get_or_insert((row * 64 + i) as u64);
            *class_codes[(cache.label(row) + 1) as usize].entry(*token).or_default() += 1;
        }
    }
    assert!((&found.code_counts, &found.code_first) == (&counts, &first), "counts and first places");
    assert_eq!(found.stats.dead_bits, [2]);
    let correlation = &found.stats.bit_correlation;
    assert!((correlation[4][5].unwrap() - 1.0).abs() < 1e-9 && correlation[2][3].is_none());
    assert!(correlation[0][1].unwrap().abs() < 0.1);
    assert_eq!((found.stats.classes.len(), found.stats.unlabelled_rows), (2, 40));
    for class in &found.stats.classes {
        let codes = &class_codes[class.label + 1];
        let total: u64 = codes.values().sum();
        let entropy: f64 = codes.values().map(|n| *n as f64 / total as f64).map(|p| -p * p.log2()).sum();
        assert_eq!((class.rows, class.distinct_codes), (40, codes.len() as u64));
        assert!((class.code_entropy_bits - entropy).abs() < 1e-9, "{entropy}");
    }
}

#[test]
fn an_inspection_is_kept_for_its_cache_and_no_other() {
    let (_temp, dir) = small_cache();
    let cache = TokenCache::open(&dir).unwrap();
    assert!(Inspection::load(&cache, None).is_none());
    let count = std::cell::Cell::new(0);
    let load = |cache: &TokenCache| {
        Inspection::load_or_compute(cache, None, None, &NEVER, &mut |_, _| count.set(count.get() + 1)).unwrap()
    };
    let found = load(&cache);
    let computed = count.get();
    assert!(computed > 0 && names(&dir).contains(&INSPECTION_FILE.to_owned()));
    assert_same(&load(&cache), &found);
    assert_eq!(count.get(), computed, "read the second time");
    assert!(tokengrid_cache::verify(&dir, &mut |_, _| {}).unwrap().is_ok(), "the file is not in the way");

    // Cut off, edited, of another version, or of another cache: made anew.
    let path = dir.join(INSPECTION_FILE);
    let text = fs::read_to_string(&path).unwrap();
    for spoiled in [
        &text[..100],
        &text.replace("\"code_first\":[", "\"code_first\":[7,"),
        &text.replace("\"version\":2", "\"version\":1"),
        &text.replace(&found.manifest, &"0".repeat(64)),
    ] {
        fs::write(&path, spoiled).unwrap();
        assert!(Inspection::load(&cache, None).is_none());
    }
    assert_same(&load(&cache), &found);
    assert!(fs::read_to_string(&path).unwrap() == text, "the same file again");
}

#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_written_to_is_no_obstacle() {
    use std::os::unix::fs::PermissionsExt;
    let (temp, dir) = small_cache();
    let elsewhere = temp.path().join("user/cache");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(dir.join("probe"), "").is_ok() {
        // The superuser may write anywhere: a folder in the way of the file does the same.
        fs::remove_file(dir.join("probe")).unwrap();
        fs::create_dir(dir.join(INSPECTION_FILE)).unwrap();
    }
    let cache = TokenCache::open(&dir).unwrap();
    let found = inspect(&cache, 1);
    assert_eq!(found.store(&cache, None), StoredAt::Memory);
    assert!(matches!(found.store(&cache, Some(&elsewhere)), StoredAt::File(path) if path.starts_with(&elsewhere)));
    assert_same(&Inspection::load(&cache, Some(&elsewhere)).unwrap(), &found);
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn an_inspection_can_be_cancelled() {
    let (_temp, dir) = small_cache();
    let cache = TokenCache::open(&dir).unwrap();
    let result = Inspection::of(&cache, None, &AtomicBool::new(true), &mut |_, _| {});
    assert!(matches!(result, Err(CacheError::Cancelled)));
}

#[test]
fn filters_find_the_rows_that_a_look_at_each_finds() {
    let (_temp, dir) = small_cache();
    let cache = TokenCache::open(&dir).unwrap();
    let index = ClassIndex::of(&cache);
    let shards: Vec<_> = cache.manifest().shards.iter().map(|shard| shard.rows).collect();
    let shard_of = |row: usize| (1..).find(|n| shards[..*n].iter().sum::<usize>() > row).unwrap() - 1;
    let any = RowFilter::default;
    for filter in [
        any(),
        RowFilter { label: Some(2), ..any() },
        RowFilter { view: Some(1), ..any() },
        RowFilter { shard: Some(1), ..any() },
        RowFilter { key: Some("n00000001/".into()), ..any() },
        RowFilter { key: Some("_1".into()), view: Some(0), ..any() },
        RowFilter { label: Some(3), shard: Some(3), key: Some("JPEG".into()), view: Some(1) },
        RowFilter { label: Some(-1), ..any() },
        RowFilter { label: Some(i32::MIN), ..any() },
        RowFilter { label: Some(i32::MAX), ..any() },
        RowFilter { view: Some(u32::MAX), ..any() },
        RowFilter { shard: Some(usize::MAX), ..any() },
    ] {
        let fits = |row: &usize| {
            let meta = cache.meta(*row).unwrap();
            filter.label.is_none_or(|label| label == meta.label)
                && filter.view.is_none_or(|view| view == meta.view)
                && filter.shard.is_none_or(|shard| shard == shard_of(*row))
                && filter.key.as_ref().is_none_or(|key| meta.key.contains(key))
        };
        let expected: Vec<usize> = (0..cache.num_rows()).filter(fits).collect();
        let found = find_rows(&cache, &index, &filter, &NEVER).unwrap();
        let rows: Vec<usize> = (0..found.len()).map(|place| found.get(place).unwrap()).collect();
        assert_eq!(rows, expected, "{filter:?}");
        assert_eq!((found.get(found.len()), found.get(usize::MAX)), (None, None));
    }
}

#[test]
fn a_diff_says_what_differs() {
    let temp = tempfile::tempdir().unwrap();
    let images = || (0..10).map(|i| as_they_are(i % 2, "f")).collect::<Vec<_>>();
    let a = cache_of(&temp.path().join("a"), &["x", "y"], 2, &images());
    let compare = |b: &TokenCache| diff([&a, b], 3, &mut |_, _| {}).unwrap();
    let same = compare(&a);
    assert!(same.same && same.manifests.is_empty() && same.listed.is_empty(), "{same:?}");
    assert_eq!((same.common_rows, same.equal_tokens, same.bits, same.equal_bits), (20, 1280, 12_800, 12_800));

    let mut changed = images();
    changed[4].0 = 1;
    changed[7].2 = Box::new(|tokens| tokens[5] ^= 0b11);
    changed[9].1 = "g";
    let b = cache_of(&temp.path().join("b"), &["x", "y"], 2, &changed);
    let found = compare(&b);
    assert!(!found.same);
    assert_eq!((found.common_rows, found.only_in), (18, [2, 2]));
    assert_eq!(found.only_keys, [vec!["f/9.jpg".to_owned()], vec!["g/9.jpg".to_owned()]]);
    assert_eq!((found.labels_differ, found.crops_differ, found.tokens_differ), (2, 0, 2));
    assert_eq!((found.tokens - found.equal_tokens, found.bits - found.equal_bits), (2, 4));
    assert_eq!(found.unequal_by_bit, [2, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
    let rows: Vec<_> = found.listed.iter().map(|row| (row.rows, row.labels, row.unequal_bits)).collect();
    assert_eq!(rows, [([8, 8], Some([0, 1]), 0), ([9, 9], Some([0, 1]), 0), ([14, 14], None, 2)]);
    assert_eq!(found.manifests[0].0, "content_hash");

    // Fewer images, another order of the same ones, fewer views, another grid.
    let c = cache_of(&temp.path().join("c"), &["x", "y"], 2, &images()[..4]);
    let part = compare(&c);
    assert_eq!((part.common_rows, part.only_in, part.tokens_differ), (8, [12, 0], 0));
    let turned = temp.path().join("turned");
    in_another_order(&a, &turned);
    let turned = compare(&TokenCache::open(&turned).unwrap());
    assert!(turned.same && turned.common_rows == 20, "{turned:?}");
    let fewer = cache_of(&temp.path().join("d"), &["x", "y"], 1, &images());
    assert_eq!((compare(&fewer).common_rows, compare(&fewer).only_in), (10, [10, 0]));
    let other = temp.path().join("e");
    write_synthetic_cache(&other, 3, 1).unwrap();
    let other = compare(&TokenCache::open(&other).unwrap());
    assert_eq!((other.common_rows, other.only_in, other.same), (0, [20, 3], false));
    assert!(other.manifests.iter().any(|(field, ..)| *field == "grid"));
}

/// The rows of `cache`, last image first.
fn in_another_order(cache: &TokenCache, out: &Path) {
    let mut writer = CacheWriter::open(out, JobSpec::of(cache.manifest()).unwrap(), OpenMode::Resume).unwrap();
    let metas = cache.metas(0..cache.num_rows()).unwrap();
    for (image, original) in (0..cache.num_images()).rev().enumerate() {
        let rows: Vec<_> = cache.image_rows(original).map(|row| (&metas[row], tokens_of(cache, row))).collect();
        let rows: Vec<Row> = rows.iter().map(|(meta, tokens)| row_of(meta, tokens)).collect();
        writer.push_image(image, &rows).unwrap();
    }
    writer.finish().unwrap();
}

fn row_of<'a>(meta: &'a RowMeta, tokens: &'a [u32]) -> Row<'a> {
    let RowMeta { key, label, view, crop_x, crop_y, flip } = meta;
    Row { tokens, label: *label, key, view: *view, crop_x: *crop_x, crop_y: *crop_y, flip: *flip }
}

fn tokens_of(cache: &TokenCache, row: usize) -> Vec<u32> {
    let mut tokens = vec![0; cache.grid().num_tokens()];
    cache.tokens_into(row, &mut tokens);
    tokens
}

#[test]
fn a_copy_of_a_cache_keeps_its_inspection() {
    let (temp, dir) = small_cache();
    let cache = TokenCache::open(&dir).unwrap();
    inspect(&cache, 1).store(&cache, None);
    let copy = temp.path().join("copy");
    copy_dir(&dir, &copy);
    assert!(Inspection::load(&TokenCache::open(&copy).unwrap(), None).is_some());
}

/// Each row group is read once, not once for every row.
#[test]
fn a_diff_of_caches_in_other_orders_does_not_take_the_square_of_their_rows() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, other) = (temp.path().join("a"), temp.path().join("b"));
    write_synthetic_cache(&dir, 20_000, 1).unwrap();
    let cache = TokenCache::open(&dir).unwrap();
    in_another_order(&cache, &other);
    let started = std::time::Instant::now();
    let found = diff([&cache, &TokenCache::open(&other).unwrap()], 10, &mut |_, _| {}).unwrap();
    assert!(found.same && found.common_rows == 20_000, "{found:?}");
    // Well below a second alone; a minute and more where every row reads a block of others.
    assert!(started.elapsed().as_secs() < 15, "{:?}", started.elapsed());
}

/// A server goes on when a shard is cut, and reports it.
#[test]
#[cfg(target_os = "linux")]
fn a_lost_page_reads_as_zeros_where_that_was_asked_for() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("cache");
    write_synthetic_cache(&dir, 2000, 1).unwrap();
    tokengrid_cache::handle_lost_pages(tokengrid_cache::LostPages::Zeros);
    let cache = TokenCache::open(&dir).unwrap();
    let row = cache.packed_row(1999).to_vec();
    assert!(row.iter().any(|byte| *byte != 0) && cache.lost_shard().is_none());
    let shard = dir.join("shard-00000-00000.parquet");
    std::fs::OpenOptions::new().write(true).open(&shard).unwrap().set_len(4096).unwrap();
    assert!(cache.packed_row(1999).iter().all(|byte| *byte == 0));
    assert_eq!(cache.lost_shard(), Some(shard.as_path()));
    assert!(cache.meta(1999).is_err(), "what has a checksum is refused");
}
