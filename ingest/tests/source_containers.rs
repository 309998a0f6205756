//! Whatever holds the images: the same keys, labels, bytes and order.

mod containers;

use ::parquet::basic::Compression;
use containers::parquet::{Layout, Row};
use containers::tar::{archive, archive_of, class_tars, header, header_with_size, long_name, member, padded, pax, sum};
use containers::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;
use tokengrid_ingest::{OPEN_MAGVIT2_EXCLUDE, Source, SourceOptions};

/// What every container of the images must give.
fn assert_same(what: &str, source: &Source, images: &[Image]) {
    let found = good(source);
    let names = |images: &[Image]| images.iter().map(|i| (i.key.clone(), i.label)).collect::<Vec<_>>();
    assert_eq!(names(&found), names(images), "{what}");
    assert!(found == images, "{what}: bytes differ");
    assert_eq!((source.len(), source.damaged(), source.renamed()), (images.len(), 0, 0), "{what}");
    assert_eq!(source.unlabelled(), 0, "{what}");
}

#[test]
fn class_folders() {
    let (root, images) = (folder(), images());
    images.iter().for_each(|image| drop(write(root.path(), &image.key, &image.bytes)));
    let source = open(root.path());
    assert_same("folders", &source, &images);
    assert_eq!(source.classes(), CLASSES);
    assert_eq!(source.describe(), "class folders: 15 images, 3 classes");
}

#[test]
fn the_training_tar_of_imagenet() {
    let (root, images) = (folder(), images());
    let path = write(root.path(), "ILSVRC2012_img_train.tar", tar::tar_of_tars(&shuffled(&images)));
    let source = open(&path);
    assert_same("tar of tars", &source, &images);
    assert_eq!((source.kind(), source.root()), ("tar of class tars", path.as_path()));
    assert_eq!(source.classes(), CLASSES);
}

#[test]
fn a_folder_of_class_tars() {
    let (root, images) = (folder(), images());
    for (class, tar) in class_tars(&shuffled(&images)) {
        write(root.path(), &format!("{class}.tar"), tar);
    }
    let source = open(root.path());
    assert_same("class tars", &source, &images);
    assert_eq!((source.kind(), source.classes()), ("tar of class tars", &CLASSES.map(str::to_owned)[..]));
    assert_same("a pattern", &open(&root.path().join("n{01440764,01443537,15075141}.tar")), &images);
}

#[test]
fn a_tar_of_class_folders_with_or_without_a_folder_around_them() {
    let (root, images) = (folder(), images());
    for prefix in ["", "./", "train/", "./data/imagenet/train/"] {
        let files = shuffled(&images);
        let members = files.iter().map(|image| (format!("{prefix}{}", image.key), &image.bytes[..]));
        let path = write(root.path(), "images.tar", archive_of(members));
        let source = open(&path);
        assert_same(prefix, &source, &images);
        assert_eq!((source.kind(), source.classes()), ("tar archive", &CLASSES.map(str::to_owned)[..]));
    }
}

#[test]
fn the_validation_tar_of_imagenet_is_flat() {
    let root = folder();
    let names = ["./ILSVRC2012_val_00000002.JPEG", "ILSVRC2012_val_00000001.JPEG"];
    let path = write(root.path(), "ILSVRC2012_img_val.tar", archive_of(names.map(|n| (n.to_owned(), &b"x"[..]))));
    let source = open(&path);
    assert_eq!(keys(&source), ["ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000002.JPEG"]);
    assert_eq!((source.label(0), source.unlabelled(), source.classes().len()), (-1, 2, 0));
}

/// Shards of five images, each followed by what `sidecar` makes of it.
fn shards(images: &[Image], sidecar: impl Fn(&Image, usize) -> (String, Vec<(&'static str, String)>)) -> TempDir {
    let root = folder();
    for (number, images) in images.chunks(5).enumerate() {
        let mut members = Vec::new();
        for (i, image) in images.iter().enumerate() {
            let (base, sidecars) = sidecar(image, number * 5 + i);
            members.push(member(&format!("{base}.JPEG"), &image.bytes));
            members.extend(sidecars.iter().map(|(end, text)| member(&format!("{base}.{end}"), text.as_bytes())));
        }
        write(root.path(), &format!("shards/{number:03}.tar"), archive(&members));
    }
    root
}

#[test]
fn webdataset_shards_with_classes() {
    let images = images();
    let stem = |image: &Image| image.key.trim_end_matches(".JPEG").to_owned();
    let bare = |image: &Image| image.name().trim_end_matches(".JPEG").to_owned();
    let by_key = shards(&shuffled(&images), |i, _| (stem(i), vec![("cls", format!("{}\n", i.label))]));
    let source = open(&by_key.path().join("shards/{000..002}.tar"));
    assert_same("cls", &source, &images);
    assert_eq!((source.kind(), source.classes()), ("WebDataset", &CLASSES.map(str::to_owned)[..]));
    assert_same("folder of shards", &open(&by_key.path().join("shards")), &images);
    let by_name = shards(&shuffled(&images), |i, _| (bare(i), vec![("cls", i.label.to_string())]));
    assert_same("bare names", &open(&by_name.path().join("shards")), &images);
    let by_wnid = shards(&shuffled(&images), |i, _| (bare(i), vec![("cls", i.key[..9].to_owned())]));
    assert_same("wnids", &open(&by_wnid.path().join("shards")), &images);
    let folders = shards(&shuffled(&images), |i, _| (stem(i), vec![("json", "{}".to_owned())]));
    assert_same("no labels but folders", &open(&folders.path().join("shards")), &images);
}

#[test]
fn webdataset_shards_with_json() {
    let images = images();
    let json =
        |image: &Image, path: &str| format!("{{\"filename\": \"{path}{}\", \"label\": {}}}", image.key, image.label);
    for path in ["", "/data/train/"] {
        let root = shards(&shuffled(&images), |image, i| (format!("{i:08}"), vec![("json", json(image, path))]));
        assert_same("json", &open(&root.path().join("shards/{000..002}.tar")), &images);
    }
    let other = |i: &Image| format!("{{\"path\": \"{}\", \"cls\": \"{}\", \"label\": null}}", i.key, i.label);
    let root = shards(&images, |image, i| (format!("x/{i}"), vec![("json", other(image))]));
    assert_same("other names", &open(&root.path().join("shards")), &images);
}

#[test]
fn a_webdataset_sample_has_one_picture() {
    let root = folder();
    let files =
        ["s/1.seg.png", "s/1.png", "s/1.jpg", "s/1.cls", "s/2.webp", "s/2.cls", "s/3.txt", "s/4.cls", "s/4.txt"];
    let path = write(root.path(), "one.tar", archive_of(files.map(|name| (name.to_owned(), &b"7"[..]))));
    let source = open(&path);
    assert_eq!(keys(&source), ["s/1.jpg", "s/2.webp"]);
    assert_eq!((source.label(0), source.ignored(), source.kind()), (7, 5, "WebDataset"));
}

#[test]
fn samples_of_the_same_name_in_several_shards_are_all_there() {
    let images = images();
    let root = shards(&images, |image, i| (format!("{:04}", i % 5), vec![("cls", image.label.to_string())]));
    let source = open(&root.path().join("shards"));
    assert_eq!((source.len(), source.renamed(), source.unlabelled()), (15, 10, 0));
    assert_eq!(keys(&source)[..4], ["0000.JPEG", "0000.JPEG~2", "0000.JPEG~3", "0001.JPEG"]);
    let mut found: Vec<_> = good(&source).into_iter().map(|image| (image.label, image.bytes)).collect();
    let mut expected: Vec<_> = images.into_iter().map(|image| (image.label, image.bytes)).collect();
    found.sort();
    expected.sort();
    assert!(found == expected);
}

/// Rows as they are in Hugging Face's data set, paths included.
fn rows(images: &[Image]) -> Vec<Row> {
    let path = |image: &Image| format!("{}_{}.JPEG", image.name().trim_end_matches(".JPEG"), &image.key[..9]);
    images.iter().map(|i| (Some(i.bytes.clone()), Some(path(i)), Some(i.label.into()))).collect()
}

#[test]
fn parquet_of_every_compression_and_layout() {
    let (root, images) = (folder(), images());
    let rows = rows(&shuffled(&images));
    let codecs = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::ZSTD(Default::default()),
        Compression::GZIP(Default::default()),
        Compression::LZ4_RAW,
        Compression::BROTLI(Default::default()),
    ];
    for compression in codecs {
        for (dictionary, version_2) in [(false, false), (true, false), (false, true), (true, true)] {
            for (rows_per_group, rows_per_page) in [(4, 100), (100, 3), (6, 1)] {
                let layout = Layout { compression, dictionary, version_2, rows_per_group, rows_per_page };
                let path = root.path().join("x.parquet");
                parquet::write(&path, &rows, Some(&CLASSES), layout);
                let source = open(&path);
                assert_same(&format!("{layout:?}"), &source, &images);
                assert_eq!((source.kind(), source.classes()), ("Parquet", &CLASSES.map(str::to_owned)[..]));
            }
        }
    }
}

/// Pages that are decoded are kept for a while; images of pages that are no longer kept are had one by one, and those of
/// compressions without a way to do that from the page again. With `whole_pages` all are.
#[test]
fn images_of_many_pages_in_any_order() {
    let root = folder();
    // Three pages' worth of snappy's blocks an image, of which some compresses and some does not.
    let noise = images()[0].bytes.repeat(3);
    let image = |i: usize| [&noise[..], &vec![i as u8; i * 1500], &noise[i..], &[i as u8; 9]].concat();
    let images: Vec<Vec<u8>> = (0..130).map(|i| image(i % 128)).collect();
    let rows: Vec<Row> =
        (0..130).map(|i| (Some(images[i].clone()), Some(format!("{:03}.png", i * 7 % 130)), None)).collect();
    let path = root.path().join("x.parquet");
    for (compression, dictionary, version_2) in [
        (Compression::UNCOMPRESSED, false, false),
        (Compression::UNCOMPRESSED, false, true),
        (Compression::SNAPPY, false, false),
        (Compression::SNAPPY, true, false),
        (Compression::SNAPPY, false, true),
        (Compression::ZSTD(Default::default()), false, false),
    ] {
        let layout = Layout { compression, dictionary, version_2, rows_per_group: 65, rows_per_page: 1 };
        parquet::write(&path, &rows, None, layout);
        let options = SourceOptions { whole_pages: true, ..SourceOptions::default() };
        let (source, by_pages) = (open(&path), Source::open(&path, &options).expect("source"));
        let (mut bytes, mut bytes_by_pages) = (Vec::new(), Vec::new());
        for round in 0..3 {
            for i in 0..130 {
                let index = i * (2 * round + 1) % 130;
                let row = rows.iter().position(|row| row.1.as_deref() == Some(source.key(index))).expect("a row");
                source.read(index, &mut bytes).expect("readable");
                assert!(bytes == images[row], "{layout:?} {index}");
                by_pages.read(index, &mut bytes_by_pages).expect("readable");
                assert!(bytes_by_pages == bytes, "{layout:?} {index}: by pages");
            }
        }
    }
}

#[test]
fn several_parquet_files_are_one_source() {
    let (root, images) = (folder(), images());
    for (number, rows) in rows(&shuffled(&images)).chunks(6).enumerate() {
        let path = root.path().join(format!("train-{number:05}-of-00003.parquet"));
        parquet::write(&path, rows, None, Layout::default());
    }
    let source = open(root.path());
    assert_same("folder", &source, &images);
    assert_eq!(source.classes(), CLASSES, "from keys, without names in the file");
    assert_same("pattern", &open(&root.path().join("train-{00000..00002}-of-00003.parquet")), &images);
    let val = ("ILSVRC2012_val_00000293_n01440764.JPEG", "n01440764/ILSVRC2012_val_00000293.JPEG");
    let path = root.path().join("validation-0.parquet");
    parquet::write(&path, &[(Some(vec![1]), Some(val.0.into()), Some(0))], None, Layout::default());
    assert_eq!(keys(&open(&path)), [val.1]);
    let message = error(root.path());
    assert!(
        message.contains("train, validation") && message.contains("train-{00000..00002}-of-00003.parquet"),
        "{message}"
    );
}

#[test]
fn rows_of_parquet_may_lack_paths_labels_and_bytes() {
    let root = folder();
    let path = root.path().join("a b.parquet");
    let rows = [
        (Some(vec![1; 9]), None, Some(5)),
        (None, Some("x.png".to_owned()), None),
        (Some(vec![3; 9]), Some("x.png".to_owned()), Some(-1)),
        (Some(vec![4; 9]), None, None),
    ];
    for dictionary in [false, true] {
        parquet::write(&path, &rows, None, Layout { dictionary, ..Layout::default() });
        let source = open(&path);
        assert_eq!(keys(&source), ["a b/00000000", "a b/00000003", "x.png", "x.png~2"]);
        assert_eq!((0..4).map(|i| source.label(i)).collect::<Vec<_>>(), [5, -1, -1, -1]);
        assert_eq!(good(&source).len(), 3);
        assert_eq!(bad(&source), [("x.png".to_owned(), "row 1 holds no image".to_owned())]);
    }
}

#[test]
fn parquet_of_something_else_is_refused_with_its_columns() {
    let root = folder();
    let schema =
        ::parquet::schema::parser::parse_message_type("message m { required int64 id; required binary text; }");
    let file = fs::File::create(root.path().join("x.parquet")).expect("file");
    let writer = ::parquet::file::writer::SerializedFileWriter::new(file, Arc::new(schema.expect("m")), Arc::default());
    writer.expect("writer").close().expect("file");
    let message = error(&root.path().join("x.parquet"));
    assert!(message.contains("no column of images") && message.contains("id, text"), "{message}");
}

/// As Hugging Face's libraries write it, by pyarrow: one row group of a hundred rows, dictionary pages and all.
#[test]
fn parquet_written_by_pyarrow() {
    let Ok(python) = std::env::var("TOKENGRID_PYTHON") else {
        assert!(std::env::var_os("CI").is_none(), "CI sets TOKENGRID_PYTHON");
        eprintln!("skipped: TOKENGRID_PYTHON names no Python with numpy and pyarrow (`make test` sets it)");
        return;
    };
    let (root, images) = (folder(), images());
    images.iter().for_each(|image| drop(write(root.path(), &format!("tree/{}", image.key), &image.bytes)));
    let script = "
import glob, json, os, sys
import pyarrow as pa, pyarrow.parquet as pq
root = sys.argv[1]
files = sorted(glob.glob(root + '/tree/*/*'))
files = files[1::2] + files[::2]
classes = sorted(os.listdir(root + '/tree'))
image = [{'bytes': open(f, 'rb').read(), 'path': os.path.basename(f)[:-5] + '_' + f.split('/')[-2] + '.JPEG'} for f in files]
label = [classes.index(f.split('/')[-2]) for f in files]
table = pa.table({'image': pa.array(image, pa.struct([('bytes', pa.binary()), ('path', pa.string())])), 'label': label})
info = {'info': {'features': {'label': {'names': classes, '_type': 'ClassLabel'}}}}
table = table.replace_schema_metadata({'huggingface': json.dumps(info)})
for name, options in {
    'default': {}, 'groups': {'row_group_size': 4}, 'none': {'compression': 'none', 'use_dictionary': False},
    'zstd': {'compression': 'zstd', 'data_page_version': '2.0'}, 'gzip': {'compression': 'gzip'},
    'lz4': {'compression': 'lz4'}, 'brotli': {'compression': 'brotli'}, 'crc': {'write_page_checksum': True},
    'delta': {'use_dictionary': False, 'column_encoding': {'image.bytes': 'DELTA_LENGTH_BYTE_ARRAY'}},
    'small': {'data_page_size': 1000, 'write_batch_size': 1, 'use_dictionary': False, 'write_page_index': True},
}.items():
    pq.write_table(table, f'{root}/{name}.parquet', **options)
";
    let output = Command::new(python).arg("-c").arg(script).arg(root.path()).output().expect("Python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for name in ["default", "groups", "none", "zstd", "gzip", "lz4", "brotli", "crc", "delta", "small"] {
        let source = open(&root.path().join(format!("{name}.parquet")));
        assert_same(name, &source, &images);
        assert_eq!(source.classes(), CLASSES);
    }
}

#[test]
fn names_of_members_in_every_dialect_of_tar() {
    let root = folder();
    let deep = format!("{}/a.jpg", "long".repeat(40));
    let mut ustar = header("b.jpg", 1, b'0');
    ustar[345..349].copy_from_slice(b"pre\0");
    sum(&mut ustar);
    let mut v7 = header("c.jpg", 1, 0);
    v7[257..265].fill(0);
    sum(&mut v7);
    let mut binary = [0; 12];
    (binary[0], binary[11]) = (0x80, 1);
    let x = padded(b"x");
    let members = [
        [long_name(&deep), header("cut", 1, b'0').to_vec(), x.clone()].concat(),
        [ustar.to_vec(), x.clone()].concat(),
        [v7.to_vec(), x.clone()].concat(),
        [header_with_size("d.jpg", &binary, b'7').to_vec(), x.clone()].concat(),
        [pax(b'x', &[("path", "p/\u{e9}.jpg"), ("size", "1")]), header("e", 0, b'0').to_vec(), x.clone()].concat(),
        [pax(b'g', &[("comment", "hello")]), member("UPPER.JpEg", b"x")].concat(),
        header("n/", 0, b'5').to_vec(),
        [header("../../f\n.jpg", 1, b'0').to_vec(), x.clone()].concat(),
        [header("/abs/g.jpg", 1, b'0').to_vec(), x].concat(),
        [header("._h.jpg", 3, b'0').to_vec(), padded(b"mac")].concat(),
        [header("__MACOSX/h.jpg", 3, b'0').to_vec(), padded(b"mac")].concat(),
        [header(".DS_Store", 3, b'0').to_vec(), padded(b"mac")].concat(),
        header("link.jpg", 0, b'2').to_vec(),
        header("dev.jpg", 0, b'3').to_vec(),
        member("readme.txt", b"text"),
    ];
    let source = open(&write(root.path(), "x.tar", archive(&members)));
    assert_eq!((source.ignored(), source.damaged()), (3, 0));
    let expected =
        ["%2E%2E/%2E%2E/f%0A.jpg", "UPPER.JpEg", "abs/g.jpg", "c.jpg", "d.jpg", &deep, "p/\u{e9}.jpg", "pre/b.jpg"];
    assert_eq!(keys(&source), expected);
    assert!(good(&source).iter().all(|image| image.bytes == b"x"));
    assert_eq!(good(&source).len(), 8);
    assert!(!source.classes().contains(&"n".to_owned()), "a folder without images is no class");
}

#[test]
fn hard_links_are_the_image_that_they_lead_to() {
    let root = folder();
    let link = |name: &str, target: &str| {
        let mut block = header(name, 0, b'1');
        block[157..157 + target.len()].copy_from_slice(target.as_bytes());
        sum(&mut block);
        block.to_vec()
    };
    let members = [member("n1/a.jpg", b"picture"), link("n2/b.jpg", "./n1/a.jpg"), link("n2/c.jpg", "n1/gone.jpg")];
    let source = open(&write(root.path(), "x.tar", archive(&members)));
    assert_eq!(keys(&source), ["n1/a.jpg", "n2/b.jpg", "n2/c.jpg"]);
    assert_eq!((good(&source)[1].bytes.as_slice(), source.label(1)), (&b"picture"[..], 1));
    assert!(bad(&source)[0].1.contains("'n1/gone.jpg'"), "{:?}", bad(&source));
}

#[test]
fn a_tar_written_by_tar() {
    let (root, images) = (folder(), images());
    images.iter().for_each(|image| drop(write(root.path(), &format!("train/{}", image.key), &image.bytes)));
    for format in ["v7", "ustar", "gnu", "pax"] {
        let tar = |args: &[&str]| {
            let format = format!("--format={format}");
            let status = Command::new("tar").arg(format).args(args).current_dir(root.path().join("train")).status();
            status.is_ok_and(|status| status.success())
        };
        if !tar(&["-cf", "../train.tar", "."]) {
            eprintln!("skipped: no `tar` that writes {format}");
            return;
        }
        assert_same(format, &open(&root.path().join("train.tar")), &images);
        for class in CLASSES {
            assert!(tar(&["-cf", &format!("../{class}.tar"), "-C", class, "."]));
        }
        let inner = CLASSES.map(|class| format!("{class}.tar"));
        assert!(tar(&["-cf", "../all.tar", "-C", "..", &inner[2], &inner[0], &inner[1]]));
        assert_same(format, &open(&root.path().join("all.tar")), &images);
    }
}

#[test]
fn eight_threads_read_what_one_reads() {
    let (root, images) = (folder(), images());
    let rows = rows(&shuffled(&images));
    parquet::write(&root.path().join("x.parquet"), &rows, None, Layout { rows_per_page: 2, ..Layout::default() });
    write(root.path(), "x.tar", tar::tar_of_tars(&images));
    for name in ["x.parquet", "x.tar"] {
        let source = open(&root.path().join(name));
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (source, images) = (&source, &images);
                scope.spawn(move || {
                    let mut bytes = Vec::new();
                    for i in 0..300 {
                        let index = (i * (2 * thread + 1) + thread) % images.len();
                        source.read(index, &mut bytes).expect("readable");
                        assert!(bytes == images[index].bytes, "{name} {index}");
                    }
                });
            }
        });
    }
}

#[test]
fn more_tars_than_files_may_be_open() {
    let root = folder();
    for i in 0..200 {
        write(root.path(), &format!("{i:03}.tar"), archive_of([(format!("{i}.jpg"), &[i as u8][..])]));
    }
    let source = open(&root.path().join("{000..199}.tar"));
    assert_eq!((source.len(), source.kind()), (200, "tar shards"));
    let found = good(&source);
    assert!(found.iter().all(|image| image.key == format!("{}.jpg", image.bytes[0])));
    assert_eq!(found.len(), 200);
}

#[test]
fn the_reference_s_skip_list_is_known_by_file_name() {
    let root = folder();
    let name = OPEN_MAGVIT2_EXCLUDE[0];
    let tars = [("n06596364.tar".to_owned(), archive_of([(name.to_owned(), &b"x"[..]), ("b.JPEG".to_owned(), b"y")]))];
    let path = write(root.path(), "train.tar", archive_of(tars.iter().map(|(name, tar)| (name.clone(), &tar[..]))));
    let exclude = OPEN_MAGVIT2_EXCLUDE.map(str::to_owned).to_vec();
    let source = Source::open(&path, &SourceOptions { exclude, ..SourceOptions::default() }).expect("source");
    assert_eq!((keys(&source), source.excluded()), (vec!["n06596364/b.JPEG"], 1));
}

#[test]
fn a_limit_takes_the_first_of_a_container() {
    let (root, images) = (folder(), images());
    let path = write(root.path(), "x.tar", tar::tar_of_tars(&shuffled(&images)));
    let source = Source::open(&path, &SourceOptions { limit: Some(4), ..SourceOptions::default() }).expect("source");
    assert!(good(&source) == images[..4]);
}

#[test]
fn what_cannot_be_read_by_position_is_refused_with_advice() {
    let root = folder();
    let gzip = write(root.path(), "a/x.tar.gz", [0x1F, 0x8B, 8, 0, 0]);
    write(root.path(), "a/y.zip", b"PK\x03\x04");
    for (path, words) in [
        (gzip.clone(), ["compressed with gzip", "gunzip --keep"]),
        (root.path().join("a/y.zip"), ["a zip archive", "`unzip "]),
        (root.path().join("a"), ["compressed with gzip", "gunzip --keep"]),
        (write(root.path(), "named.tar", [0x1F, 0x8B, 8, 0, 0]), ["compressed with gzip", "gunzip --keep"]),
    ] {
        let message = error(&path);
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }
    let one = archive_of([("a.jpg".to_owned(), &b"x"[..])]);
    write(root.path(), "a/z.tar", &one);
    assert_eq!(open(&root.path().join("a")).ignored(), 2, "beside a tar they are passed over");
    parquet::write(&root.path().join("a/z.parquet"), &rows(&images()), None, Layout::default());
    assert!(error(&root.path().join("a")).contains("different kinds"));
}

#[test]
fn splits_in_one_folder_or_tar_are_a_mistake() {
    let root = folder();
    let tar = archive_of([("n01440764/a.jpg".to_owned(), &b"x"[..])]);
    write(root.path(), "both/ILSVRC2012_img_train.tar", &tar);
    write(root.path(), "both/ILSVRC2012_img_val.tar", &tar);
    let message = error(&root.path().join("both"));
    assert!(message.contains("train, val") && message.contains("ILSVRC2012_img_train.tar"), "{message}");
    let members = ["train/n01/a.jpg", "val/n01/a.jpg"].map(|name| (name.to_owned(), &b"x"[..]));
    let message = error(&write(root.path(), "all.tar", archive_of(members)));
    assert!(message.contains("train, val") && message.contains("archive of each"), "{message}");
    write(root.path(), "hub/data/train-0.tar", &tar);
    let message = error(&root.path().join("hub"));
    assert!(message.contains("containers in") && message.contains("hub/data"), "{message}");
}

#[test]
fn patterns_must_be_whole() {
    let root = folder();
    write(root.path(), "000.tar", archive_of([("a.jpg".to_owned(), &b"x"[..])]));
    let message = error(&root.path().join("{000..002}.tar"));
    assert!(message.contains("2 of its 3 files are missing") && message.contains("001.tar"), "{message}");
    assert!(error(&root.path().join("{9..1}.tar")).contains("'{9..1}'"));
    assert!(error(&root.path().join("no.tar")).contains("no such file"));
    let path: PathBuf = write(root.path(), "odd{0,1}.tar", fs::read(root.path().join("000.tar")).expect("tar"));
    assert_eq!(open(Path::new(&path)).len(), 1, "a file of that name is that file");
}
