//! Subsets by lists of images and of keys, and rows by a code.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::small_cache;
use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use tokengrid_cache::{CacheError, OpenMode, Selection, TokenCache, images_of_keys, rows_with_code, subset};

#[test]
fn listed_images_are_taken_and_nothing_else() {
    let (temp, dir) = small_cache();
    let out = temp.path().join("out");
    let cache = TokenCache::open(&dir).unwrap();
    let keys: HashSet<String> = [20, 3, 11].map(|image| cache.meta(image * 2).unwrap().key).into();
    let images = images_of_keys(&cache, &keys).unwrap();
    assert_eq!(images, [3, 11, 20]);
    let listed = |images: &[usize]| Selection { images: Some(images.to_vec()), ..Selection::default() };
    subset(&dir, &out, &listed(&images), OpenMode::Resume).unwrap();
    let part = TokenCache::open(&out).unwrap();
    for (row, of) in (0..6).zip([6, 7, 22, 23, 40, 41]) {
        assert_eq!(part.packed_row(row), cache.packed_row(of), "row {row}");
        assert_eq!(part.meta(row).unwrap().key, cache.meta(of).unwrap().key, "row {row}");
    }
    assert_eq!(part.num_rows(), 6);
    // The same images as ranges are the same job.
    let ranges = Selection { image_ranges: Some(vec![3..4, 11..12, 20..21]), ..Selection::default() };
    subset(&dir, &out, &ranges, OpenMode::Resume).unwrap();
    let beyond = Selection { image_ranges: Some(vec![3..4, 30..40]), ..Selection::default() };
    let beyond = subset(&dir, &temp.path().join("none"), &beyond, OpenMode::Resume);
    assert!(matches!(beyond, Err(CacheError::Selection { what: "image", .. })), "{beyond:?}");
    // The other conditions hold as well; another list is another job.
    let both = Selection { limit: Some(2), views: Some(1..2), ..listed(&images) };
    subset(&dir, &temp.path().join("both"), &both, OpenMode::Resume).unwrap();
    assert_eq!(TokenCache::open(&temp.path().join("both")).unwrap().num_rows(), 2);
    let other = subset(&dir, &out, &listed(&[3, 11, 21]), OpenMode::Resume);
    assert!(matches!(other, Err(CacheError::JobDiffers { .. })), "{other:?}");
    let missing = subset(&dir, &temp.path().join("none"), &listed(&[3, 34]), OpenMode::Resume);
    assert!(matches!(missing, Err(CacheError::Selection { what: "image", .. })), "{missing:?}");
    let unknown = images_of_keys(&cache, &["z".to_owned(), "x".to_owned()].into());
    assert!(matches!(&unknown, Err(CacheError::Selection { what: "key", actual, .. }) if actual == "x"), "{unknown:?}");
}

#[test]
fn a_code_is_found_in_every_row_that_has_it() {
    let (_temp, dir) = small_cache();
    let cache = TokenCache::open(&dir).unwrap();
    let mut tokens = vec![0; cache.grid().num_tokens()];
    cache.tokens_into(41, &mut tokens);
    let wanted = tokens[7];
    let expected: Vec<u32> = (0..cache.num_rows() as u32)
        .filter(|row| {
            cache.tokens_into(*row as usize, &mut tokens);
            tokens.contains(&wanted)
        })
        .collect();
    let never = AtomicBool::new(false);
    assert!(expected.contains(&41));
    assert_eq!(rows_with_code(&cache, wanted, &never).unwrap(), expected);
    assert!(rows_with_code(&cache, u32::MAX, &never).unwrap().is_empty());
    assert!(matches!(rows_with_code(&cache, wanted, &AtomicBool::new(true)), Err(CacheError::Cancelled)));
}
