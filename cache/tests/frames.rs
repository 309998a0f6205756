//! Sets of video frames in the layout of the 1X world-model data: in, out again to the byte, and in which order their bits are.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::*;
use parquet::column::reader::ColumnReader;
use parquet::file::reader::{FileReader, SerializedFileReader};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tokengrid_cache::{
    BitOrder, BitProfile, CacheError, CacheWriter, Finished, FrameSet, GridSpec, JobSpec, OpenMode, Row, TokenCache,
    TokenizerInfo, export_1x, import_1x, verify,
};

const RESUME: OpenMode = OpenMode::Resume;
const ORDERS: [BitOrder; 2] = [BitOrder::LowFirst, BitOrder::HighFirst];

/// Clips of unequal length; an id that comes back, and a negative one.
const SEGMENTS: [i32; 11] = [7, 7, 7, 8, 8, -3, 8, 8, 8, 9, 9];

/// Token `i` of frame `frame` as the set has it.
fn token(frame: usize, i: usize) -> u32 {
    scramble((frame * 1000 + i) as u64) as u32 & 0x3FFFF
}

/// Writes the set of [`SEGMENTS`] with 4 x 4 tokens of 18 bits, and actions beside it.
fn write_set(dir: &Path, video: &str, dtype: Option<&str>) -> PathBuf {
    fs::create_dir_all(dir.join("actions")).unwrap();
    let mut tokens = Vec::new();
    for frame in 0..SEGMENTS.len() {
        for i in 0..16 {
            match dtype {
                Some("int64") => tokens.extend(u64::from(token(frame, i)).to_le_bytes()),
                _ => tokens.extend(token(frame, i).to_le_bytes()),
            }
        }
    }
    fs::write(dir.join(video), tokens).unwrap();
    fs::write(dir.join("segment_ids.bin"), SEGMENTS.map(i32::to_le_bytes).as_flattened()).unwrap();
    fs::write(dir.join("actions/joint_pos.bin"), [1u8; 11 * 21 * 4]).unwrap();
    fs::write(dir.join("actions/notes.txt"), "").unwrap();
    fs::write(dir.join(".gitattributes"), "of a download").unwrap();
    // Spaces, the order of the keys and keys that nobody knows have to survive.
    let dtype = dtype.map(|dtype| format!("\"token_dtype\":   \"{dtype}\",")).unwrap_or_default();
    let metadata =
        format!("{{\"vocab_size\": 262144, \"hz\": 30.0,\n {dtype} \"s\": 4, \"num_images\": 11, \"π\": [1e3]}} ");
    fs::write(dir.join("metadata.json"), metadata).unwrap();
    dir.to_path_buf()
}

/// All files below a folder but hidden ones, by relative path.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else {
            found.insert(name, fs::read(&path).unwrap());
        }
    }
    found
}

fn import(set: &Path, order: BitOrder, out: &Path) -> Result<Finished, CacheError> {
    import_1x(&FrameSet::open(set)?, Some(order), TokenizerInfo::default(), out, RESUME)
}

fn problems(dir: &Path) -> Vec<String> {
    verify(dir, &mut |_, _| {}).unwrap().problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_set_comes_back_byte_by_byte_in_either_order() {
    let temp = tempfile::tempdir().unwrap();
    for (number, (video, dtype)) in
        [("video.bin", None), ("videos.bin", Some("int64")), ("video.bin", Some("int32"))].into_iter().enumerate()
    {
        let set = write_set(&temp.path().join(format!("set{number}")), video, dtype);
        for order in ORDERS {
            let dir = temp.path().join(format!("cache-{number}-{order}"));
            assert_eq!(import(&set, order, &dir).unwrap().rows, 11);
            assert_eq!(problems(&dir), [""; 0]);
            let cache = TokenCache::open(&dir).unwrap();
            for (frame, segment) in SEGMENTS.iter().enumerate() {
                let mut tokens = vec![0; 16];
                cache.tokens_into(frame, &mut tokens);
                let expected: Vec<u32> = (0..16)
                    .map(|i| match order {
                        BitOrder::LowFirst => token(frame, i),
                        BitOrder::HighFirst => token(frame, i).reverse_bits() >> 14,
                    })
                    .collect();
                assert_eq!(tokens, expected, "frame {frame}");
                let meta = cache.meta(frame).unwrap();
                assert_eq!((meta.key, meta.label), (format!("{segment}/{frame:08}"), -1));
            }
            let out = temp.path().join(format!("out-{number}-{order}"));
            export_1x(&cache, None, &out, RESUME).unwrap();
            assert_eq!(files(&out), files(&set), "{video} {dtype:?} {order}");
            // Again, over what an export wrote.
            export_1x(&cache, Some(order), &out, RESUME).unwrap();
            let other = ORDERS.into_iter().find(|other| *other != order);
            let error = export_1x(&cache, other, &out, RESUME).unwrap_err().to_string();
            assert!(error.contains("bit order") && error.contains(&order.to_string()), "{error}");
        }
    }
}

#[test]
fn segments_and_frame_numbers_are_columns() {
    let temp = tempfile::tempdir().unwrap();
    let (set, dir) = (write_set(&temp.path().join("set"), "video.bin", None), temp.path().join("cache"));
    import(&set, BitOrder::HighFirst, &dir).unwrap();
    let shard = SerializedFileReader::new(fs::File::open(dir.join("shard-00000-00000.parquet")).unwrap()).unwrap();
    let schema = shard.metadata().file_metadata().schema_descr();
    let names: Vec<_> = schema.columns().iter().map(|column| column.name().to_owned()).collect();
    assert_eq!(names[7..], ["segment", "frame"]);
    let values = |column: usize| {
        let ColumnReader::Int32ColumnReader(mut reader) =
            shard.get_row_group(0).unwrap().get_column_reader(column).unwrap()
        else {
            panic!("a column of int32")
        };
        let mut values = Vec::new();
        reader.read_records(11, None, None, &mut values).unwrap();
        values
    };
    assert_eq!((values(7), values(8)), (SEGMENTS.to_vec(), (0..11).collect()));
    let cache = TokenCache::open(&dir).unwrap();
    assert_eq!(cache.manifest().shards[0].more_columns, ["segment", "frame"]);
}

#[test]
fn a_set_without_segments_is_one_clip() {
    let temp = tempfile::tempdir().unwrap();
    let (set, dir) = (write_set(&temp.path().join("set"), "video.bin", None), temp.path().join("cache"));
    fs::remove_file(set.join("segment_ids.bin")).unwrap();
    import(&set, BitOrder::HighFirst, &dir).unwrap();
    let cache = TokenCache::open(&dir).unwrap();
    assert_eq!(cache.meta(10).unwrap().key, "0/00000010");
    export_1x(&cache, None, &temp.path().join("out"), RESUME).unwrap();
    assert_eq!(files(&temp.path().join("out")), files(&set));
}

#[test]
fn files_beside_the_rows_are_checked_and_attached_again() {
    let temp = tempfile::tempdir().unwrap();
    let (set, dir) = (write_set(&temp.path().join("set"), "video.bin", None), temp.path().join("cache"));
    import(&set, BitOrder::LowFirst, &dir).unwrap();
    let attached = dir.join("attached/actions/joint_pos.bin");
    fs::write(&attached, [2u8; 11 * 21 * 4]).unwrap();
    fs::remove_file(dir.join("attached/metadata.json")).unwrap();
    let found = problems(&dir);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("attached/actions/joint_pos.bin") && found[0].contains("checksum"), "{found:?}");
    assert!(found[1].contains("attached/metadata.json: the file is missing"), "{found:?}");
    let out = temp.path().join("out");
    let error = export_1x(&TokenCache::open(&dir).unwrap(), None, &out, RESUME).unwrap_err().to_string();
    assert!(error.contains("joint_pos.bin: checksum"), "{error}");
    assert_eq!(files(&out), BTreeMap::new(), "nothing half-written");
    // The same import, from a set that was moved.
    let moved = temp.path().join("moved");
    fs::rename(&set, &moved).unwrap();
    import(&moved, BitOrder::LowFirst, &dir).unwrap();
    assert_eq!(problems(&dir), [""; 0]);
    export_1x(&TokenCache::open(&dir).unwrap(), None, &out, RESUME).unwrap();
    assert_eq!(files(&out), files(&moved));
    let error = import(&moved, BitOrder::HighFirst, &dir).unwrap_err().to_string();
    assert!(error.contains("bit_order"), "{error}");
}

#[test]
fn what_does_not_fit_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let good = write_set(&temp.path().join("good"), "video.bin", None);
    let dir = temp.path().join("cache");
    let spoilt = |spoil: &dyn Fn(&Path)| {
        let set = temp.path().join("spoilt");
        let _ = fs::remove_dir_all(&set);
        write_set(&set, "video.bin", None);
        spoil(&set);
        import(&set, BitOrder::LowFirst, &dir).unwrap_err().to_string()
    };
    let metadata = fs::read_to_string(good.join("metadata.json")).unwrap();
    let with = |from: &str, to: &str| {
        let text = metadata.replace(from, to);
        spoilt(&|set| fs::write(set.join("metadata.json"), &text).unwrap())
    };
    for (error, expected) in [
        (with("num_images", "frames"), "num_images"),
        (with("\"s\": 4", "\"s\": 0"), "\"s\""),
        (with("{", "["), "JSON"),
        (with("\"hz\"", "\"token_dtype\": \"float32\", \"hz\""), "token_dtype"),
        (with("11", "12"), "768 bytes for 12 frames"),
        (with("262144", "1000"), "token is"),
        (spoilt(&|set| fs::remove_file(set.join("video.bin")).unwrap()), "video.bin"),
        (spoilt(&|set| fs::write(set.join("segment_ids.bin"), [0; 40]).unwrap()), "segment_ids.bin: size"),
    ] {
        assert!(error.contains(expected), "{error}\nshould say {expected}");
        assert!(!dir.exists(), "nothing is left: {error}");
    }
    // 262144 is 18 bits wide and no power of two less one: tokens that are no bits have no order.
    assert!(FrameSet::open(&good).unwrap().has_bits());
}

/// A cache that was not imported, with the first rows of another one.
fn first_rows(dir: &Path, out: &Path, count: usize) -> TokenCache {
    let cache = TokenCache::open(dir).unwrap();
    let mut writer = CacheWriter::open(out, JobSpec::new(cache.grid(), count, 1), RESUME).unwrap();
    let mut tokens = vec![0; cache.grid().num_tokens()];
    for image in 0..count {
        cache.tokens_into(image, &mut tokens);
        let key = cache.meta(image).unwrap().key;
        let row = Row { tokens: &tokens, label: -1, key: &key, view: 0, crop_x: 0, crop_y: 0, flip: false };
        writer.push_image(image, &[row]).unwrap();
    }
    writer.finish().unwrap();
    TokenCache::open(out).unwrap()
}

#[test]
fn any_cache_of_square_grids_can_become_a_set() {
    let temp = tempfile::tempdir().unwrap();
    let (set, dir) = (write_set(&temp.path().join("set"), "video.bin", None), temp.path().join("cache"));
    import(&set, BitOrder::HighFirst, &dir).unwrap();
    let part = first_rows(&dir, &temp.path().join("part"), 5);
    let out = temp.path().join("out");
    let error = export_1x(&part, None, &out, RESUME).unwrap_err().to_string();
    assert!(error.contains("bit order"), "{error}");
    export_1x(&part, Some(BitOrder::HighFirst), &out, RESUME).unwrap();
    let (found, whole) = (files(&out), files(&set));
    assert_eq!(found["video.bin"], whole["video.bin"][..5 * 16 * 4]);
    assert_eq!(found["segment_ids.bin"], whole["segment_ids.bin"][..20]);
    let again = temp.path().join("again");
    import(&out, BitOrder::HighFirst, &again).unwrap();
    assert_eq!(TokenCache::open(&again).unwrap().content_hash(), part.content_hash());
    let (_small, other) = small_cache();
    let error = export_1x(&TokenCache::open(&other).unwrap(), Some(ORDERS[0]), &out, RESUME).unwrap_err().to_string();
    assert!(error.contains("as high as wide"), "{error}");
}

const GRID: GridSpec = GridSpec { height: 16, width: 16, bits: 18 };

/// Numbers that look random, -1 to 1.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 += 1;
        scramble(self.0) as f64 / u64::MAX as f64 * 2.0 - 1.0
    }
}

/// Pictures of a made-up tokenizer: channels see mixtures of three smooth fields, with noise and a bias of their own.
fn frames_of(tokenizer: u64, pictures: u64, count: usize) -> Vec<u32> {
    let mut noise = Noise(scramble(tokenizer));
    let channels: Vec<[f64; 5]> = (0..18)
        .map(|_| [noise.next(), noise.next(), noise.next(), 0.5 * noise.next(), 0.3 + 0.5 * noise.next().abs()])
        .collect();
    let mut noise = Noise(scramble(pictures ^ 0xABCD));
    let mut tokens = Vec::new();
    for _ in 0..count {
        let waves: Vec<[f64; 3]> = (0..3).map(|_| [noise.next(), noise.next(), 3.0 * noise.next()]).collect();
        for place in 0..256 {
            let (x, y) = ((place % 16) as f64 / 3.0, (place / 16) as f64 / 3.0);
            let fields: Vec<f64> = waves.iter().map(|[a, b, c]| (a * x + b * y + c).sin()).collect();
            let bit = |(channel, of): (usize, &[f64; 5])| {
                let seen: f64 = fields.iter().zip(of).map(|(field, weight)| field * weight).sum();
                u32::from(seen + of[3] + of[4] * noise.next() > 0.0) << channel
            };
            tokens.push(channels.iter().enumerate().map(bit).sum());
        }
    }
    tokens
}

/// A cache of a tokenizer's pictures.
fn reference(dir: &Path, tokens: &[u32]) -> TokenCache {
    let mut writer = CacheWriter::open(dir, JobSpec::new(GRID, tokens.len() / 256, 1), RESUME).unwrap();
    for (image, tokens) in tokens.chunks_exact(256).enumerate() {
        let key = image.to_string();
        let row = Row { tokens, label: -1, key: &key, view: 0, crop_x: 0, crop_y: 0, flip: false };
        writer.push_image(image, &[row]).unwrap();
    }
    writer.finish().unwrap();
    TokenCache::open(dir).unwrap()
}

#[test]
fn a_hundred_planted_orders_are_found_by_a_cache_of_the_same_tokenizer() {
    let temp = tempfile::tempdir().unwrap();
    let (mut found, mut strangers_told) = ([0; 2], 0);
    for tokenizer in 0..100 {
        let order = ORDERS[tokenizer as usize % 2];
        let known = reference(&temp.path().join(tokenizer.to_string()), &frames_of(tokenizer, 1, 24));
        let mut stored = frames_of(tokenizer, 2, 24);
        stored.iter_mut().for_each(|token| *token = order.convert(*token, 18));
        let profile = BitProfile::of_cache(&known);
        let told = profile.order_of(&stored, GRID);
        assert_eq!(told.order, Some(order), "tokenizer {tokenizer}: {told}");
        found[tokenizer as usize % 2] += 1;
        // Another tokenizer's set: nothing may be told of it.
        strangers_told += u32::from(profile.order_of(&frames_of(tokenizer + 1000, 2, 24), GRID).order.is_some());
    }
    assert_eq!(found, [50, 50]);
    assert!(strangers_told <= 1, "{strangers_told} of 100 sets of other tokenizers were told");
}

#[test]
fn tokens_that_say_nothing_are_not_told() {
    let mut noise = Noise(5);
    let mut fair = || (0..24 * 256).map(|_| ((noise.next() + 1.0) * 131_072.0) as u32 & 0x3FFFF).collect::<Vec<u32>>();
    assert_eq!(BitProfile::of(&fair(), GRID).order_of(&fair(), GRID).order, None);
    // Channels that are the same from either end: both orders are right, and nobody can tell.
    let (first, second) = (frames_of(3, 1, 24), frames_of(3, 2, 24));
    let mirrored = |tokens: &[u32]| {
        let low = |token: u32| token & 0x1FF;
        tokens.iter().map(|token| low(*token) | low(*token).reverse_bits() >> 14).collect::<Vec<u32>>()
    };
    let told = BitProfile::of(&mirrored(&first), GRID).order_of(&mirrored(&second), GRID);
    assert_eq!(told.order, None, "{told}");
    assert!(told.low_first > 0.8, "{told}");
}
