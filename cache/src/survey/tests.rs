//! A survey against its definition, on caches with a known shape.

use super::Survey;
use super::axes::Axes;
use super::byte_sums::{ByteSums, for_each_set_bit};
use super::pass::entropy_bits;
use super::store::SURVEY_FILE;
use crate::format::grid::GridSpec;
use crate::format::job::JobSpec;
use crate::format::row::Row;
use crate::permutation::mix;
use crate::read::cache::TokenCache;
use crate::write::writer::{CacheWriter, OpenMode};
use proptest::prelude::*;
use std::path::Path;
use std::sync::atomic::AtomicBool;

static NEVER: AtomicBool = AtomicBool::new(false);

/// Images of three classes in turn, two views each: grids of a class have its own bits at a third of the places.
fn clustered(dir: &Path, images: usize) -> TokenCache {
    let mut job = JobSpec::new(GridSpec { height: 5, width: 3, bits: 18 }, images, 2);
    job.rows_per_group = 64;
    let mut writer = CacheWriter::open(dir, job, OpenMode::Resume).unwrap();
    for image in 0..images {
        let label = image % 3;
        let grid = |view: usize| -> Vec<u32> {
            let token = |i: usize| if i.is_multiple_of(3) { label * 100 + i } else { (2 * image + view) * 1000 + i };
            (0..15).map(|i| mix(token(i) as u64) as u32 & 0x3FFFF).collect()
        };
        let (grids, key) = ([grid(0), grid(1)], image.to_string());
        let row =
            |(view, tokens)| Row { tokens, label: label as i32, key: &key, view, crop_x: 0, crop_y: 0, flip: false };
        let rows: Vec<Row> = (0..).zip(grids.iter().map(Vec::as_slice)).map(row).collect();
        writer.push_image(image, &rows).unwrap();
    }
    writer.finish().unwrap();
    TokenCache::open(dir).unwrap()
}

fn survey(cache: &TokenCache, threads: usize) -> Survey {
    Survey::of(cache, Some(threads), &NEVER, &mut |_, _| {}).unwrap()
}

fn bits(cache: &TokenCache, row: usize) -> Vec<f32> {
    let mut bits = vec![0.0; 8 * cache.grid().row_bytes()];
    for_each_set_bit(cache.packed_row(row), |bit| bits[bit] = 1.0);
    bits
}

#[test]
fn classes_lie_apart_on_the_map_and_distances_are_those_of_the_definition() {
    let temp = tempfile::tempdir().unwrap();
    let cache = clustered(&temp.path().join("cache"), 300);
    let mut seen = Vec::new();
    let found = Survey::of(&cache, Some(2), &NEVER, &mut |done, total| seen.push((done, total))).unwrap();
    assert!(seen.is_sorted() && seen.last() == Some(&(600, 600)), "{seen:?}");
    assert_eq!(survey(&cache, 1), found, "whatever the threads");
    // The nearest of all centres is that of the own class.
    let centre = |label: usize| {
        let rows: Vec<usize> = (0..600).filter(|row| row / 2 % 3 == label).collect();
        let mean = |values: &[u16]| rows.iter().map(|row| f64::from(values[*row])).sum::<f64>() / rows.len() as f64;
        [mean(&found.x), mean(&found.y)]
    };
    let centres = [centre(0), centre(1), centre(2)];
    for row in 0..600 {
        let far = |label: &usize| {
            let [x, y] = centres[*label];
            ((f64::from(found.x[row]) - x).hypot(f64::from(found.y[row]) - y) * 100.0) as u64
        };
        assert_eq!((0..3).min_by_key(far), Some(row / 2 % 3), "row {row}");
    }
    for label in 0..3 {
        let rows: Vec<usize> = (0..600).filter(|row| row / 2 % 3 == label).collect();
        let all: Vec<Vec<f32>> = rows.iter().map(|row| bits(&cache, *row)).collect();
        for (row, bits) in rows.iter().zip(&all) {
            let differing = |other: &Vec<f32>| bits.iter().zip(other).filter(|(a, b)| a != b).count();
            let expected = all.iter().map(differing).sum::<usize>() as f32 / (all.len() - 1) as f32;
            assert!((found.class_distance_bits(*row) - expected).abs() < 0.02, "row {row}: {expected}");
        }
    }
    assert!((found.entropy_bits(0) - 15f32.log2()).abs() < 1e-3, "all tokens differ");
}

#[test]
fn the_axes_are_those_of_the_largest_spread() {
    let temp = tempfile::tempdir().unwrap();
    let cache = clustered(&temp.path().join("cache"), 90);
    let found = survey(&cache, 1);
    let place = Axes::of(&cache, &NEVER).unwrap().place(cache.packed_row(77));
    assert_eq!(place, [found.x[77], found.y[77]]);
    // Three clusters span a plane: within a class there is less spread than between classes, along both axes.
    for values in [&found.x, &found.y] {
        let variance = |rows: &[usize]| {
            let mean = rows.iter().map(|row| f64::from(values[*row])).sum::<f64>() / rows.len() as f64;
            rows.iter().map(|row| (f64::from(values[*row]) - mean).powi(2)).sum::<f64>() / rows.len() as f64
        };
        let of = |label: usize| (0..180).filter(|row| row / 2 % 3 == label).collect::<Vec<_>>();
        let within = (0..3).map(|label| variance(&of(label))).sum::<f64>() / 3.0;
        assert!(variance(&(0..180).collect::<Vec<_>>()) > 4.0 * within, "{within}");
        let (least, most) = (values.iter().min().unwrap(), values.iter().max().unwrap());
        assert!(*least > 1000 && *most < 64_500 && most - least > 50_000, "the map is filled: {least} to {most}");
    }
}

#[test]
fn a_kept_survey_is_the_same_and_one_that_was_altered_is_made_again() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("cache");
    let cache = clustered(&dir, 40);
    let computed = |cache: &TokenCache| {
        let mut rows = 0;
        let found = Survey::load_or_compute(cache, None, None, &NEVER, &mut |_, _| rows += 1).unwrap();
        (found, rows > 0)
    };
    let (first, was_computed) = computed(&cache);
    assert!(was_computed);
    assert_eq!(computed(&cache), (first.clone(), false));
    let path = dir.join(SURVEY_FILE);
    let whole = std::fs::read(&path).unwrap();
    for at in [0, 9, 13, 30, 90, 200, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(computed(&cache), (first.clone(), true), "byte {at}");
    }
    for wrong in [&whole[..whole.len() - 1], &[whole.as_slice(), b"x"].concat(), b""] {
        std::fs::write(&path, wrong).unwrap();
        assert_eq!(Survey::load(&cache, None), None);
    }
    let cancelled = Survey::of(&cache, None, &AtomicBool::new(true), &mut |_, _| {});
    assert!(matches!(cancelled, Err(crate::error::CacheError::Cancelled)));
}

#[test]
fn caches_without_rows_and_of_one_grid_have_a_map() {
    let temp = tempfile::tempdir().unwrap();
    assert!(survey(&clustered(&temp.path().join("none"), 0), 2).x.is_empty());
    let dir = temp.path().join("same");
    let mut writer =
        CacheWriter::open(&dir, JobSpec::new(GridSpec { height: 2, width: 2, bits: 4 }, 3, 1), OpenMode::Resume)
            .unwrap();
    for image in 0..3 {
        let key = image.to_string();
        let row = Row { tokens: &[7; 4], label: -1, key: &key, view: 0, crop_x: 0, crop_y: 0, flip: false };
        writer.push_image(image, &[row]).unwrap();
    }
    writer.finish().unwrap();
    let found = survey(&TokenCache::open(&dir).unwrap(), 2);
    assert!(found.x.iter().chain(&found.y).all(|place| (32_000..33_500).contains(place)), "{found:?}");
    assert_eq!((found.entropy_bits(1), found.class_distance_bits(2)), (0.0, 0.0));
}

proptest! {
    #[test]
    fn sums_by_bytes_are_sums_by_bits(grid in prop::collection::vec(any::<u8>(), 0..9), seed in any::<u64>()) {
        let weights: Vec<[f32; 2]> = (0..8 * grid.len() as u64)
            .map(|bit| [(mix(seed ^ bit) % 100) as f32, (mix(seed ^ bit ^ 7777) % 100) as f32 - 50.0])
            .collect();
        let mut expected = [0.0; 2];
        for_each_set_bit(&grid, |bit| (0..2).for_each(|i| expected[i] += weights[bit][i]));
        prop_assert_eq!(ByteSums::new(&weights).of(&grid), expected);
    }

    #[test]
    fn entropy_is_that_of_the_counts(tokens in prop::collection::vec(0u32..4, 1..40)) {
        let count = |code: u32| tokens.iter().filter(|token| **token == code).count() as f64 / tokens.len() as f64;
        let expected: f64 = (0..4).map(count).filter(|share| *share > 0.0).map(|share| -share * share.log2()).sum();
        prop_assert!((f64::from(entropy_bits(&mut tokens.clone())) - expected).abs() < 1e-5);
    }
}
