//! Guarantees of the stream of crops for a training run.

use super::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use tokengrid_model::Picture;

/// A folder of pictures of one colour each, in which file `i` is `[i * 5; 3]`; `broken` ones are not images.
fn colours(folder: &Path, count: u8, broken: &[u8]) -> PathBuf {
    let path = folder.join("photos");
    fs::create_dir_all(&path).unwrap();
    for i in 0..count {
        let picture = Picture::new(20 + usize::from(i % 3), 16, vec![i * 5; (20 + usize::from(i % 3)) * 16 * 3]);
        let bytes = if broken.contains(&i) { b"no image".to_vec() } else { picture.to_png() };
        fs::write(path.join(format!("{i:03}.png")), bytes).unwrap();
    }
    path
}

fn config() -> CropConfig {
    CropConfig { batch_size: 4, side: 8, seed: 7, threads: 1, ..CropConfig::default() }
}

fn take(images: &Arc<ImageSet>, config: CropConfig, position: u64, batches: usize) -> Vec<Vec<u8>> {
    let mut crops = Crops::start(images.clone(), config, position);
    (0..batches).map(|_| crops.next_batch().unwrap()).collect()
}

/// The file that each crop of the batches was cut from.
fn files(batches: &[Vec<u8>]) -> Vec<u8> {
    batches.iter().flat_map(|batch| batch.chunks_exact(8 * 8 * 3)).map(|crop| crop[0] / 5).collect()
}

#[test]
fn an_epoch_takes_every_photograph_once_in_its_own_order() {
    let folder = tempfile::tempdir().unwrap();
    let images = Arc::new(ImageSet::open(&colours(folder.path(), 20, &[]), &[]).unwrap());
    let (first, second) = (files(&take(&images, config(), 0, 5)), files(&take(&images, config(), 20, 5)));
    for epoch in [&first, &second] {
        let mut sorted = epoch.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..20).collect::<Vec<_>>());
    }
    assert_ne!(first, second);
    let other = CropConfig { seed: 8, ..config() };
    assert_ne!(first, files(&take(&images, other, 0, 5)), "another seed, another order");
}

/// Smooth noise, so that crops at different positions differ.
fn texture(path: &Path) {
    fs::create_dir_all(path).unwrap();
    for i in 0..5usize {
        let (width, height) = (40 + 7 * i, 31 + 3 * i);
        let rgb = (0..width * height * 3).map(|p| ((p * p / 7 + p * (i + 3)) % 251) as u8).collect();
        fs::write(path.join(format!("{i}.png")), Picture::new(width, height, rgb).to_png()).unwrap();
    }
}

#[test]
fn crops_depend_on_seed_and_number_only() {
    let folder = tempfile::tempdir().unwrap();
    texture(folder.path());
    let images = Arc::new(ImageSet::open(folder.path(), &[]).unwrap());
    let variants = [
        config(),
        CropConfig { flip: true, ..config() },
        CropConfig { random: false, ..config() },
        CropConfig { scale: [1.0, 3.0], flip: true, ..config() },
        CropConfig { scale: [2.0, 2.0], random: false, ..config() },
    ];
    for variant in variants {
        let stream = take(&images, variant.clone(), 0, 6);
        for threads in [2, 3, 7] {
            assert!(stream == take(&images, CropConfig { threads, ..variant.clone() }, 0, 6), "{threads} threads");
        }
        assert!(stream[3..] == take(&images, CropConfig { threads: 3, ..variant.clone() }, 12, 3), "resumed");
        let ranks = [0, 1]
            .map(|rank| take(&images, CropConfig { rank, world_size: 2, batch_size: 2, ..variant.clone() }, 0, 6));
        let joined: Vec<Vec<u8>> = (0..6).map(|g| [&ranks[0][g][..], &ranks[1][g][..]].concat()).collect();
        assert!(stream == joined, "two processes share the same stream");
    }
    let (random, centre) = (take(&images, config(), 0, 5), CropConfig { random: false, ..config() });
    assert_ne!(random, take(&images, centre, 0, 5));
}

#[test]
fn a_crop_equals_that_of_the_ingest_crate() {
    use tokengrid_ingest::{Limits, Recipe, Views, views_of_file};
    let folder = tempfile::tempdir().unwrap();
    texture(folder.path());
    let images = Arc::new(ImageSet::open(folder.path(), &[]).unwrap());
    let centre = Recipe { size: 8, views: Views::Center, ..Recipe::default() };
    let expected = |name: &str| {
        let file = fs::read(folder.path().join(name)).unwrap();
        views_of_file(&file, name, &centre, &Limits::default()).unwrap().remove(0).pixels
    };
    let of_file: BTreeMap<usize, Vec<u8>> = (0..5).map(|i| (i, expected(&format!("{i}.png")))).collect();
    let crops = take(&images, CropConfig { random: false, batch_size: 1, ..config() }, 0, 5);
    for (n, crop) in crops.iter().enumerate() {
        assert!(of_file[&images.image_of(7, n as u64)] == *crop, "crop {n}");
    }
}

#[test]
fn a_broken_photograph_is_replaced_by_the_next_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = colours(folder.path(), 12, &[3, 4, 11]);
    let images = Arc::new(ImageSet::open(&path, &[]).unwrap());
    assert_eq!((images.len(), images.num_bad()), (12, 0), "nothing is read when a source is opened");
    let mut seen = files(&take(&images, config(), 0, 3));
    seen.sort_unstable();
    assert_eq!(seen, [0, 0, 1, 2, 5, 5, 5, 6, 7, 8, 9, 10]);
    assert_eq!(images.num_bad(), 3);
    let again = Arc::new(ImageSet::open(&path, &[]).unwrap());
    let threads = CropConfig { threads: 3, ..config() };
    assert_eq!(
        take(&images, config(), 0, 5),
        take(&again, threads, 0, 5),
        "the stream does not depend on earlier reads"
    );
}

#[test]
fn too_many_broken_photographs_end_the_run_with_their_number() {
    let folder = tempfile::tempdir().unwrap();
    let broken: Vec<u8> = (0..30).step_by(2).collect();
    let images = Arc::new(ImageSet::open(&colours(folder.path(), 30, &broken), &[]).unwrap());
    let mut crops = Crops::start(images, CropConfig { threads: 2, ..config() }, 0);
    let error = (0..30).find_map(|_| crops.next_batch().err()).expect("15 of 30").to_string();
    assert!(error.contains("11 of 30 images are bad") && error.contains("tokengrid ingest"), "{error}");

    let none = Arc::new(ImageSet::open(&colours(folder.path(), 3, &[0, 1, 2]), &[]).unwrap());
    fs::read_dir(folder.path().join("photos"))
        .unwrap()
        .flatten()
        .skip(3)
        .for_each(|file| fs::remove_file(file.path()).unwrap());
    let error = Crops::start(none, config(), 0).next_batch().expect_err("nothing is left").to_string();
    assert!(error.contains("images are bad"), "{error}");
}
