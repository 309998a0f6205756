//! WebDataset shards of tokens, and keys that inputs have twice.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

use flate2::Compression;
use flate2::write::GzEncoder;
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::slice::from_ref;
use std::sync::Arc;
use tokengrid_cache::{
    ImportOptions, OpenMode, TokenCache, TokenType, import_jsonl, import_llamagen, import_memmap, import_npy,
    import_parquet, import_webdataset,
};

const RESUME: OpenMode = OpenMode::Resume;

/// An archive of these members, as tar programs end it.
fn tar(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, content) in members {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[148..156].fill(b' ');
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        archive.extend(header);
        archive.extend(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

/// An array of 32-bit integers as numpy writes it.
fn npy(shape: &[usize]) -> Vec<u8> {
    let sides: String = shape.iter().map(|side| format!("{side}, ")).collect();
    let mut text = format!("{{'descr': '<i4', 'fortran_order': False, 'shape': ({sides}), }}");
    text.push_str(&" ".repeat(117 - text.len()));
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    bytes.extend(text.as_bytes());
    (0..shape.iter().product::<usize>()).for_each(|i| bytes.extend((i as i32).to_le_bytes()));
    bytes
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Grid and views of the cache that is made of these shards; else the message.
fn imported(shards: &[PathBuf], options: &ImportOptions) -> Result<(String, usize), String> {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("cache");
    let done = import_webdataset(shards, options, &out, RESUME);
    match done {
        Ok(_) => {
            let cache = TokenCache::open(&out).unwrap();
            Ok((cache.grid().to_string(), cache.num_views()))
        }
        Err(error) => {
            assert!(!out.exists(), "{error}");
            Err(error.to_string())
        }
    }
}

#[test]
fn the_shape_of_a_sample_says_how_many_views_it_has() {
    let temp = tempfile::tempdir().unwrap();
    let of = |shape: &[usize], options: &ImportOptions| {
        let shard = write(temp.path(), "a.tar", &tar(&[("a.npy", npy(shape)), ("b.npy", npy(shape))]));
        imported(&[shard], options)
    };
    let nothing = ImportOptions::default();
    for (shape, grid, views) in [
        (&[16][..], "4x4", 1),
        (&[4, 4], "4x4", 1),
        (&[2, 16], "4x4", 2),
        (&[1, 10, 64], "8x8", 10),
        (&[3, 4, 4], "4x4", 3),
        (&[3, 2, 4], "2x4", 3),
    ] {
        assert_eq!(of(shape, &nothing), Ok((grid.to_owned(), views)), "{shape:?}");
    }
    let message = of(&[9, 16], &nothing).unwrap_err();
    assert!(message.contains("--grid 4x4") && message.contains("--grid 9x16"), "{message}");
    let views = |views| ImportOptions { views, ..ImportOptions::default() };
    assert_eq!(of(&[9, 16], &views(9)), Ok(("4x4".into(), 9)));
    assert_eq!(of(&[9, 16], &views(1)), Ok(("9x16".into(), 1)));
    let grid = ImportOptions { grid: (4, 4), ..ImportOptions::default() };
    assert_eq!(of(&[9, 16], &grid), Ok(("4x4".into(), 9)));
    let message = of(&[9, 16], &ImportOptions { views: 3, ..grid }).unwrap_err();
    assert!(message.contains("--views 3"), "{message}");
    // Lists of JSON have a shape as well.
    let json = |text: &str| {
        let shard = write(temp.path(), "a.tar", &tar(&[("a.json", text.as_bytes().to_vec())]));
        imported(&[shard], &nothing)
    };
    assert_eq!(json("[[1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 4, 5, 6, 7, 8, 9]]"), Ok(("3x3".into(), 2)));
    let message = json("{\"tokens\": [[1, 2], [3]]}").unwrap_err();
    assert!(message.contains("equal lengths"), "{message}");
}

#[test]
fn an_archive_that_was_cut_off_anywhere_is_refused_with_the_place() {
    let temp = tempfile::tempdir().unwrap();
    let nothing = ImportOptions::default();
    let whole = tar(&[("a.npy", npy(&[16])), ("a.cls", b"1".to_vec()), ("b.npy", npy(&[16]))]);
    assert!(imported(&[write(temp.path(), "a.tar", &whole)], &nothing).is_ok());
    // Blocks: header, array, header, class, header, array, two of zeros.
    for (length, place) in [
        (200, "byte 200, within the header of a member"),
        (600, "byte 600, within the member a.npy"),
        (1024, "byte 1024, without the blocks of zeros"),
        (2048, "byte 2048, without the blocks of zeros"),
        (2100, "within the header of a member"),
        (2700, "byte 2700, within the member b.npy"),
    ] {
        let message = imported(&[write(temp.path(), "cut.tar", &whole[..length])], &nothing).unwrap_err();
        assert!(message.contains(place) && message.contains("cut off"), "{length}: {message}");
    }
    let gzip = compressed(&whole);
    assert!(imported(&[write(temp.path(), "a.tar.gz", &gzip)], &nothing).is_ok());
    let message = imported(&[write(temp.path(), "a.tar.gz", &gzip[..gzip.len() / 2])], &nothing).unwrap_err();
    assert!(message.contains("a.tar.gz"), "{message}");
    let message = imported(&[write(temp.path(), "a.tar", b"\x28\xB5\x2F\xFDrest")], &nothing).unwrap_err();
    assert!(message.contains("zstd") && message.contains("unpack it first"), "{message}");
}

#[test]
fn keys_that_two_samples_have_are_refused_with_both_places() {
    let temp = tempfile::tempdir().unwrap();
    let member = |name| (name, if str::ends_with(name, "cls") { b"1".to_vec() } else { npy(&[16]) });
    let shard = |name: &str, members: &[&'static str]| {
        let members: Vec<_> = members.iter().map(|name| member(name)).collect();
        write(temp.path(), name, &tar(&members))
    };
    let nothing = ImportOptions::default();
    let message = imported(&[shard("a.tar", &["k.npy", "l.npy", "k.npy"])], &nothing).unwrap_err();
    let says = |message: &str, words: &[&str]| assert!(words.iter().all(|word| message.contains(word)), "{message}");
    says(&message, &["`k` (member 3)", "member 1 of", "a.tar"]);
    // In two shards.
    let both = [shard("a.tar", &["j.npy", "k.npy"]), shard("b.tar", &["k.npy"])];
    says(&imported(&both, &nothing).unwrap_err(), &["b.tar: key is `k` (member 1)", "member 2 of", "a.tar"]);
    // Sorted by ending, as no WebDataset is: classes would be lost.
    let apart = shard("a.tar", &["k.cls", "l.cls", "k.npy", "l.npy"]);
    says(&imported(&[apart], &nothing).unwrap_err(), &["(member", "follow each other"]);
    let twice = shard("a.tar", &["k.npy", "k.npy"]);
    says(&imported(&[twice], &nothing).unwrap_err(), &["k.npy twice"]);
    // What is no sample may be in every shard.
    let more = [("index.txt", b"a".to_vec()), ("k.npy", npy(&[16])), ("index.txt", b"b".to_vec())];
    assert!(imported(&[write(temp.path(), "a.tar", &tar(&more))], &nothing).is_ok());
}

/// A file of grids of four tokens with these keys.
fn parquet(path: &Path, keys: &[&str]) {
    let schema = "message rows { required binary key (UTF8); required group tokens (LIST) { repeated group list { required int32 element; } } }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut file = SerializedFileWriter::new(fs::File::create(path).unwrap(), schema, Arc::default()).unwrap();
    let mut group = file.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let texts: Vec<ByteArray> = keys.iter().map(|key| ByteArray::from(*key)).collect();
    column.typed::<ByteArrayType>().write_batch(&texts, None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let tokens: Vec<i32> = (0..4 * keys.len() as i32).collect();
    let definitions = vec![1; tokens.len()];
    let repetitions: Vec<i16> = (0..tokens.len()).map(|i| i16::from(i % 4 > 0)).collect();
    column.typed::<Int32Type>().write_batch(&tokens, Some(&definitions), Some(&repetitions)).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    file.close().unwrap();
}

#[test]
fn keys_that_two_images_of_parquet_files_have_are_refused_with_both_places() {
    let temp = tempfile::tempdir().unwrap();
    let (a, b, out) = (temp.path().join("a.parquet"), temp.path().join("b.parquet"), temp.path().join("cache"));
    parquet(&a, &["k", "l", "m"]);
    parquet(&b, &["n", "l", "o"]);
    let options = ImportOptions { grid: (2, 2), ..ImportOptions::default() };
    let message = import_parquet(&[a.clone(), b.clone()], &options, &out, RESUME).unwrap_err().to_string();
    let says = ["b.parquet: key is `l` (row 1)", "row 1 of", "a.parquet"];
    assert!(says.iter().all(|word| message.contains(word)) && !out.exists(), "{message}");
    parquet(&b, &["n", "n", "p"]);
    let message = import_parquet(&[a.clone(), b.clone()], &options, &out, RESUME).unwrap_err().to_string();
    assert!(message.contains("`n` (row 1)") && message.contains("--views") && !out.exists(), "{message}");
    // Two rows of each image.
    parquet(&a, &["k", "k", "l", "l"]);
    let two = ImportOptions { views: 2, ..options.clone() };
    import_parquet(&[a], &two, &out, RESUME).unwrap();
    assert_eq!(TokenCache::open(&out).unwrap().num_images(), 2);
}

#[test]
fn inputs_without_rows_are_refused_by_name() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    let (out, options) = (folder.join("cache"), ImportOptions { grid: (4, 4), ..ImportOptions::default() });
    let empty = write(folder, "empty", b"");
    let array = write(folder, "a.npy", &npy(&[0, 16]));
    let lists = folder.join("a.parquet");
    parquet(&lists, &[]);
    let archive = write(folder, "a.tar", &tar(&[("readme.txt", b"words".to_vec())]));
    let lines = write(folder, "a.jsonl", b"\n\n");
    for name in ["x_codes", "x_labels"] {
        fs::create_dir(folder.join(name)).unwrap();
    }
    let refused = [
        (&empty, import_npy(&empty, None, None, &options, &out, RESUME)),
        (&empty, import_parquet(from_ref(&empty), &options, &out, RESUME)),
        (&array, import_npy(&array, None, None, &options, &out, RESUME)),
        (&lists, import_parquet(from_ref(&lists), &options, &out, RESUME)),
        (&archive, import_webdataset(from_ref(&archive), &options, &out, RESUME)),
        (&empty, import_webdataset(from_ref(&empty), &options, &out, RESUME)),
        (&lines, import_jsonl(&lines, &options, &out, RESUME)),
        (&empty, import_jsonl(&empty, &options, &out, RESUME)),
        (&empty, import_memmap(&empty, TokenType::U32, None, None, &options, &out, RESUME)),
        (&folder.join("x_codes"), import_llamagen(folder, &options, &out, RESUME)),
    ];
    for (path, done) in refused {
        let message = done.unwrap_err().to_string();
        assert!(message.starts_with(&format!("no rows in {}: ", path.display())) && !out.exists(), "{message}");
    }
}

#[test]
fn lines_that_gzip_compressed_are_read() {
    let temp = tempfile::tempdir().unwrap();
    let text: String = (0..300).map(|i| format!("{{\"class_id\": 1, \"tokens\": [{i}, 2, 3, 4]}}\n")).collect();
    let whole = write(temp.path(), "a.jsonl", text.as_bytes());
    // Of two parts, one behind the other, as `cat` joins them.
    let joined = [compressed(&text.as_bytes()[..1000]), compressed(&text.as_bytes()[1000..])].concat();
    let gzip = write(temp.path(), "a.jsonl.gz", &joined);
    let hash = |input: &Path, name: &str| {
        let out = temp.path().join(name);
        import_jsonl(input, &ImportOptions::default(), &out, RESUME).unwrap().content_hash
    };
    assert_eq!(hash(&gzip, "of-gzip"), hash(&whole, "of-text"));
    let cut = write(temp.path(), "cut.jsonl.gz", &joined[..joined.len() - 30]);
    let out = temp.path().join("cut");
    let message = import_jsonl(&cut, &ImportOptions::default(), &out, RESUME).unwrap_err().to_string();
    assert!(message.contains("cut.jsonl.gz") && !out.exists(), "{message}");
}

#[test]
fn an_array_of_images_and_views_needs_no_number_of_views() {
    let temp = tempfile::tempdir().unwrap();
    let array = write(temp.path(), "a.npy", &npy(&[3, 10, 16]));
    let imported = |views, name: &str| {
        let options = ImportOptions { grid: (4, 4), views, ..ImportOptions::default() };
        import_npy(&array, None, None, &options, &temp.path().join(name), RESUME)
    };
    let done = imported(0, "found").unwrap();
    assert_eq!((done.rows, done.images), (30, 3));
    assert!(imported(1, "given").unwrap_err().to_string().contains("--views 10"));
}
