//! Throughput of ingest: the resampler's kernels, JPEG decoding, whole files to views, and images out of Parquet, on the
//! bundled photographs. Optional code paths are measured with and without them.
//!
//! `cargo bench -p tokengrid-ingest`, or a part of it: `cargo bench -p tokengrid-ingest -- photographs`

#[path = "../tests/containers/parquet.rs"]
mod parquet_file;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use parquet::basic::Compression;
use parquet_file::{Layout, Row};
use std::hint::black_box;
use std::path::Path;
use tokengrid_ingest::{
    JpegEntropy, Kernel, Limits, Recipe, Region, Resampler, RgbImage, Source, SourceOptions, decode_rgb,
    set_memory_budget, target_size, views_of, views_of_file,
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
    decode_rgb(file, &Limits::default()).expect("a valid photograph")
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

/// One file after the other: decoded whole, and from file to view; by the entropy decoder of this crate, and by libjpeg's.
fn files(c: &mut Criterion) {
    let files = photos();
    let mut group = c.benchmark_group("photographs");
    group.throughput(Throughput::Elements(1));
    let recipe = Recipe::default();
    let mut run = |name: String, work: &dyn Fn(&[u8])| {
        let mut next = (0..files.len()).cycle();
        let mut file = || &files[next.next().expect("endless")][..];
        group.bench_function(name, |b| b.iter_batched(&mut file, work, BatchSize::SmallInput));
    };
    for (whose, jpeg_entropy) in [("own", JpegEntropy::Own), ("libjpeg's", JpegEntropy::Libjpeg)] {
        let limits = Limits { jpeg_entropy, ..Limits::default() };
        run(format!("decoded whole, {whose} entropy decoder"), &|file| {
            black_box(decode_rgb(file, &limits).expect("a valid photograph"));
        });
        run(format!("to a view, {whose} entropy decoder"), &|file| {
            black_box(views_of_file(file, "", &recipe, &limits).expect("views"));
        });
    }
    run("decoded whole, then to a view".to_owned(), &|file| {
        black_box(views_of(&decode(file), "", &recipe).expect("views"));
    });
    group.finish();
}

/// Images of a Parquet file, and how many of them a page holds.
const ROWS: usize = 480;
const ROWS_PER_PAGE: usize = 48;

/// Images of a Parquet file whose rows are shuffled, read in the order of their keys: alone, and with their pages. The cache of
/// decoded pages is limited to one or two, as it is by default for a data set of hundreds of gigabytes.
fn parquet_in_order_of_keys(c: &mut Criterion) {
    let (photos, folder) = (photos(), tempfile::tempdir().expect("temporary folder"));
    // 7 and 480 are coprime: neighbouring rows are far apart in the order of keys.
    let row = |i: usize| -> Row {
        (Some(photos[i % photos.len()].clone()), Some(format!("{:04}.JPEG", i * 7 % ROWS)), Some(0))
    };
    let rows: Vec<Row> = (0..ROWS).map(row).collect();
    set_memory_budget(16 << 20);
    let mut group = c.benchmark_group("Parquet in the order of keys");
    group.sample_size(10).throughput(Throughput::Elements(ROWS as u64));
    for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY] {
        let layout = Layout {
            compression,
            dictionary: false,
            rows_per_group: ROWS,
            rows_per_page: ROWS_PER_PAGE,
            ..Layout::default()
        };
        let path = folder.path().join("photos.parquet");
        parquet_file::write(&path, &rows, None, layout);
        for (how, whole_pages) in [("alone", false), ("with their pages", true)] {
            let options = SourceOptions { whole_pages, ..SourceOptions::default() };
            let read_all = || {
                let (source, mut bytes) = (Source::open(&path, &options).expect("a source"), Vec::new());
                (0..source.len()).for_each(|i| source.read(i, &mut bytes).expect("readable"));
            };
            group.bench_function(format!("{compression}, {how}"), |b| b.iter(read_all));
        }
    }
    group.finish();
}

criterion_group!(benches, resample, files, parquet_in_order_of_keys);
criterion_main!(benches);
