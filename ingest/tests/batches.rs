//! Batches as an encoder sees them: the views of the stream, each in its slot, whatever the threads; memory is bounded, and
//! used again.

mod support;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::{golden, small_images};
use tokengrid_ingest::{BatchStream, ImageViews, Recipe, Source, SourceOptions, StreamConfig, ViewStream};

const SIZE: u32 = 48;
const VIEW_BYTES: usize = (SIZE * SIZE * 3) as usize;

fn golden_source() -> Arc<Source> {
    Arc::new(Source::open(&golden().join("in"), &SourceOptions::default()).expect("source"))
}

fn recipe(views: &str) -> Recipe {
    Recipe { size: SIZE, views: views.parse().expect(views), seed: 3, ..Recipe::default() }
}

fn config(threads: usize, in_flight: usize) -> StreamConfig {
    StreamConfig { threads, in_flight, ..StreamConfig::default() }
}

/// Batches must hold the views of `images`, in order and without gaps.
fn check_batches(batches: BatchStream, images: &[ImageViews], batch_views: usize, num_views: usize) {
    let batches: Vec<_> = batches.collect();
    assert_eq!(batches.len(), (images.len() * num_views).div_ceil(batch_views));
    let mut slot_in_all = 0;
    for batch in &batches {
        assert_eq!(batch.pixels().len(), batch_views * VIEW_BYTES, "always full");
        for (slot, pixels) in batch.slots().iter().zip(batch.pixels().chunks_exact(VIEW_BYTES)) {
            let (expected, view) = (&images[slot_in_all / num_views], slot_in_all % num_views);
            slot_in_all += 1;
            let image = &batch.images()[slot.image];
            assert_eq!(slot.view as usize, view);
            assert_eq!((image.index, image.label, image.warnings), (expected.index, expected.label, expected.warnings));
            assert_eq!(image.outcome.as_ref().err(), expected.outcome.as_ref().err());
            let Ok(views) = &expected.outcome else {
                assert!(pixels.iter().all(|&v| v == 0), "a bad image's slots are black");
                continue;
            };
            let (theirs, ours) = (&views[view], slot);
            assert_eq!((ours.crop_x, ours.crop_y, ours.flip), (theirs.crop_x, theirs.crop_y, theirs.flip));
            assert!(pixels == theirs.pixels, "{} view {view}", expected.key);
        }
        let unused = &batch.pixels()[batch.slots().len() * VIEW_BYTES..];
        assert!(unused.iter().all(|&v| v == 0), "places that nobody took are black");
    }
    assert_eq!(slot_in_all, images.len() * num_views);
}

#[test]
fn batches_hold_the_streams_views_in_order_whatever_the_threads() {
    let source = golden_source();
    let order: Vec<usize> = (0..source.len()).chain([2, 2, source.len() + 5, 0]).collect();
    for (views, batch_views) in
        [("center", 1), ("center", 16), ("random-crop:3", 7), ("ten-crop", 4), ("center+flip", 512)]
    {
        let recipe = recipe(views);
        let images: Vec<_> =
            ViewStream::spawn(Arc::clone(&source), order.clone().into_iter(), recipe, config(2, 4)).collect();
        for (threads, in_flight) in [(1, 1), (4, 9)] {
            let order = order.clone().into_iter();
            let batches =
                BatchStream::spawn(Arc::clone(&source), order, recipe, batch_views, config(threads, in_flight));
            check_batches(batches, &images, batch_views, recipe.num_views() as usize);
        }
    }
}

#[test]
fn memory_is_bounded_however_slow_the_consumer_or_the_first_image() {
    let root = tempfile::tempdir().expect("temporary folder");
    fs::write(root.path().join("0.jpg"), support::input("big_2000x1500.JPEG")).expect("file");
    (1..60).for_each(|i| {
        fs::write(root.path().join(format!("{i}.jpg")), support::input("tiny_17x13.JPEG")).expect("file");
    });
    let source = Arc::new(Source::open(root.path(), &SourceOptions::default()).expect("source"));
    let (in_flight, batch_views, num_views) = (6, 4, 2);
    for pause in [Duration::ZERO, Duration::from_millis(4)] {
        let claimed = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&claimed);
        let order = (0..60).inspect(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        let mut batches =
            BatchStream::spawn(Arc::clone(&source), order, recipe("center+flip"), batch_views, config(3, in_flight));
        let mut delivered = 0;
        while let Some(batch) = batches.next() {
            delivered += batch.images().len();
            std::thread::sleep(pause);
            assert!(claimed.load(Ordering::SeqCst) <= delivered + in_flight + 1, "claimed but not delivered");
            let bound = in_flight * num_views / batch_views + 2;
            assert!(batches.slabs() <= bound + 1, "{} slabs, one of them here", batches.slabs());
        }
        assert_eq!(delivered, 60);
        assert!(batches.slabs() >= 1);
    }
}

#[test]
fn a_consumer_may_keep_batches_and_they_outlive_the_stream() {
    let (_root, source) = small_images(64);
    let mut batches = BatchStream::spawn(Arc::clone(&source), 0..64, recipe("center"), 2, config(2, 4));
    let mut kept: Vec<_> = batches.by_ref().take(20).collect();
    assert!(batches.slabs() >= 20);
    kept.truncate(1);
    assert!(
        batches.slabs() <= 4 / 2 + 2 + 1 + 3,
        "memory beyond what the stream needs is given back: {}",
        batches.slabs()
    );
    drop(batches);
    assert_eq!(Arc::strong_count(&source), 1, "no worker is left that holds the source");
    assert!(kept[0].pixels().iter().any(|&v| v > 0));
    assert_eq!(kept[0].images()[1].index, 1);
}

#[test]
fn dropping_a_stream_of_batches_stops_an_endless_one() {
    let (_root, source) = small_images(4);
    for taken in [0, 1, 5] {
        let mut batches =
            BatchStream::spawn(Arc::clone(&source), (0..4).cycle(), recipe("random-crop:5"), 8, config(3, 6));
        assert_eq!(batches.by_ref().take(taken).count(), taken);
    }
    assert_eq!(Arc::strong_count(&source), 1, "no worker is left that holds the source");
}
