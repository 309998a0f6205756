//! The stream as its consumer sees it: everything, in order, in bounded memory, whatever the threads; and it ends when dropped.

mod support;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::{golden, small_images};
use tokengrid_ingest::{
    ImageViews, Limits, Orientation, Recipe, Source, SourceOptions, Stage, StreamConfig, ViewStream, Views, decode_rgb,
    jpeg_simd, views_of, views_of_file,
};

fn golden_source() -> Arc<Source> {
    Arc::new(Source::open(&golden().join("in"), &SourceOptions::default()).expect("source"))
}

fn recipe() -> Recipe {
    Recipe { size: 64, views: Views::RandomCrop(2), seed: 1, ..Recipe::default() }
}

fn config(threads: usize, in_flight: usize) -> StreamConfig {
    StreamConfig { threads, in_flight, limits: Limits::default() }
}

#[test]
fn results_come_in_the_order_asked_for_and_do_not_depend_on_threads() {
    let source = golden_source();
    let order: Vec<usize> = (0..source.len()).rev().chain([3, 3, 0]).collect();
    let run = |threads, in_flight| -> Vec<ImageViews> {
        ViewStream::spawn(Arc::clone(&source), order.clone().into_iter(), recipe(), config(threads, in_flight))
            .collect()
    };
    let one = run(1, 1);
    assert_eq!(one.iter().map(|image| image.index).collect::<Vec<_>>(), order);
    for (threads, in_flight) in [(4, 3), (2, 64), (8, 8)] {
        for (a, b) in one.iter().zip(run(threads, in_flight)) {
            assert_eq!((&a.key, a.label, a.warnings), (&b.key, b.label, b.warnings));
            assert_eq!(a.outcome, b.outcome, "{} with {threads} threads", a.key);
        }
    }
}

#[test]
fn bad_images_are_handed_over_with_their_reason_and_the_rest_goes_on() {
    let source = golden_source();
    let mut stream = ViewStream::spawn(Arc::clone(&source), 0..source.len(), recipe(), config(2, 4));
    let images: Vec<ImageViews> = stream.by_ref().collect();
    let expected = support::expectations();
    assert_eq!(images.len(), expected.len());
    for image in &images {
        let (_, entry) = expected.iter().find(|(name, _)| *name == image.key).expect("every key is a file's name");
        assert_eq!(image.outcome.is_ok(), entry["ok"] == true, "{}", image.key);
        match &image.outcome {
            Ok(views) => assert!(views.len() == 2 && views.iter().all(|v| v.pixels.len() == 64 * 64 * 3)),
            Err(bad) => assert!(bad.stage == Stage::Decode && !bad.reason.is_empty(), "{bad}"),
        }
    }
    let (times, bad) = (stream.times(), images.iter().filter(|image| image.outcome.is_err()).count());
    assert_eq!((times.images, times.bad), (images.len() as u64, bad as u64));
    assert!(times.bytes > 500_000 && times.decode > Duration::ZERO && times.resize > Duration::ZERO);
    let (slowest, share) = times.slowest().expect("something was done");
    assert!(share > 0.33 && slowest != Stage::Read, "{slowest} {share}");
    let flagged: Vec<_> = images.iter().filter(|image| image.warnings > 0).map(|image| image.key.as_str()).collect();
    assert_eq!(flagged, ["bad_bitrot.JPEG", "crc_wrong_data_right.png"]);
}

#[test]
fn the_streams_views_are_those_of_the_whole_image() {
    // The stream decodes only what the crops need; `decode_rgb` and `views_of` know nothing of that.
    let source = golden_source();
    for views in ["center", "center+flip", "random-crop:2", "ten-crop:1.1"] {
        let recipe = Recipe { size: 96, views: views.parse().expect(views), seed: 5, ..Recipe::default() };
        for image in ViewStream::spawn(Arc::clone(&source), 0..source.len(), recipe, config(2, 4)) {
            let Ok(streamed) = image.outcome else { continue };
            let whole = decode_rgb(&support::input(&image.key), &Limits::default()).expect("accepted as well");
            assert_eq!(image.warnings, whole.warnings);
            assert!(streamed == views_of(&whole, &image.key, &recipe).expect("views"), "{} {views}", image.key);
        }
    }
}

#[test]
fn streamed_images_equal_the_reference_to_the_bit() {
    let (source, outputs) = (golden_source(), support::outputs());
    let mut compared = 0;
    for size in [128, 256] {
        let recipe = Recipe { size, ..Recipe::default() };
        for image in ViewStream::spawn(Arc::clone(&source), 0..source.len(), recipe, config(2, 4)) {
            let Some(output) = outputs.get(&format!("{}.{size}", image.key)) else { continue };
            if image.warnings > 0 && !jpeg_simd() {
                continue;
            }
            let views = image.outcome.expect("accepted by the reference");
            output.assert_same(&image.key, &views[0].pixels);
            compared += 1;
        }
    }
    assert!(compared > 40, "{compared}");
}

#[test]
fn exif_orientations_are_applied_as_pillow_does_if_the_recipe_says_so() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/orientation");
    let names: Vec<String> = (1..=8).map(|orientation| format!("{orientation}.jpg")).collect();
    let upright = |name: &str| support::read_png(&folder.join(name).with_extension("png")).pixels;
    let run = |orientation| {
        let recipe = Recipe { size: 32, orientation, ..Recipe::default() };
        let views = |name: &String| {
            let bytes = fs::read(folder.join(name)).expect("fixture");
            views_of_file(&bytes, name, &recipe, &Limits::default()).expect("sound").remove(0).pixels
        };
        names.iter().map(views).collect::<Vec<_>>()
    };
    for (name, pixels) in names.iter().zip(run(Orientation::Apply)) {
        support::assert_same_pixels(name, &pixels, &upright(name));
    }
    let ignored = run(Orientation::Ignore);
    support::assert_same_pixels("as stored", &ignored[5], &upright("1.jpg"));
    assert!(ignored.iter().all(|pixels| *pixels == ignored[0]));
}

#[test]
fn a_file_that_vanished_is_bad_at_reading() {
    let (root, source) = small_images(3);
    fs::remove_file(root.path().join("00001.jpg")).expect("removed");
    let outcomes: Vec<_> = ViewStream::spawn(source, 0..4, recipe(), config(2, 2)).map(|i| i.outcome).collect();
    let stages: Vec<_> = outcomes.iter().map(|o| o.as_ref().err().map(|bad| bad.stage)).collect();
    assert_eq!(stages, [None, Some(Stage::Read), None, Some(Stage::Read)], "the fourth position does not exist");
}

#[test]
fn no_more_images_are_claimed_than_may_be_in_flight() {
    let (_root, source) = small_images(64);
    let claimed = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&claimed);
    let order = (0..64).inspect(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let mut stream = ViewStream::spawn(source, order, recipe(), config(4, 5));
    for delivered in 0..64 {
        std::thread::sleep(Duration::from_millis(3));
        let claimed = claimed.load(Ordering::SeqCst);
        assert!(claimed <= delivered + 5, "{claimed} claimed with {delivered} delivered");
        assert_eq!(stream.next().map(|image| image.index), Some(delivered));
    }
    assert!(stream.next().is_none() && stream.next().is_none());
    assert!(stream.times().blocked > Duration::ZERO, "workers waited for the slow consumer");
}

#[test]
fn dropping_a_stream_stops_an_endless_one() {
    let (_root, source) = small_images(4);
    for taken in [0, 1, 7] {
        let mut stream = ViewStream::spawn(Arc::clone(&source), (0..4).cycle(), recipe(), config(3, 6));
        assert_eq!(stream.by_ref().take(taken).count(), taken);
        let start = Instant::now();
        drop(stream);
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    assert_eq!(Arc::strong_count(&source), 1, "no worker is left that holds the source");
}

#[test]
fn an_empty_order_ends_at_once() {
    let (_root, source) = small_images(1);
    let mut stream = ViewStream::spawn(source, std::iter::empty(), recipe(), config(0, 0));
    assert!(stream.next().is_none());
    assert_eq!(stream.times().slowest(), None);
}

#[test]
fn a_panic_of_the_order_reaches_the_consumer() {
    let (_root, source) = small_images(4);
    let order = (0..4).inspect(|i| assert!(*i < 2, "the order is broken"));
    let mut stream = ViewStream::spawn(source, order, recipe(), config(2, 4));
    let result = catch_unwind(AssertUnwindSafe(|| stream.by_ref().count()));
    let panic = result.expect_err("the panic is passed on");
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"the order is broken"));
    drop(stream);
}

#[test]
fn limits_apply_to_every_image() {
    let (_root, source) = small_images(1);
    let limits = Limits { max_pixels: 17 * 13 - 1, ..Limits::default() };
    let mut stream = ViewStream::spawn(source, 0..1, recipe(), StreamConfig { limits, ..config(1, 1) });
    let bad = stream.next().expect("one image").outcome.expect_err("too large");
    assert!(bad.reason.contains("17 x 13") && bad.reason.contains("220"), "{bad}");
}
