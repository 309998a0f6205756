//! Files of tokens of other programs: an `.npz` per image, WebDataset shards.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::*;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokengrid_cache::{
    CacheError, CacheWriter, GridSpec, ImportOptions, JobSpec, OpenMode, Row, Split, TokenCache, export_npy,
    export_npz, export_webdataset, import_npz, import_webdataset, npy, on_copy, verify,
};
use zip::write::SimpleFileOptions;

const RESUME: OpenMode = OpenMode::Resume;

/// What a row says, by key and view.
type Rows = BTreeMap<(String, u32), (i32, bool, Vec<u8>)>;

fn rows_of(cache: &TokenCache) -> Rows {
    let row = |row: usize| {
        let meta = cache.meta(row).unwrap();
        ((meta.key, meta.view), (meta.label, meta.flip, cache.packed_row(row).to_vec()))
    };
    (0..cache.num_rows()).map(row).collect()
}

fn sound(dir: &Path) -> TokenCache {
    let report = verify(dir, &mut |_, _| {}).unwrap();
    assert!(report.is_ok(), "{report:?}");
    TokenCache::open(dir).unwrap()
}

fn shards_in(dir: &Path) -> Vec<std::path::PathBuf> {
    names(dir).iter().filter(|name| name.ends_with(".tar")).map(|name| dir.join(name)).collect()
}

#[test]
fn an_npz_per_image_goes_out_and_comes_back() {
    let (temp, dir) = small_cache();
    let cache = TokenCache::open(&dir).unwrap();
    let (out, again) = (temp.path().join("out"), temp.path().join("again"));
    assert_eq!(export_npz(&cache, &out, RESUME).unwrap(), ["npz"]);
    assert_eq!(names(&out.join("npz")), ["n00000000", "n00000001", "n00000002", "n00000003"]);
    let options = ImportOptions { bits: Some(18), ..ImportOptions::default() };
    import_npz(&out.join("npz"), &options, &again, RESUME).unwrap();
    let found = sound(&again);
    assert_eq!((found.grid(), &found.manifest().classes), (cache.grid(), &cache.manifest().classes));
    assert_eq!(rows_of(&found), rows_of(&cache));
    // The same bytes at any time, and nothing is replaced that somebody else may have made.
    let second = temp.path().join("second");
    export_npz(&cache, &second, RESUME).unwrap();
    let key = cache.meta(0).unwrap().key;
    let file = |out: &Path| out.join("npz").join(format!("{key}.npz"));
    assert!(fs::read(file(&out)).unwrap() == fs::read(file(&second)).unwrap());
    assert!(matches!(export_npz(&cache, &out, RESUME), Err(CacheError::ExportTarget { .. })));
    export_npz(&cache, &out, OpenMode::Overwrite).unwrap();
    // Damage is named with its file.
    let whole = fs::read(file(&out)).unwrap();
    let nowhere = temp.path().join("nowhere");
    let spoilt = |bytes: &[u8]| {
        fs::write(file(&out), bytes).unwrap();
        let error = import_npz(&out.join("npz"), &options, &nowhere, RESUME).unwrap_err().to_string();
        assert!(error.contains(&key), "{error}");
        error
    };
    assert!(spoilt(&whole[..whole.len() - 9]).contains("make it again or leave it out"));
    let middle = whole.len() / 4;
    let flipped = [&whole[..middle], &[whole[middle] ^ 4], &whole[middle + 1..]].concat();
    assert!(spoilt(&flipped).contains("make it again"), "its checksum tells");
    assert!(!nowhere.exists());
}

/// An `.npz` with arrays of a type.
fn npz(path: &Path, arrays: &[(&str, &str, &[usize], &[u8])]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut archive = zip::ZipWriter::new(fs::File::create(path).unwrap());
    for (name, descr, shape, bytes) in arrays {
        archive.start_file(format!("{name}.npy"), SimpleFileOptions::default()).unwrap();
        npy::Header::write(&mut archive, descr, shape).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap();
}

#[test]
fn arrays_of_other_npz_files_are_found_or_named() {
    let temp = tempfile::tempdir().unwrap();
    let (set, out) = (temp.path().join("set"), temp.path().join("out"));
    let codes: Vec<u8> = (0..4u16).flat_map(u16::to_le_bytes).collect();
    let import = |options: &ImportOptions| import_npz(&set, options, &out, RESUME).map_err(|error| error.to_string());
    let default = ImportOptions::default();
    // Classes are the folders in order; a file in none has no class, and folders within are part of the key.
    npz(&set.join("b/1.JPEG.npz"), &[("vq", "<u2", &[1, 4], &codes)]);
    npz(&set.join("a-b/deep/2.npz"), &[("vq", "<u2", &[1, 4], &codes)]);
    npz(&set.join("a/3.npz"), &[("vq", "<u2", &[1, 4], &codes)]);
    npz(&set.join("4.npz"), &[("vq", "<u2", &[1, 4], &codes)]);
    fs::write(set.join("a/notes.txt"), "no array").unwrap();
    import(&default).unwrap();
    let cache = sound(&out);
    let found: Vec<_> = (0..4).map(|row| cache.meta(row).unwrap()).map(|meta| (meta.key, meta.label)).collect();
    let expected = [("4", -1), ("a/3", 0), ("a-b/deep/2", 1), ("b/1.JPEG", 2)];
    assert_eq!(found, expected.map(|(key, label)| (key.to_owned(), label)));
    assert_eq!((cache.grid().to_string(), cache.grid().bits), ("2x2".into(), 2));
    fs::remove_dir_all(&out).unwrap();
    let third = set.join("a/3.npz");
    npz(&third, &[("vq", "<u2", &[1, 4], &codes), ("vq_flip", "<u2", &[1, 4], &codes)]);
    assert!(import(&default).unwrap_err().contains("8, 4 of them mirrored"));
    npz(&third, &[("vq", "<u2", &[1, 2], &codes[..4])]);
    assert!(import(&default).unwrap_err().contains("a/3.npz: number of tokens is 2"));
    npz(&third, &[("vq", "<u2", &[1, 4], &codes), ("size", "<u2", &[1], &codes[..2])]);
    assert!(import(&default).unwrap_err().contains("--tokens-column"));
    fs::remove_file(&third).unwrap();
    import(&ImportOptions { tokens_column: Some("vq".into()), ..default.clone() }).unwrap();
    fs::remove_dir_all(&out).unwrap();
    // What MAR caches.
    let latents = [0; 2 * 16];
    npz(&third, &[("moments", "<f4", &[2, 2, 2], &latents), ("moments_flip", "<f4", &[2, 2, 2], &latents)]);
    let message = import(&default).unwrap_err();
    assert!(message.contains("a/3.npz") && message.contains("latents of a VAE"), "{message}");
    assert!(message.contains("`moments` of type <f4, [2, 2, 2]") && !out.exists(), "{message}");
    // Views by the shape, and a shape that may be read in two ways.
    let (set, out) = (temp.path().join("views"), temp.path().join("of-views"));
    let codes: Vec<u8> = (0..144u16).flat_map(u16::to_le_bytes).collect();
    npz(&set.join("1.npz"), &[("codes", "<u2", &[2, 16], &codes[..64])]);
    import_npz(&set, &default, &out, RESUME).unwrap();
    let cache = sound(&out);
    assert_eq!((cache.grid().to_string().as_str(), cache.num_views()), ("4x4", 2));
    npz(&set.join("1.npz"), &[("codes", "<u2", &[9, 16], &codes)]);
    let error = import_npz(&set, &default, &temp.path().join("no"), RESUME).unwrap_err().to_string();
    assert!(error.contains("--grid 9x16"), "{error}");
}

#[test]
fn webdataset_shards_give_the_same_cache_again() {
    let (temp, dir) = small_cache();
    let cache = TokenCache::open(&dir).unwrap();
    let (out, again) = (temp.path().join("out"), temp.path().join("again"));
    let written = export_webdataset(&cache, 20, &out, RESUME).unwrap();
    assert_eq!(written, ["tokens-000000.tar", "tokens-000001.tar", "tokens-000002.tar", "tokens-000003.tar"]);
    import_webdataset(&shards_in(&out), &ImportOptions::default(), &again, RESUME).unwrap();
    assert_eq!(sound(&again).content_hash(), cache.content_hash());
    // Whatever is cut out of the end of a shard is missed.
    let last = out.join(&written[3]);
    let whole = fs::read(&last).unwrap();
    fs::write(&last, &whole[..whole.len() - 1024 - 700]).unwrap();
    let error = import_webdataset(&shards_in(&out), &ImportOptions::default(), &again, RESUME).unwrap_err();
    assert!(chain(&error).contains("tokens-000003.tar"), "{}", chain(&error));
}

#[test]
fn an_interrupted_export_goes_on_and_another_leaves_nothing_of_it() {
    let (temp, dir) = small_cache();
    let cache = TokenCache::open(&dir).unwrap();
    let out = temp.path().join("out");
    let written = export_webdataset(&cache, 20, &out, RESUME).unwrap();
    let contents = || shards_in(&out).iter().map(|path| fs::read(path).unwrap()).collect::<Vec<_>>();
    let before = contents();
    let inode = |name: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(out.join(name)).unwrap());
    let inodes: Vec<u64> = written.iter().map(|name| inode(name)).collect();
    fs::remove_file(out.join(&written[2])).unwrap();
    export_webdataset(&cache, 20, &out, RESUME).unwrap();
    assert!(contents() == before);
    for (shard, name) in written.iter().enumerate().filter(|(shard, _)| *shard != 2) {
        assert_eq!(inode(name), inodes[shard], "{name} was there");
    }
    // Larger shards are fewer: those of before are gone.
    assert_eq!(export_webdataset(&cache, 50, &out, RESUME).unwrap().len(), 2);
    assert_eq!(shards_in(&out).len(), 2);
    // A file that somebody changed is not replaced.
    fs::write(out.join(&written[1]), "mine").unwrap();
    for rows in [20, 50, 1000] {
        let error = export_webdataset(&cache, rows, &out, RESUME).unwrap_err();
        assert!(matches!(error, CacheError::ExportTarget { .. }), "{error}");
    }
    export_webdataset(&cache, 20, &out, OpenMode::Overwrite).unwrap();
    assert!(contents() == before);
}

#[test]
fn names_splits_and_crops_survive_in_shards() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, out, again) = (temp.path().join("cache"), temp.path().join("out"), temp.path().join("again"));
    let mut job = JobSpec::new(GridSpec { height: 2, width: 3, bits: 10 }, 5, 1);
    job.first_view = 3;
    job.splits =
        vec![Split { name: "train".into(), images: [0, 3] }, Split { name: "v1.0/val".into(), images: [3, 5] }];
    let mut writer = CacheWriter::open(&dir, job, RESUME).unwrap();
    let long = format!("{}/é.x.png", "d".repeat(130));
    for (image, key) in ["a.b/c.d.png", "a.b/c%2Ed.png", &long, "a.b/c.d.png", "plain"].into_iter().enumerate() {
        let (label, flip) = (image as i32 - 1, image % 2 == 1);
        let row = Row { tokens: &[image as u32; 6], label, key, view: 3, crop_x: 7, crop_y: image as i32, flip };
        writer.push_image(image, &[row]).unwrap();
    }
    writer.finish().unwrap();
    let cache = TokenCache::open(&dir).unwrap();
    let written = export_webdataset(&cache, 2, &out, RESUME).unwrap();
    let expected = ["train-000000.tar", "train-000001.tar", "v1%2E0%2Fval-000000.tar"];
    assert_eq!(written, expected);
    import_webdataset(&shards_in(&out), &ImportOptions::default(), &again, RESUME).unwrap();
    let found = sound(&again);
    assert_eq!(found.content_hash(), cache.content_hash());
    assert_eq!(found.manifest().splits, cache.manifest().splits);
    let mixed: Vec<_> = [0, 2, 1].map(|shard| out.join(expected[shard])).to_vec();
    let error = import_webdataset(&mixed, &ImportOptions::default(), &temp.path().join("x"), RESUME).unwrap_err();
    assert!(error.to_string().contains("each split in one piece"), "{error}");
}

/// A cache of one image with this class, key and split.
fn named(dir: &Path, class: &str, key: &str, split: &str) -> TokenCache {
    let mut job = JobSpec::new(GridSpec { height: 2, width: 2, bits: 18 }, 1, 1);
    job.classes = vec![class.to_owned()];
    job.splits = vec![Split { name: split.to_owned(), images: [0, 1] }];
    let mut writer = CacheWriter::open(dir, job, RESUME).unwrap();
    let row = Row { tokens: &[1, 2, 3, 4], label: 0, key, view: 0, crop_x: 0, crop_y: 0, flip: false };
    writer.push_image(0, &[row]).unwrap();
    writer.finish().unwrap();
    TokenCache::open(dir).unwrap()
}

#[test]
fn an_export_stays_in_its_folder_and_keeps_keys_as_they_are() {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("a/b/out");
    for (number, (class, split, words)) in
        [("..", "train", "class is"), ("cat", "..", "split is"), ("cat", "../../escaped", ""), ("/", "train", "")]
            .into_iter()
            .enumerate()
    {
        let cache = named(&temp.path().join(format!("cache-{number}")), class, "x.png", split);
        match export_npz(&cache, &out, OpenMode::Overwrite) {
            Err(error) => assert!(!words.is_empty() && error.to_string().contains(words), "{error}"),
            Ok(_) => assert!(words.is_empty(), "{class} {split}"),
        }
        assert_eq!(names(&temp.path().join("a")), ["b"], "{class} {split}");
        assert_eq!(names(&temp.path().join("a/b")), ["out"], "{class} {split}");
    }
    let cache = named(&temp.path().join("lines"), "cat", "two\nlines", "train");
    let error = export_npy(&cache, &temp.path().join("npy"), RESUME).unwrap_err().to_string();
    assert!(error.contains("two\\nlines") && error.contains("--format parquet-list"), "{error}");
    // A name that begins with a slash is none of another place when it is unpacked.
    let cache = named(&temp.path().join("rooted"), "cat", "/etc/x", "train");
    let shards = temp.path().join("shards");
    export_webdataset(&cache, 20, &shards, RESUME).unwrap();
    let archive = fs::read(shards_in(&shards).remove(0)).unwrap();
    assert!(archive.starts_with(b"%2Fetc/x.tokens.npy\0"));
}

#[test]
fn a_compressed_archive_is_compared_with_the_checksum_behind_it() {
    let (temp, dir) = small_cache();
    let (out, again) = (temp.path().join("out"), temp.path().join("again"));
    export_webdataset(&TokenCache::open(&dir).unwrap(), 1000, &out, RESUME).unwrap();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&fs::read(shards_in(&out).remove(0)).unwrap()).unwrap();
    let whole = packed.finish().unwrap();
    let path = temp.path().join("shard.tar.gz");
    let import = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        import_webdataset(std::slice::from_ref(&path), &ImportOptions::default(), &again, RESUME)
    };
    let mut damaged = whole.clone();
    let checksum = whole.len() - 8;
    damaged[checksum] ^= 1;
    for bytes in [&damaged, &whole[..checksum], &whole[..whole.len() - 1]] {
        let error = chain(&import(bytes).unwrap_err());
        assert!(error.contains("shard.tar.gz") && !again.exists(), "{error}");
    }
    import(&whole).unwrap();
}

static COPIED: AtomicUsize = AtomicUsize::new(0);

#[test]
fn progress_ends_with_all_images() {
    on_copy(|done, total| {
        assert!(done <= total);
        COPIED.fetch_max(done, Ordering::Relaxed);
    });
    let (temp, dir) = small_cache();
    let cache = TokenCache::open(&dir).unwrap();
    export_npz(&cache, &temp.path().join("out"), RESUME).unwrap();
    assert!(COPIED.load(Ordering::Relaxed) >= cache.num_images());
}
