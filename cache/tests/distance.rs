//! Rows that are near each other: nothing that is near is missed, whatever way it is looked for.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::{run, scramble, small_job};
use std::path::Path;
use tokengrid_cache::{
    CacheError, CacheWriter, GridSpec, JobSpec, LeakPair, NearRow, OpenMode, Row, TokenCache, leak, near_rows,
};

const GRID: GridSpec = GridSpec { height: 16, width: 16, bits: 18 };

fn random_grid(grid: GridSpec, seed: u64) -> Vec<u32> {
    (0..grid.num_tokens() as u64).map(|i| scramble(seed << 20 | i) as u32 & ((1 << grid.bits) - 1)).collect()
}

/// The grid with `flips` of its bits, chosen by `seed`, the other way round.
fn flipped(grid: GridSpec, mut tokens: Vec<u32>, flips: usize, seed: u64) -> Vec<u32> {
    let num_bits = tokens.len() * grid.bits as usize;
    let mut bits: Vec<usize> = (0..num_bits).collect();
    bits.sort_by_key(|bit| scramble(seed.wrapping_mul(1 << 20) ^ *bit as u64));
    for bit in &bits[..flips] {
        tokens[bit / grid.bits as usize] ^= 1 << (bit % grid.bits as usize);
    }
    tokens
}

fn write(dir: &Path, grid: GridSpec, rows: &[Vec<u32>]) -> TokenCache {
    let mut job = JobSpec::new(grid, rows.len(), 1);
    (job.rows_per_group, job.groups_per_shard) = (1500, 2);
    let mut writer = CacheWriter::open(dir, job, OpenMode::Resume).unwrap();
    for (image, tokens) in rows.iter().enumerate() {
        let key = format!("{image}.png");
        let row = Row { tokens, label: -1, key: &key, view: 0, crop_x: 0, crop_y: 0, flip: false };
        writer.push_image(image, &[row]).unwrap();
    }
    writer.finish().unwrap();
    TokenCache::open(dir).unwrap()
}

/// What comparing every two rows bit by bit finds.
fn all_pairs(train: &[Vec<u32>], val: &[Vec<u32>], distance: u32) -> Vec<LeakPair> {
    let mut pairs = Vec::new();
    for (row, a) in val.iter().enumerate() {
        for (train_row, b) in train.iter().enumerate() {
            let found: u32 = a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum();
            if found <= distance {
                pairs.push(LeakPair { distance: found, row, train_row });
            }
        }
    }
    pairs.sort();
    pairs
}

#[test]
fn planted_near_duplicates_of_0_to_200_bits_are_found_to_the_last_one() {
    let temp = tempfile::tempdir().unwrap();
    let train: Vec<_> = (0..3200).map(|seed| random_grid(GRID, seed)).collect();
    // Row i of the validation set is row 13 i of the training set but for i bits; others are of nobody's.
    let planted = (0..=200).map(|flips| flipped(GRID, train[13 * flips].clone(), flips, 7));
    let val: Vec<_> = planted.chain((0..50).map(|seed| random_grid(GRID, 1 << 30 | seed))).collect();
    let caches = [write(&temp.path().join("train"), GRID, &train), write(&temp.path().join("val"), GRID, &val)];
    let expected: Vec<_> =
        (0..=200).map(|flips| LeakPair { distance: flips as u32, row: flips, train_row: 13 * flips }).collect();
    for (distance, method) in [(0, "blocks"), (1, "blocks"), (57, "blocks"), (200, "blocks"), (700, "all")] {
        let mut last = (0, 0);
        let found =
            leak(&caches[0], &caches[1], distance, 1000, None, &mut |done, total| last = (done, total)).unwrap();
        let near = &expected[..=(distance as usize).min(200)];
        assert_eq!(found.listed, near, "within {distance}");
        assert_eq!((found.pairs, found.rows, found.method), (near.len() as u64, near.len() as u64, method));
        assert_eq!(last, (3200, 3200), "all rows were compared");
    }
    // The other way round, the smaller cache comes first.
    let found = leak(&caches[1], &caches[0], 200, 5, None, &mut |_, _| {}).unwrap();
    assert_eq!((found.pairs, found.rows), (201, 201));
    let turned = |pair: &LeakPair| LeakPair { row: pair.train_row, train_row: pair.row, ..*pair };
    assert_eq!(found.listed, expected[..5].iter().map(turned).collect::<Vec<_>>());
    // One query at a time.
    for flips in [0usize, 1, 100, 200] {
        let found = near_rows(&caches[0], &[caches[1].packed_row(flips)], 200, 3, None, &mut |_, _| {}).unwrap();
        assert_eq!(found.rows, [NearRow { distance: flips as u32, row: 13 * flips }]);
    }
}

#[test]
fn rows_that_are_all_alike_are_found_as_well() {
    let temp = tempfile::tempdir().unwrap();
    // Blank pictures: the same bits at most places of all grids, so that every block proposes most of the pairs.
    let blank = random_grid(GRID, 1);
    let rows = |count: u64, seed: u64| -> Vec<_> {
        (0..count).map(|i| flipped(GRID, blank.clone(), (scramble(seed + i) % 40) as usize, seed + i)).collect()
    };
    let (train, val) = (rows(2300, 1 << 32), rows(1700, 1 << 33));
    let caches = [write(&temp.path().join("train"), GRID, &train), write(&temp.path().join("val"), GRID, &val)];
    let found = leak(&caches[0], &caches[1], 30, usize::MAX, Some(2), &mut |_, _| {}).unwrap();
    let expected = all_pairs(&train, &val, 30);
    assert!(expected.len() > 100_000, "{}", expected.len());
    assert_eq!((found.pairs, found.method), (expected.len() as u64, "blocks"));
    assert!(found.listed == expected, "other pairs");
}

#[test]
fn grids_of_any_shape_and_distance_are_compared() {
    let temp = tempfile::tempdir().unwrap();
    for (number, grid) in [
        GridSpec { height: 1, width: 1, bits: 1 },
        GridSpec { height: 1, width: 3, bits: 5 },
        GridSpec { height: 4, width: 4, bits: 18 },
        GridSpec { height: 5, width: 7, bits: 13 },
    ]
    .into_iter()
    .enumerate()
    {
        let rows = |first: u64| -> Vec<_> { (first..first + 150).map(|seed| random_grid(grid, seed % 120)).collect() };
        let (train, val) = (rows(0), rows(100));
        let dirs = ["train", "val"].map(|name| temp.path().join(format!("{name}-{number}")));
        let caches = [write(&dirs[0], grid, &train), write(&dirs[1], grid, &val)];
        let num_bits = (grid.num_tokens() * grid.bits as usize) as u32;
        for distance in [0, 1, 2, 7, num_bits / 3, num_bits, u32::MAX - 1] {
            let found = leak(&caches[0], &caches[1], distance, usize::MAX, Some(1), &mut |_, _| {}).unwrap();
            assert_eq!(found.listed, all_pairs(&train, &val, distance), "{grid:?} within {distance}");
            let query = caches[1].packed_row(3);
            let near = near_rows(&caches[0], &[query], distance, usize::MAX, None, &mut |_, _| {}).unwrap();
            let expected = all_pairs(&train, &val[3..4], distance);
            let expected: Vec<_> =
                expected.iter().map(|pair| NearRow { distance: pair.distance, row: pair.train_row }).collect();
            assert_eq!((near.found, near.rows), (expected.len() as u64, expected), "{grid:?} within {distance}");
        }
    }
}

#[test]
fn a_cache_with_itself_gives_its_near_duplicates_once() {
    let temp = tempfile::tempdir().unwrap();
    let mut rows: Vec<_> = (0..100).map(|seed| random_grid(GRID, seed)).collect();
    rows.push(flipped(GRID, rows[40].clone(), 9, 3));
    let cache = write(&temp.path().join("cache"), GRID, &rows);
    let found = leak(&cache, &cache, 9, 10, None, &mut |_, _| {}).unwrap();
    assert_eq!((found.pairs, found.rows), (1, 1));
    assert_eq!(found.listed, [LeakPair { distance: 9, row: 100, train_row: 40 }]);
    // A copy is another cache: all of its rows are in the first one.
    let copy = write(&temp.path().join("copy"), GRID, &rows);
    let found = leak(&cache, &copy, 0, 10, None, &mut |_, _| {}).unwrap();
    assert_eq!((found.pairs, found.rows), (101, 101));
}

#[test]
fn several_queries_count_a_row_once_and_a_limit_cuts_the_list() {
    let temp = tempfile::tempdir().unwrap();
    let rows: Vec<_> = (0..60).map(|seed| random_grid(GRID, seed)).collect();
    let cache = write(&temp.path().join("cache"), GRID, &rows);
    let queries = [5, 9, 5].map(|row| cache.packed_row(row));
    let found = near_rows(&cache, &queries, 100, 10, None, &mut |_, _| {}).unwrap();
    assert_eq!(
        (found.found, found.rows),
        (2, vec![5, 9].into_iter().map(|row| NearRow { distance: 0, row }).collect())
    );
    let found = near_rows(&cache, &queries, u32::MAX, 1, None, &mut |_, _| {}).unwrap();
    assert_eq!((found.found, found.rows.len()), (60, 1));
}

#[test]
fn what_cannot_be_compared_is_refused_by_name() {
    let temp = tempfile::tempdir().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| temp.path().join(name));
    run(&a, &small_job(), OpenMode::Resume).unwrap();
    let mut other = small_job();
    other.tokenizer.fingerprint = "other".into();
    run(&b, &other, OpenMode::Resume).unwrap();
    let [a, b] = [&a, &b].map(|dir| TokenCache::open(dir).unwrap());
    let c = write(&c, GRID, &[random_grid(GRID, 1)]);
    for (val, expected) in [(&b, "tokenizer.fingerprint"), (&c, "grid")] {
        let error = leak(&a, val, 3, 3, None, &mut |_, _| {}).unwrap_err();
        assert!(matches!(error, CacheError::Requirement { field, .. } if field == expected), "{error}");
    }
    let error = near_rows(&a, &[c.packed_row(0)], 3, 3, None, &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, CacheError::InvalidGrid { .. }), "{error}");
}
