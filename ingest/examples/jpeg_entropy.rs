//! What the entropy decoder of this crate gains over libjpeg's: both decode every JPEG file of a source in turns.
//!
//!     cargo run --release -p tokengrid-ingest --example jpeg_entropy -- data/photos [ROUNDS]
//!
//! The time of a file is the shortest of all rounds, so that other work on the machine counts for little. Both give the same
//! pixels, which is checked. Files that are not JPEG, or of several scans, are left out: libjpeg decodes them either way.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};
use tokengrid_ingest::{JpegEntropy, Limits, Recipe, Source, SourceOptions, decode_rgb, views_of_file};

const WAYS: [JpegEntropy; 2] = [JpegEntropy::Own, JpegEntropy::Libjpeg];

/// What is done with a file.
type Work = fn(&[u8], &Limits);

const WORK: [(&str, Work); 2] = [
    ("whole picture", |file, limits| drop(black_box(decode_rgb(file, limits)))),
    ("centre crop of 256 pixels", |file, limits| drop(black_box(views_of_file(file, "", &Recipe::default(), limits)))),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = arguments.first().ok_or("usage: jpeg_entropy SOURCE [ROUNDS]")?;
    let rounds = arguments.get(1).map_or(Ok(20), |text| text.parse())?;
    let files = baseline_files(&Source::open(Path::new(folder), &SourceOptions::default())?)?;
    let bytes: usize = files.iter().map(Vec::len).sum();
    println!("{} JPEG files of one scan, {:.1} MB, the best of {rounds} rounds", files.len(), bytes as f64 / 1e6);
    for (what, work) in WORK {
        let [own, libjpeg] = shortest(&files, rounds, work).map(|time| time.as_secs_f64() * 1e3 / files.len() as f64);
        println!("{what:<26} own {own:.3} ms, libjpeg {libjpeg:.3} ms per file: {:.2} x", libjpeg / own);
    }
    Ok(())
}

/// The JPEG files with one scan. Both ways must give the same pixels.
fn baseline_files(source: &Source) -> Result<Vec<Vec<u8>>, Box<dyn std::error::Error>> {
    let mut files = Vec::new();
    for index in 0..source.len() {
        let mut file = Vec::new();
        source.read(index, &mut file)?;
        if file.starts_with(&[0xFF, 0xD8]) && num_scans(&file) == 1 {
            let [own, libjpeg] = WAYS.map(|jpeg_entropy| decode_rgb(&file, &limits(jpeg_entropy)));
            assert!(own == libjpeg, "{}: other pixels", source.key(index));
            files.push(file);
        }
    }
    if files.is_empty() { Err("no JPEG file of one scan".into()) } else { Ok(files) }
}

/// Start-of-scan markers. Entropy-coded data has a zero after every 0xFF, so that none occurs in it.
fn num_scans(file: &[u8]) -> usize {
    file.windows(2).filter(|pair| *pair == [0xFF, 0xDA]).count()
}

fn limits(jpeg_entropy: JpegEntropy) -> Limits {
    Limits { jpeg_entropy, ..Limits::default() }
}

/// Sums over all files of the shortest time, by way.
fn shortest(files: &[Vec<u8>], rounds: u32, work: Work) -> [Duration; 2] {
    let mut sums = [Duration::ZERO; 2];
    for file in files {
        let mut best = [Duration::MAX; 2];
        for _ in 0..rounds {
            for (best, way) in best.iter_mut().zip(WAYS) {
                let limits = limits(way);
                let start = Instant::now();
                work(file, &limits);
                *best = start.elapsed().min(*best);
            }
        }
        sums.iter_mut().zip(best).for_each(|(sum, best)| *sum += best);
    }
    sums
}
