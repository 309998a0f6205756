//! In the steady state, an image causes no heap allocation on the Rust side. A separate test program, with a counting allocator.

mod support;

use std::fs;
use std::sync::Arc;
use tokengrid_ingest::{BatchStream, Recipe, Source, SourceOptions, StreamConfig, Views};
use tokengrid_test_support::heap::{Counting, allocations};

#[global_allocator]
static COUNTING: Counting = Counting;

/// Allocations of reading every image once: a path is built for each.
fn of_reading(source: &Source) -> u64 {
    let mut file = Vec::with_capacity(4 << 20);
    let before = allocations();
    (0..source.len()).for_each(|i| source.read(i, &mut file).expect("read"));
    allocations() - before
}

#[test]
fn a_warm_stream_of_batches_allocates_nothing_but_paths() {
    let root = tempfile::tempdir().expect("temporary folder");
    let names = [
        "jpeg_500x375_q95_s2.JPEG",
        "jpeg_375x500_q75_s2.JPEG",
        "jpeg_500x333_q92_s0.JPEG",
        "gray.JPEG",
        "tall_300x800.JPEG",
    ];
    for name in names {
        fs::write(root.path().join(name), support::input(name)).expect("file");
    }
    let source = Arc::new(Source::open(root.path(), &SourceOptions::default()).expect("source"));
    let images = source.len();
    let reading = of_reading(&source);
    for views in [Views::Center, Views::RandomCrop(3)] {
        let recipe = Recipe { size: 128, views, ..Recipe::default() };
        let config = StreamConfig { threads: 1, in_flight: 4, ..StreamConfig::default() };
        // As many views as the images have: a batch is one round of all images.
        let batch_views = images * recipe.num_views() as usize;
        let mut batches =
            BatchStream::spawn(Arc::clone(&source), (0..images).cycle().take(40 * images), recipe, batch_views, config);
        assert_eq!(batches.by_ref().take(10).count(), 10, "warm");
        let before = allocations();
        let rounds = 20;
        for batch in batches.by_ref().take(rounds) {
            assert!(batch.images().iter().all(|image| image.outcome.is_ok()));
        }
        let (per_round, slack) = ((allocations() - before) as f64 / rounds as f64, 1.5);
        // The worker may be ahead by the images in flight, so the paths of a few more images are counted.
        let paths = reading as f64 * (rounds as f64 + 1.0) / rounds as f64;
        assert!(per_round <= paths + slack, "{views}: {per_round} allocations per batch, {paths} of them for paths");
    }
}
