//! The stream of samples: complete, even, the same for any number of processes, and resumable anywhere.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokengrid_cache::{Batch, CacheError, GridSpec, JobSpec, Loader, LoaderConfig, LoaderState, OpenMode, TokenCache};

fn cache_of(images: usize, views: u32, classes: usize) -> (tempfile::TempDir, Arc<TokenCache>) {
    let temp = tempfile::tempdir().unwrap();
    let mut job = JobSpec::new(GridSpec { height: 2, width: 2, bits: 18 }, images, views);
    job.classes = (0..classes).map(|i| format!("class {i}")).collect();
    job.rows_per_group = 64;
    run(temp.path(), &job, OpenMode::Resume).unwrap();
    let cache = Arc::new(TokenCache::open(temp.path()).unwrap());
    (temp, cache)
}

fn loader(cache: &Arc<TokenCache>, seed: u64, batch_size: usize, rank: usize, world_size: usize) -> Loader {
    Loader::new(Arc::clone(cache), LoaderConfig { seed, batch_size, rank, world_size }).unwrap()
}

/// The first rows of the stream, as one process sees them.
fn stream(cache: &Arc<TokenCache>, seed: u64, samples: usize) -> Vec<usize> {
    let mut loader = loader(cache, seed, 1, 0, 1);
    let mut batch = Batch::default();
    let mut rows = Vec::new();
    for _ in 0..samples {
        loader.next_batch(&mut batch);
        rows.extend(&batch.rows);
    }
    rows
}

#[test]
fn every_image_once_an_epoch_and_every_view_once_a_block() {
    for (images, views) in [(1, 1), (2, 3), (101, 4), (64, 1), (97, 10)] {
        let (_temp, cache) = cache_of(images, views, 1);
        let epochs = 2 * views as usize + 5;
        let mut loader = loader(&cache, 11, 7, 0, 1);
        let mut batch = Batch::default();
        let mut rows: Vec<usize> = Vec::new();
        while rows.len() < epochs * images {
            loader.next_batch(&mut batch);
            rows.extend(&batch.rows);
        }
        let mut orders = Vec::new();
        for epoch in rows.chunks_exact(images).take(epochs) {
            let mut order: Vec<_> = epoch.iter().map(|row| row / views as usize).collect();
            orders.push(order.clone());
            order.sort_unstable();
            assert_eq!(order, (0..images).collect::<Vec<_>>(), "each image exactly once");
        }
        if images > 50 {
            assert!(orders.windows(2).all(|pair| pair[0] != pair[1]), "another order every epoch");
        }
        for block in 0..2 {
            let from = block * views as usize * images;
            let mut seen: Vec<_> = rows[from..from + views as usize * images].to_vec();
            seen.sort_unstable();
            assert_eq!(seen, (0..images * views as usize).collect::<Vec<_>>(), "each view once before any repeats");
        }
    }
}

#[test]
fn batches_hold_what_the_rows_hold() {
    let (_temp, cache) = cache_of(50, 3, 5);
    let mut loader = loader(&cache, 1, 16, 0, 1);
    let mut batch = Batch::default();
    for _ in 0..20 {
        loader.next_batch(&mut batch);
        assert_eq!((batch.rows.len(), batch.labels.len(), batch.tokens.len()), (16, 16, 16 * 4));
        for (i, row) in batch.rows.iter().enumerate() {
            let expected = tokens_of(cache.grid(), row / 3, (row % 3) as u32);
            assert!(batch.tokens[i * 4..][..4].iter().zip(expected).all(|(a, b)| *a == i64::from(b)));
            assert_eq!(batch.labels[i], i64::from(cache.label(*row)));
        }
    }
}

/// Takes `batches` global batches with `world_size` processes from `state` on; returns their rows and the state after.
fn global(
    cache: &Arc<TokenCache>,
    state: LoaderState,
    global_batch: usize,
    world_size: usize,
    batches: usize,
) -> (Vec<usize>, LoaderState) {
    let mut loaders: Vec<_> =
        (0..world_size).map(|rank| loader(cache, 0, global_batch / world_size, rank, world_size)).collect();
    loaders.iter_mut().for_each(|loader| loader.restore(state));
    let mut batch = Batch::default();
    let mut rows = Vec::new();
    for _ in 0..batches {
        for loader in &mut loaders {
            loader.next_batch(&mut batch);
            rows.extend(&batch.rows);
        }
    }
    assert!(loaders.iter().all(|loader| loader.state() == loaders[0].state()));
    (rows, loaders[0].state())
}

#[test]
fn eight_ranks_then_four_then_one_see_the_unbroken_stream() {
    let (_temp, cache) = cache_of(103, 2, 3);
    let unbroken = stream(&cache, 5, 60 * 24);
    let start = LoaderState { seed: 5, position: 0 };
    for world_size in [1, 2, 3, 4, 8, 24] {
        assert_eq!(global(&cache, start, 24, world_size, 60).0, unbroken, "{world_size} ranks");
    }
    let mut resumed = Vec::new();
    let mut state = start;
    for (world_size, batches) in [(8, 17), (4, 9), (1, 21), (2, 13)] {
        // Through JSON, as a checkpoint would keep it.
        state = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
        let (rows, after) = global(&cache, state, 24, world_size, batches);
        resumed.extend(rows);
        state = after;
    }
    assert_eq!(resumed, unbroken);
    // The batch size may change too: the stream goes on where it was.
    let (rows, _) = global(&cache, LoaderState { seed: 5, position: 100 }, 10, 5, 20);
    assert_eq!(rows, unbroken[100..300]);
}

#[test]
fn seeking_equals_reading_up_to_there() {
    let (_temp, cache) = cache_of(41, 3, 1);
    let unbroken = stream(&cache, 9, 400);
    let mut loader = loader(&cache, 9, 1, 0, 1);
    let mut batch = Batch::default();
    for position in [0, 1, 40, 41, 42, 122, 123, 399, 5] {
        loader.seek(position);
        assert_eq!((loader.position(), loader.epoch()), (position, position / 41));
        assert!((loader.epoch_fraction() - position as f64 / 41.0).abs() < 1e-12);
        loader.next_batch(&mut batch);
        assert_eq!(batch.rows[0], unbroken[position as usize], "position {position}");
    }
    // Far out: an epoch that nobody could have read up to.
    loader.seek(41 * 1_000_000_007 + 5);
    loader.next_batch(&mut batch);
    assert_eq!(loader.epoch(), 1_000_000_007);
}

#[test]
fn seeds_give_different_streams_and_the_same_seed_the_same() {
    let (_temp, cache) = cache_of(200, 2, 1);
    assert_eq!(stream(&cache, 1, 500), stream(&cache, 1, 500));
    assert_ne!(stream(&cache, 1, 500), stream(&cache, 2, 500));
}

/// On input that is sorted by class, every class is spread evenly over the epoch: Pearson's statistic of 10 classes by
/// 20 parts of the epoch has 9 x 19 degrees of freedom. And no class clumps: neighbours share one as often as chance
/// has it.
#[test]
fn class_sorted_input_is_mixed() {
    let (images, classes, parts) = (4000, 10usize, 20usize);
    let (_temp, cache) = cache_of(images, 1, classes);
    assert!((0..images - 1).all(|row| cache.label(row) <= cache.label(row + 1)), "the input is sorted");
    for seed in 0..10 {
        let rows = stream(&cache, seed, images);
        let mut counts: BTreeMap<(i32, usize), u32> = BTreeMap::new();
        for (place, row) in rows.iter().enumerate() {
            *counts.entry((cache.label(*row), place * parts / images)).or_default() += 1;
        }
        let expected = images as f64 / (classes * parts) as f64;
        let empty = (classes * parts - counts.len()) as f64 * expected;
        let found = empty + counts.values().map(|n| (f64::from(*n) - expected).powi(2) / expected).sum::<f64>();
        let freedom = ((classes - 1) * (parts - 1)) as f64;
        assert!((found - freedom).abs() < 4.0 * (2.0 * freedom).sqrt(), "seed {seed}: {found}, expected {freedom}");

        let same = rows.windows(2).filter(|pair| cache.label(pair[0]) == cache.label(pair[1])).count() as f64;
        let chance = images as f64 / classes as f64;
        assert!((same - chance).abs() < 5.0 * chance.sqrt(), "seed {seed}: {same} neighbours of one class");
    }
}

/// The views of different images are chosen independently: in every epoch each view is about as frequent.
#[test]
fn views_are_mixed_within_an_epoch() {
    let (images, views) = (5000, 4u32);
    let (_temp, cache) = cache_of(images, views, 1);
    let rows = stream(&cache, 3, images * 4);
    for (epoch, rows) in rows.chunks_exact(images).enumerate() {
        let mut counts = [0f64; 4];
        rows.iter().for_each(|row| counts[row % 4] += 1.0);
        let found: f64 = counts.iter().map(|n| (n - 1250.0).powi(2) / 1250.0).sum();
        assert!(found < 21.1, "epoch {epoch}: {counts:?}"); // p = 0.0001 at 3 degrees of freedom
    }
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let (_temp, cache) = cache_of(3, 1, 1);
    for (batch_size, rank, world_size, field) in
        [(0, 0, 1, "batch_size"), (1, 0, 0, "world_size"), (1, 1, 1, "rank"), (1, 9, 4, "rank")]
    {
        let config = LoaderConfig { seed: 0, batch_size, rank, world_size };
        let error = Loader::new(Arc::clone(&cache), config).unwrap_err();
        assert!(matches!(error, CacheError::InvalidLoader { field: f, .. } if f == field), "{error}");
    }
    let (_temp, empty) = cache_of(0, 1, 1);
    let config = LoaderConfig { seed: 0, batch_size: 1, rank: 0, world_size: 1 };
    assert!(matches!(Loader::new(empty, config), Err(CacheError::Empty { .. })));
}

#[test]
fn caches_and_loaders_cross_threads() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<TokenCache>();
    is_shared::<Loader>();
}
