//! How fast the pixels come: the resampler's kernels, JPEG decoding, and whole files to views, on the bundled photographs.
//!
//! `cargo bench -p tokengrid-ingest`

use std::hint::black_box;
use std::path::Path;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tokengrid_ingest::{
    Kernel, Limits, Recipe, Region, Resampler, RgbImage, Source, SourceOptions, decode_rgb, target_size,
    views_of, views_of_file,
};

/// The bundled photographs, as files.
fn photos() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/photos");
    let source =
        Source::open(&folder, &SourceOptions { limit: Some(24), ..SourceOptions::default() }).expect("photographs");
    let read = |i| {
        let mut file = Vec::new();
        source.read(i, &mut file).expect("a photograph");
        file
    };
    (0..source.len()).map(read).collect()
}

fn decode(file: &[u8]) -> RgbImage {
    decode_rgb(file, &Limits::default()).expect("a sound photograph")
}

/// The centre crop's pixels by every kernel of this processor.
fn resample(c: &mut Criterion) {
    let mut group = c.benchmark_group("resample to 256");
    for (width, height) in [(500, 375), (375, 500), (2000, 1500)] {
        let pixels = (0..width * height * 3).map(|i| (i % 251) as u8).collect();
        let image = RgbImage { width, height, pixels, warnings: 0 };
        let new_size = target_size(width, height, 256).expect("size");
        let region = Region { left: (new_size.0 - 256) / 2, top: (new_size.1 - 256) / 2, width: 256, height: 256 };
        for kernel in Kernel::ALL.into_iter().filter(|kernel| kernel.is_supported()) {
            let (mut resampler, mut out) = (Resampler::new(kernel), Vec::new());
            group.bench_function(format!("{width} x {height}, {kernel:?}"), |b| {
                b.iter(|| resampler.resize_region(black_box(&image), new_size, region, &mut out));
            });
        }
    }
    group.finish();
}

/// One file after the other: decoded whole, and from file to view.
fn files(c: &mut Criterion) {
    let files = photos();
    let mut group = c.benchmark_group("photographs");
    group.throughput(Throughput::Elements(1));
    let exact = Recipe::default();
    let mut run = |name: &str, work: &dyn Fn(&[u8])| {
        let mut next = (0..files.len()).cycle();
        let mut file = || &files[next.next().expect("endless")][..];
        group.bench_function(name, |b| b.iter_batched(&mut file, work, BatchSize::SmallInput));
    };
    run("decoded whole", &|file| {
        black_box(decode(file));
    });
    run("decoded whole, then to a view", &|file| {
        black_box(views_of(&decode(file), "", &exact).expect("views"));
    });
    run("to a view, as far as needed", &|file| {
        black_box(views_of_file(file, "", &exact, &Limits::default()).expect("views"));
    });
    group.finish();
}

criterion_group!(benches, resample, files);
criterion_main!(benches);
