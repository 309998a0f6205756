//! Streams whose stages are delayed.

use super::*;
use crate::{BatchStream, Recipe, Source, SourceOptions, StreamConfig, Views};
use std::sync::Arc;
use tempfile::TempDir;

fn small_images(count: usize) -> (TempDir, Arc<Source>) {
    let input = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/preprocess/in/tiny_17x13.JPEG");
    let root = tempfile::tempdir().unwrap();
    for i in 0..count {
        std::fs::copy(input, root.path().join(format!("{i:05}.jpg"))).unwrap();
    }
    let source = Source::open(root.path(), &SourceOptions::default()).unwrap();
    (root, Arc::new(source))
}

fn recipe() -> Recipe {
    Recipe { size: 8, views: Views::Center, ..Recipe::default() }
}

fn config(threads: usize, in_flight: usize) -> StreamConfig {
    StreamConfig { threads, in_flight, ..StreamConfig::default() }
}

#[test]
fn order_holds_when_images_take_different_times() {
    let (_root, source) = small_images(80);
    let order = (0..80).inspect(|i| std::thread::sleep(Duration::from_micros(i * 7919 % 900)));
    let order: Box<dyn Iterator<Item = u64> + Send> = Box::new(order);
    let batches = BatchStream::spawn(source, order.map(|i| i as usize), recipe(), 3, config(8, 16));
    let counters = batches.counters();
    let mut seen = vec![];
    for batch in batches {
        // The delay changes while images are in flight: later ones overtake earlier ones.
        counters.slow_down(Stage::Decode, Duration::from_micros(seen.len() as u64 * 7919 % 700));
        seen.extend(batch.images().iter().map(|image| image.index));
    }
    assert_eq!(seen, (0..80).collect::<Vec<_>>());
}

#[test]
fn the_slowest_stage_is_named() {
    let (_root, source) = small_images(12);
    for slow in Stage::ALL {
        let mut batches = BatchStream::spawn(Arc::clone(&source), 0..12, recipe(), 1, config(2, 2));
        let counters = batches.counters();
        counters.slow_down(slow, Duration::from_millis(30));
        for _batch in batches.by_ref() {
            counters.timed(Stage::Encode, || {});
            counters.timed(Stage::Write, || {});
        }
        let (stage, share) = batches.times().slowest().expect("a stage has run");
        assert_eq!(stage, slow);
        assert!(share > 0.5 && share <= 1.0, "{stage}: {share}");
    }
}
