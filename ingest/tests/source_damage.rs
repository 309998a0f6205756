//! Damaged and made-up containers: each damaged place is an item with a reason, and everything else is read.

mod containers;

use containers::parquet::{Layout, Row};
use containers::tar::{archive, archive_of, class_tars, header, header_with_size, member, padded, pax, tar_of_tars};
use containers::*;
use proptest::prelude::*;
use std::fs;
use tokengrid_ingest::{IngestError, Source, SourceOptions};

/// `a.jpg` to `e.jpg`, each of 700 bytes of its own letter: 1,536 bytes per member.
fn letters() -> Vec<Vec<u8>> {
    (b'a'..=b'e').map(|letter| member(&format!("{}.jpg", letter as char), &[letter; 700])).collect()
}

/// Names of what can be read from an `x.tar` of these bytes, and what cannot, after a check that the readable is right.
fn read_tar(bytes: &[u8]) -> (String, Vec<(String, String)>) {
    let root = folder();
    let source = open(&write(root.path(), "x.tar", bytes));
    let good = good(&source);
    assert!(good.iter().all(|image| image.bytes == [image.key.as_bytes()[0]; 700]), "right bytes");
    let bad = bad(&source);
    assert_eq!((good.len() + bad.len(), bad.len()), (source.len(), source.damaged()), "every item is one or the other");
    (good.iter().map(|image| &image.key[..1]).collect(), bad)
}

fn one(bad: &[(String, String)]) -> (&str, &str) {
    assert_eq!(bad.len(), 1, "{bad:?}");
    (&bad[0].0, &bad[0].1)
}

#[test]
fn a_damaged_header_costs_one_member() {
    let mut bytes = archive(&letters());
    bytes[2 * 1536 + 3] ^= 0x40;
    let (good, bad) = read_tar(&bytes);
    assert_eq!(good, "abde");
    assert_eq!(one(&bad), ("x.tar@3072", "a header with a wrong checksum"));
    bytes[..512].fill(0x55);
    let (good, bad) = read_tar(&bytes);
    assert_eq!((good.as_str(), bad[0].0.as_str(), bad.len()), ("bde", "x.tar@0", 2), "the first one, too");
}

#[test]
fn garbage_between_members_is_passed() {
    let mut members = letters();
    members.insert(2, (0..2048u32).map(|i| (i * 7 % 251) as u8).collect());
    let (good, bad) = read_tar(&archive(&members));
    assert_eq!(good, "abcde");
    assert_eq!(one(&bad), ("x.tar@3072", "not a tar header"));
}

#[test]
fn sizes_beyond_the_end_or_below_zero_cost_one_member() {
    for (size, name) in
        [(&b"77777777777\0"[..], "c.jpg"), (&[0xFF; 12], "x.tar@3072"), (b"-0000000010\0", "x.tar@3072")]
    {
        let mut members = letters();
        members[2] = [&header_with_size("c.jpg", size, b'0')[..], &padded(&[b'c'; 700])].concat();
        let (good, bad) = read_tar(&archive(&members));
        assert_eq!((good.as_str(), one(&bad).0), ("abde", name));
    }
    let mut members = letters();
    members[2] = [pax(b'x', &[("size", "99999999999999999")]), members[2].clone()].concat();
    let (good, bad) = read_tar(&archive(&members));
    assert_eq!((good.as_str(), one(&bad).0), ("abde", "c.jpg"));
    assert!(one(&bad).1.contains("cut off") && one(&bad).1.contains("99999999999999999"), "{bad:?}");
}

#[test]
fn a_tar_cut_anywhere_gives_what_is_whole() {
    let bytes = archive(&letters());
    for cut in (1536..bytes.len()).step_by(101) {
        let (good, bad) = read_tar(&bytes[..cut]);
        let whole = "abcde".len().min((cut + 324) / 1536);
        assert_eq!(good, "abcde"[..whole], "cut at {cut}");
        assert!(bad.len() <= 1, "cut at {cut}: {bad:?}");
        let inside = cut < 5 * 1536 && cut % 1536 != 0 && cut % 1536 < 512 + 700;
        assert_eq!(bad.len(), usize::from(inside), "cut at {cut}: {bad:?}");
    }
}

#[test]
fn a_lost_sector_is_noticed_and_two_archives_in_a_row_are_read() {
    let mut bytes = archive(&letters());
    bytes[1536..1536 + 2048].fill(0);
    let (good, bad) = read_tar(&bytes);
    assert_eq!((good.as_str(), one(&bad).0), ("ade", "x.tar@1536"));
    let two = [archive(&letters()[..2]), vec![0; 9 * 512], archive(&letters()[2..])].concat();
    assert_eq!(read_tar(&two), ("abcde".to_owned(), vec![]));
    let junk = [archive(&letters()), vec![7; 3000]].concat();
    assert_eq!(read_tar(&junk), ("abcde".to_owned(), vec![]), "junk after the end is ignored");
}

#[test]
fn a_damaged_class_tar_costs_its_own_images_only() {
    let (root, images) = (folder(), images());
    let mut tars = class_tars(&images);
    tars[1].1 = vec![0x33; 20_000];
    let path =
        write(root.path(), "t.tar", archive_of(tars.iter().map(|(name, tar)| (format!("{name}.tar"), &tar[..]))));
    let source = open(&path);
    assert_eq!(good(&source), images.iter().filter(|i| i.label != 1).cloned().collect::<Vec<_>>());
    assert_eq!(one(&bad(&source)), ("n01443537.tar@0", "not a tar header"));
    assert_eq!(source.classes(), CLASSES, "its class keeps its rank");
}

#[test]
fn damage_inside_a_class_tar_is_named_by_its_place_there() {
    let (root, images) = (folder(), images());
    let mut tars = class_tars(&images);
    let second = 512 + images[5].bytes.len().next_multiple_of(512);
    tars[1].1[second] ^= 1;
    let path =
        write(root.path(), "t.tar", archive_of(tars.iter().map(|(name, tar)| (format!("{name}.tar"), &tar[..]))));
    let source = open(&path);
    assert_eq!(good(&source).len(), 14);
    assert_eq!(one(&bad(&source)).0, format!("n01443537.tar@{second}"));
    assert_eq!(source.describe(), "tar of class tars: 14 images, 3 classes, 1 damaged place");
}

#[test]
fn a_class_tar_without_its_name_is_one_item_and_not_five_strangers() {
    let (root, images) = (folder(), images());
    for class in 0..3 {
        let tars = class_tars(&images);
        let mut bytes = tar_of_tars(&images);
        let at: usize = tars[..class].iter().map(|(_, tar)| 512 + tar.len().next_multiple_of(512)).sum();
        bytes[at] ^= 1;
        let source = open(&write(root.path(), "t.tar", bytes));
        assert_eq!(one(&bad(&source)).0, format!("t.tar@{at}"));
        let others = images.iter().filter(|image| image.label != class as i32).map(|image| &image.key);
        assert_eq!(good(&source).iter().map(|image| &image.key).collect::<Vec<_>>(), others.collect::<Vec<_>>());
    }
}

#[test]
fn a_tar_of_tars_that_is_cut_off_gives_what_is_there() {
    let (root, images) = (folder(), images());
    let bytes = tar_of_tars(&images);
    let source = open(&write(root.path(), "t.tar", &bytes[..bytes.len() * 2 / 3]));
    let good = good(&source);
    assert!(good.len() >= 5 && images.starts_with(&good), "{} images", good.len());
    assert!(bad(&source).iter().any(|(key, why)| key.starts_with("t.tar@") && why.contains("cut off")));
}

#[test]
fn names_without_end_are_not_believed() {
    let mut members = letters();
    members[2] = [pax(b'x', &[("path", &"n/".repeat(5000))]), members[2].clone()].concat();
    let (good, bad) = read_tar(&archive(&members));
    assert_eq!(good, "abcde", "the header's own name is what is left");
    assert!(one(&bad).0 == "x.tar@3072" && one(&bad).1.contains("4096 bytes"), "{bad:?}");
}

#[test]
fn a_class_tar_with_a_wrong_size_costs_no_other() {
    let (root, images) = (folder(), images());
    let tars = class_tars(&images);
    let mut members: Vec<_> = tars.iter().map(|(class, tar)| member(&format!("{class}.tar"), tar)).collect();
    let wrong = header_with_size("n01440764.tar", b"77777777777\0", b'0');
    members[0][..512].copy_from_slice(&wrong);
    let source = open(&write(root.path(), "t.tar", archive(&members)));
    assert!(good(&source) == images, "{:?}", keys(&source));
    assert_eq!(one(&bad(&source)).0, "t.tar@0");
    // Each of these would contain all that follow.
    let many: Vec<_> =
        (0..20_000).map(|i| header_with_size(&format!("{i}.tar"), b"77777777777\0", b'0').to_vec()).collect();
    let source = open(&write(root.path(), "m.tar", archive(&[&many[..], &letters()].concat())));
    assert_eq!((good(&source).len(), source.damaged()), (5, 20_000));
}

#[test]
fn nesting_ends_at_tars_in_a_tar() {
    let deep = archive(&[member(
        "n01440764.tar",
        &archive(&[member("inner.tar", &archive(&letters())), letters()[0].clone()]),
    )]);
    let root = folder();
    let source = open(&write(root.path(), "t.tar", deep));
    assert_eq!((keys(&source), source.ignored()), (vec!["n01440764/a.jpg"], 1));
}

#[test]
fn shards_that_are_empty_or_something_else_are_items() {
    let root = folder();
    write(root.path(), "0.tar", archive(&letters()));
    write(root.path(), "1.tar", b"");
    write(root.path(), "2.tar", vec![0; 100_000]);
    write(root.path(), "3.tar", "<html>404</html>");
    write(root.path(), "4.tar", vec![0; 10_240]);
    let source = open(root.path());
    assert_eq!(good(&source).len(), 5);
    let bad = bad(&source);
    assert_eq!(bad.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["1.tar@0", "2.tar@0", "3.tar@0"]);
    assert!(bad[0].1.contains("no member in 0 bytes") && bad[2].1.contains("inside a header"), "{bad:?}");
}

#[test]
fn a_container_of_which_nothing_can_be_read_is_an_error() {
    let root = folder();
    for (name, bytes) in [("x.tar", vec![0x11; 5000]), ("y.tar", vec![]), ("z.parquet", b"PAR1 and no more".to_vec())] {
        let message = error(&write(root.path(), name, bytes));
        assert!(message.contains(name) && message.contains("nothing in it can be read"), "{message}");
    }
    let empty = error(&write(root.path(), "e.tar", vec![0; 10_240]));
    assert!(empty.contains("no images"), "{empty}");
}

#[test]
fn a_file_that_changes_after_it_was_opened_is_an_error_of_the_image() {
    let root = folder();
    let path = write(root.path(), "x.tar", archive(&letters()));
    let source = open(&path);
    fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(4 * 1536)).expect("shorter");
    assert_eq!(good(&source).len(), 4);
    assert_eq!(bad(&source)[0].0, "e.jpg");
}

fn rows() -> Vec<Row> {
    let row = |i: u8| (Some(vec![i; 500]), Some(format!("{i:02}.png")), Some(i64::from(i)));
    (0..12).map(row).collect()
}

/// Not compressed, four rows per group, two rows per page.
fn plain() -> Layout {
    let compression = ::parquet::basic::Compression::UNCOMPRESSED;
    Layout { compression, dictionary: false, version_2: false, rows_per_group: 4, rows_per_page: 2 }
}

fn find(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).position(|window| window == what).expect("it is there")
}

#[test]
fn a_parquet_file_without_its_footer_is_one_item() {
    let root = folder();
    parquet::write(&root.path().join("0.parquet"), &rows()[..6], None, plain());
    parquet::write(&root.path().join("1.parquet"), &rows()[6..], None, plain());
    let bytes = fs::read(root.path().join("1.parquet")).expect("file");
    for damaged in [&bytes[..bytes.len() - 9], &bytes[..100], b"PAR1", b""] {
        write(root.path(), "1.parquet", damaged);
        let source = open(root.path());
        assert_eq!(good(&source).len(), 6);
        assert_eq!(one(&bad(&source)).0, "1.parquet");
    }
}

#[test]
fn a_damaged_page_costs_its_own_rows() {
    let root = folder();
    let path = root.path().join("x.parquet");
    parquet::write(&path, &rows(), None, plain());
    let mut bytes = fs::read(&path).expect("file");
    // The length in front of image 7, which is the second of its page.
    let at = find(&bytes, &[7; 500]) - 4;
    bytes[at + 3] = 0x7F;
    fs::write(&path, bytes).expect("file");
    let source = open(&path);
    let bad = bad(&source);
    assert_eq!(bad.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["06.png", "07.png"]);
    assert!(bad[0].1.contains("page with row 6"), "{bad:?}");
    assert_eq!((good(&source).len(), source.len()), (10, 12));
}

#[test]
fn a_damaged_page_header_costs_the_rest_of_its_row_group() {
    let root = folder();
    let path = root.path().join("x.parquet");
    parquet::write(&path, &rows(), None, plain());
    let mut bytes = fs::read(&path).expect("file");
    let end_of_first_page = find(&bytes, &[5; 500]) + 500;
    bytes[end_of_first_page..end_of_first_page + 8].fill(0xEE);
    fs::write(&path, bytes).expect("file");
    let source = open(&path);
    let bad = bad(&source);
    assert_eq!(bad.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["06.png", "07.png"]);
    assert!(bad[0].1.contains("page header at byte"), "{bad:?}");
}

#[test]
fn rows_whose_keys_are_lost_are_one_item() {
    let root = folder();
    let path = root.path().join("x.parquet");
    parquet::write(&path, &rows(), None, plain());
    let mut bytes = fs::read(&path).expect("file");
    let at = find(&bytes, b"05.png") - 10;
    bytes[at..at + 10].fill(0xEE);
    fs::write(&path, bytes).expect("file");
    let source = open(&path);
    let bad = bad(&source);
    assert!(one(&bad).0 == "x.parquet@4-7" && one(&bad).1.contains("image.path"), "{bad:?}");
    assert_eq!((good(&source).len(), source.len()), (8, 9));
}

#[test]
fn damaged_compressed_pages_are_errors_of_their_rows() {
    use ::parquet::basic::Compression;
    let root = folder();
    let path = root.path().join("x.parquet");
    for compression in
        [Compression::SNAPPY, Compression::ZSTD(Default::default()), Compression::GZIP(Default::default())]
    {
        parquet::write(&path, &rows(), None, Layout { compression, ..plain() });
        let mut bytes = fs::read(&path).expect("file");
        bytes[40..60].fill(0xFF);
        fs::write(&path, bytes).expect("file");
        let source = open(&path);
        assert_eq!(good(&source).len() + bad(&source).len(), source.len());
        assert!((8..12).contains(&good(&source).len()), "{compression}: {} rows", good(&source).len());
    }
}

/// Opens what may be anything, and reads all of it: items are readable or not, and what is readable is not larger than the
/// file allows. Returns how many items there are.
fn survive(name: &str, bytes: &[u8], most: usize) -> usize {
    let root = folder();
    let path = write(root.path(), name, bytes);
    let source = match Source::open(&path, &SourceOptions::default()) {
        Ok(source) => source,
        Err(IngestError::AllDamaged { damaged, .. }) => return damaged,
        Err(_) => return 0,
    };
    let mut into = Vec::new();
    let mut good = 0;
    for index in 0..source.len() {
        if source.read(index, &mut into).is_ok() {
            assert!(into.len() <= most, "{} bytes", into.len());
            good += 1;
        }
        assert!(into.capacity() <= 2 * most.max(64), "memory for {} bytes", into.capacity());
    }
    assert!(good + source.damaged() <= source.len());
    let mut keys = keys(&source);
    keys.sort_unstable();
    assert!(keys.windows(2).all(|pair| pair[0] != pair[1]), "keys differ");
    source.len()
}

/// Ways to damage a file.
fn damage()
-> impl Strategy<Value = (Vec<(prop::sample::Index, u8)>, Option<prop::sample::Index>, Option<prop::sample::Index>)> {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12);
    (edits, prop::option::of(any::<prop::sample::Index>()), prop::option::of(any::<prop::sample::Index>()))
}

fn apply(
    bytes: &mut Vec<u8>,
    (edits, zeros, cut): (Vec<(prop::sample::Index, u8)>, Option<prop::sample::Index>, Option<prop::sample::Index>),
) {
    for (place, value) in edits {
        let at = place.index(bytes.len());
        bytes[at] = value;
    }
    if let Some(zeros) = zeros {
        let at = zeros.index(bytes.len());
        let end = (at + 700).min(bytes.len());
        bytes[at..end].fill(0);
    }
    if let Some(cut) = cut {
        bytes.truncate(cut.index(bytes.len() + 1));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn damaged_tars_are_read_or_refused(damage in damage()) {
        let inner = archive(&letters());
        let mut bytes = archive(&[member("n01.tar", &inner), letters()[1].clone(), member("n02.tar", &inner)]);
        apply(&mut bytes, damage);
        let items = survive("x.tar", &bytes, bytes.len());
        prop_assert!(items <= 1 + bytes.len() / 512);
    }

    #[test]
    fn damaged_headers_are_read_or_refused(edits in prop::collection::vec((0usize..5, 100usize..512, any::<u8>()), 1..6)) {
        let mut bytes = archive(&letters());
        for (member, at, value) in edits {
            let start = member * 1536;
            bytes[start + at] = value;
            let mut block: [u8; 512] = bytes[start..start + 512].try_into().expect("a block");
            tar::sum(&mut block);
            bytes[start..start + 512].copy_from_slice(&block);
        }
        survive("x.tar", &bytes, bytes.len());
    }

    #[test]
    fn damaged_shards_are_read_or_refused(damage in damage()) {
        let sample = |i: u8| [member(&format!("{i}.jpg"), &[i; 600]), member(&format!("{i}.cls"), b"3"),
            member(&format!("{i}.json"), b"{\"label\": 4, \"filename\": \"a.png\"}")].concat();
        let mut bytes = archive(&(0..6).map(sample).collect::<Vec<_>>());
        apply(&mut bytes, damage);
        survive("x.tar", &bytes, bytes.len());
    }

    #[test]
    fn damaged_parquet_is_read_or_refused(damage in damage(), packed in 0usize..4, dictionary in any::<bool>(), version_2 in any::<bool>()) {
        use ::parquet::basic::Compression;
        let root = folder();
        let path = root.path().join("x.parquet");
        let compression = [Compression::UNCOMPRESSED, Compression::SNAPPY, Compression::ZSTD(Default::default()),
            Compression::LZ4_RAW][packed];
        parquet::write(&path, &rows(), None, Layout { compression, dictionary, version_2, ..plain() });
        let mut bytes = fs::read(&path).expect("file");
        apply(&mut bytes, damage);
        // 255 to 1 is what the best of these codecs does.
        survive("x.parquet", &bytes, 255 * bytes.len());
    }

    #[test]
    fn noise_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..3000), start in prop::sample::select(vec![&b"PAR1"[..], b""])) {
        survive("x.tar", &[start, &bytes].concat(), bytes.len());
        survive("x.parquet", &[start, &bytes, start].concat(), bytes.len());
    }

    #[test]
    fn noise_behind_good_headers_is_read_or_refused(kinds in prop::collection::vec((0u8..=255, 0u64..3000, any::<u8>()), 1..20)) {
        let block = |(kind, size, fill): (u8, u64, u8)| [&header("n/a.jpg", size, kind)[..], &vec![fill; 600]].concat();
        let bytes = kinds.into_iter().map(block).collect::<Vec<_>>().concat();
        survive("x.tar", &bytes, bytes.len());
    }
}
