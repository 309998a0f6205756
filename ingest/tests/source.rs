//! What is recognised at a path, which keys and labels images get, and what is said when nothing can be done.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tokengrid_ingest::{IngestError, Source, SourceOptions};

/// A folder with these files, each holding its own path.
fn tree(files: &[&str]) -> TempDir {
    let root = tempfile::tempdir().expect("temporary folder");
    files.iter().for_each(|file| write(root.path(), file));
    root
}

fn write(root: &Path, file: &str) {
    let path = root.join(file);
    fs::create_dir_all(path.parent().expect("parent")).expect("folder");
    fs::write(path, file).expect("file");
}

fn open(path: &Path) -> Source {
    Source::open(path, &SourceOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn error(path: &Path) -> String {
    let error = Source::open(path, &SourceOptions::default()).expect_err("an error");
    let text = error.to_string();
    assert!(!text.contains('\n'), "one line: {text}");
    text
}

/// (key, label) of every image, after a check that each reads as the file of its key.
fn items(source: &Source) -> Vec<(&str, i32)> {
    let mut bytes = Vec::new();
    (0..source.len())
        .map(|i| {
            source.read(i, &mut bytes).expect("readable");
            assert!(!bytes.is_empty());
            (source.key(i), source.label(i))
        })
        .collect()
}

#[test]
fn class_folders_give_labels_in_byte_order_of_their_names() {
    let root = tree(&["n02/b.JPEG", "n02/a.JPEG", "n01/z.jpg", "B/x.png", "n01/deep/er/y.webp"]);
    let source = open(root.path());
    assert_eq!(source.kind(), "class folders");
    assert_eq!(source.classes(), ["B", "n01", "n02"]);
    let expected = [("B/x.png", 0), ("n01/deep/er/y.webp", 1), ("n01/z.jpg", 1), ("n02/a.JPEG", 2), ("n02/b.JPEG", 2)];
    assert_eq!(items(&source), expected);
    assert_eq!(source.root(), root.path());
}

#[test]
fn a_folder_without_images_is_no_class() {
    let root = tree(&["n01/notes.txt", "n02/a.jpg"]);
    let source = open(root.path());
    assert_eq!(source.classes(), ["n02"]);
    assert_eq!(items(&source), [("n02/a.jpg", 0)]);
    assert_eq!(source.ignored(), 1);
    assert!(source.notes()[0].contains("1 folder without images ('n01')"), "{:?}", source.notes());
}

#[test]
fn classes_stay_together_where_whole_keys_would_sort_otherwise() {
    // '-' sorts before '/': by whole keys, n01-x would come before n01.
    let root = tree(&["n01/a.jpg", "n01-x/a.jpg"]);
    assert_eq!(items(&open(root.path())), [("n01/a.jpg", 0), ("n01-x/a.jpg", 1)]);
}

#[test]
fn a_flat_folder_has_no_labels() {
    let root = tree(&["b.jpg", "a.JpG", "notes/readme.txt"]);
    let source = open(root.path());
    assert_eq!((source.kind(), source.classes().len()), ("flat folder", 0));
    assert_eq!(items(&source), [("a.JpG", -1), ("b.jpg", -1)]);
}

#[test]
fn images_beside_class_folders_are_unlabelled() {
    let root = tree(&["n01/a.jpg", "stray.jpg"]);
    assert_eq!(items(&open(root.path())), [("n01/a.jpg", 0), ("stray.jpg", -1)]);
}

#[test]
fn every_image_ending_counts_in_any_case_and_nothing_else_does() {
    let root = tree(&["1.jpg", "2.JPEG", "3.Png", "4.webp", "5.GIF", "6.bmp", "7.txt", "8.tiff", "9", "jpg"]);
    let source = open(root.path());
    assert_eq!(source.len(), 6);
    assert_eq!(source.ignored(), 4);
}

#[test]
fn hidden_files_are_passed_over() {
    let root = tree(&["n01/a.jpg", "n01/.DS_Store", "n01/._a.jpg", ".git/x.jpg", "__MACOSX/n01/a.jpg", ".hidden.jpg"]);
    let source = open(root.path());
    assert_eq!((items(&source), source.classes().len()), (vec![("n01/a.jpg", 0)], 1));
    assert_eq!(source.ignored(), 0);
}

#[test]
fn links_are_followed_but_not_in_circles() {
    let elsewhere = tree(&["real/a.jpg"]);
    let root = tree(&["n01/b.jpg"]);
    symlink(elsewhere.path().join("real"), root.path().join("n02")).expect("link");
    symlink(elsewhere.path().join("real/a.jpg"), root.path().join("n01/linked.jpg")).expect("link");
    symlink(root.path(), root.path().join("n01/loop")).expect("link");
    symlink(root.path().join("n01"), root.path().join("n01/self")).expect("link");
    symlink(".", root.path().join("n03")).expect("link");
    let source = open(root.path());
    assert_eq!(items(&source), [("n01/b.jpg", 0), ("n01/linked.jpg", 0), ("n02/a.jpg", 1)]);
}

#[test]
fn a_link_to_nowhere_is_listed_and_fails_when_it_is_read() {
    let root = tree(&["a.jpg"]);
    symlink("gone.jpg", root.path().join("b.jpg")).expect("link");
    symlink("gone.txt", root.path().join("c.txt")).expect("link");
    let source = open(root.path());
    assert_eq!(source.len(), 2);
    assert!(source.read(1, &mut Vec::new()).is_err());
}

#[test]
fn a_pipe_named_like_an_image_is_not_waited_for() {
    let root = tree(&["a.jpg"]);
    let made = std::process::Command::new("mkfifo").arg(root.path().join("b.jpg")).status();
    assert!(made.is_ok_and(|status| status.success()));
    assert_eq!(open(root.path()).len(), 1);
}

#[test]
fn names_that_are_not_utf_8_get_keys_of_their_own() {
    let root = tree(&["n01/x%FF.jpg"]);
    let odd = |name: &[u8]| PathBuf::from(OsStr::from_bytes(name));
    fs::write(root.path().join("n01").join(odd(b"x\xFF.jpg")), "odd file").expect("file");
    fs::create_dir(root.path().join(odd(b"n\xFE"))).expect("folder");
    fs::write(root.path().join(odd(b"n\xFE")).join("y.jpg"), "in odd folder").expect("file");
    let source = open(root.path());
    assert_eq!(items(&source), [("n01/x%FF.jpg", 0), ("n01/x%FF.jpg~2", 0), ("n%FE/y.jpg", 1)]);
    let mut bytes = Vec::new();
    source.read(1, &mut bytes).expect("readable");
    assert_eq!(bytes, b"odd file");
    source.read(2, &mut bytes).expect("readable");
    assert_eq!(bytes, b"in odd folder");
    assert_eq!(source.classes(), ["n01", "n%FE"]);
}

#[test]
fn excluded_images_are_counted_and_change_no_label() {
    let root = tree(&["n01/a.jpg", "n02/a.jpg", "n02/b.jpg", "n03/c.jpg"]);
    let exclude = vec!["b.jpg".to_owned(), "n01/a.jpg".to_owned(), "not-there.jpg".to_owned()];
    let source = Source::open(root.path(), &SourceOptions { exclude, ..SourceOptions::default() }).expect("source");
    assert_eq!(items(&source), [("n02/a.jpg", 1), ("n03/c.jpg", 2)]);
    assert_eq!(source.excluded(), 2);
}

#[test]
fn a_limit_takes_the_first_and_changes_no_label() {
    let root = tree(&["n01/a.jpg", "n02/a.jpg", "n03/a.jpg"]);
    for limit in 0..5 {
        let options =
            SourceOptions { exclude: vec!["n01/a.jpg".into()], limit: Some(limit), ..SourceOptions::default() };
        let source = Source::open(root.path(), &options).expect("source");
        let all = [("n02/a.jpg", 1), ("n03/a.jpg", 2)];
        assert_eq!(items(&source), all[..limit.min(2)], "limit {limit}");
    }
}

#[test]
fn a_buffer_is_reused_and_replaced() {
    let root = tree(&["a.jpg", "b.jpg"]);
    fs::write(root.path().join("a.jpg"), vec![1; 1000]).expect("file");
    let source = open(root.path());
    let mut bytes = vec![9; 50];
    source.read(0, &mut bytes).expect("readable");
    assert_eq!(bytes, vec![1; 1000]);
    let room = bytes.capacity();
    source.read(1, &mut bytes).expect("readable");
    assert_eq!((bytes.as_slice(), bytes.capacity()), (b"b.jpg".as_slice(), room));
}

#[test]
fn a_list_names_files_and_labels() {
    let root = tree(&["a/x.jpg", "a/with space.jpg", "b/7 8.jpg", "plain", "c.jpg"]);
    let list = "\u{FEFF}a/x.jpg\t3\r\n\r\n./a//with space.jpg\nb/7 8.jpg 12\nplain\nc.jpg   -1";
    fs::write(root.path().join("list.txt"), list).expect("list");
    let source = open(&root.path().join("list.txt"));
    assert_eq!((source.kind(), source.root()), ("file list", root.path()));
    let expected = [("a/x.jpg", 3), ("a/with space.jpg", -1), ("b/7 8.jpg", 12), ("plain", -1), ("c.jpg", -1)];
    assert_eq!(items(&source), expected, "in the order of the list");
}

#[test]
fn a_list_says_which_line_is_wrong() {
    let root = tree(&["a.jpg", "b.jpg"]);
    let list = root.path().join("list.txt");
    let message = |text: &str| {
        fs::write(&list, text).expect("list");
        error(&list)
    };
    let missing = message("a.jpg\nc.jpg\nb.jpg\nd.jpg\n");
    assert!(missing.contains("line 2") && missing.contains("'c.jpg'") && missing.contains("2 of 4"), "{missing}");
    assert!(missing.contains(&*root.path().to_string_lossy()), "{missing}");
    let label = message("a.jpg\t0\nb.jpg\tcat\n");
    assert!(label.contains("line 2") && label.contains("'cat'"), "{label}");
    let twice = message("a.jpg\nb.jpg\n./a.jpg\n");
    assert!(twice.contains("line 3") && twice.contains("line 1"), "{twice}");
    let absolute = message("/no/such/file.jpg\n");
    assert!(absolute.contains("line 1") && absolute.contains("'file.jpg' under /no/such"), "{absolute}");
    let dots = message("/../../a.jpg\n../b.jpg\n");
    assert!(dots.contains("line 1") && dots.contains("out of the file system"), "{dots}");
    let folder = message(&format!("a.jpg\n{}\n", root.path().parent().expect("parent").display()));
    assert!(folder.contains("line 2") && folder.contains("is a folder"), "{folder}");
    let outside = message("../a.jpg\n");
    assert!(outside.contains("line 1") && outside.contains("out of the list's folder"), "{outside}");
    let empty = message("\n\n");
    assert!(empty.contains("no images") && empty.contains("the list has no lines"), "{empty}");
}

#[test]
fn a_list_may_name_files_anywhere() {
    let (root, elsewhere) = (tree(&["c/own.jpg"]), tree(&["set/cat/1.jpg", "set/dog/2.jpg", "set/c/own.jpg"]));
    let list = root.path().join("list.txt");
    let own = root.path().join("c/own.jpg").to_string_lossy().into_owned();
    let other = |name: &str| elsewhere.path().join("set").join(name).to_string_lossy().into_owned();
    fs::write(&list, format!("{own}\t1\n")).expect("list");
    assert_eq!(items(&open(&list)), [("c/own.jpg", 1)], "below the list's folder: as if it were relative");
    // Elsewhere, keys are relative to the folder that holds all of them.
    fs::write(&list, format!("{}\n{} 3\n", other("cat/1.jpg"), other("dog/2.jpg"))).expect("list");
    let source = open(&list);
    assert_eq!(items(&source), [("cat/1.jpg", -1), ("dog/2.jpg", 3)]);
    assert_eq!(source.root(), elsewhere.path().join("set"));
    // Both, with a name that comes twice.
    fs::write(&list, format!("c/own.jpg\n{}\n{}\n", other("c/own.jpg"), other("cat/1.jpg"))).expect("list");
    let source = open(&list);
    assert_eq!(items(&source), [("c/own.jpg", -1), ("c/own.jpg~2", -1), ("cat/1.jpg", -1)]);
    let mut bytes = Vec::new();
    source.read(1, &mut bytes).expect("readable");
    assert_eq!(bytes, b"set/c/own.jpg");
    fs::write(&list, format!("{0}\n{0}\n", other("cat/1.jpg"))).expect("list");
    assert!(error(&list).contains("line 1"));
    fs::write(&list, format!("c/own.jpg\n{own}\n")).expect("list");
    assert!(error(&list).contains("names the same file as line 1"));
    let text: Vec<u8> = "c/own.jpg\t4\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    fs::write(&list, [&[0xFF, 0xFE], &text[..]].concat()).expect("list");
    assert_eq!(items(&open(&list)), [("c/own.jpg", 4)], "as Windows writes it");
}

#[test]
fn a_list_may_go_up_inside_its_folder_and_name_it_through_links() {
    let (root, links) = (tree(&["cat/x.jpg", "dog/y.jpg"]), tree(&["other"]));
    std::os::unix::fs::symlink(root.path(), links.path().join("set")).expect("link");
    let list = root.path().join("list.txt");
    let expected = [("cat/x.jpg", 1), ("dog/y.jpg", 2)];
    for dog in [
        "cat/../dog/y.jpg".to_owned(),
        format!("{}/cat/../dog/./y.jpg", root.path().display()),
        format!("{}/set/dog/y.jpg", links.path().display()),
    ] {
        fs::write(&list, format!("cat/../cat/x.jpg\t1\n{dog}\t2\n")).expect("list");
        assert_eq!(items(&open(&list)), expected, "{dog}");
    }
    std::os::unix::fs::symlink(links.path(), root.path().join("away")).expect("link");
    fs::write(&list, "away/../dog/y.jpg\n").expect("list");
    assert!(error(&list).contains("'..' behind a link"), "{}", error(&list));
}

#[test]
fn a_list_beside_the_current_folder_is_relative_to_it() {
    let error = Source::open(Path::new("no-such-list.txt"), &SourceOptions::default()).expect_err("missing");
    assert!(matches!(error, IngestError::NotFound { .. }));
}

#[test]
fn what_is_not_there_or_empty_is_said_in_one_line() {
    let root = tree(&["docs/readme.md"]);
    let nowhere = error(&root.path().join("nowhere"));
    assert!(nowhere.contains("nowhere") && nowhere.contains("no such file or folder"), "{nowhere}");
    let empty = error(root.path());
    assert!(empty.contains("no images") && empty.contains("1 other file ") && empty.contains(".jpeg"), "{empty}");
    let exclude = SourceOptions { exclude: vec!["a.jpg".into()], ..SourceOptions::default() };
    let excluded = Source::open(tree(&["a.jpg"]).path(), &exclude).expect_err("all excluded");
    assert!(matches!(excluded, IngestError::AllExcluded { excluded: 1, .. }));
}

#[test]
fn images_beside_a_container_are_read_instead_of_it() {
    let root = tree(&["a.tar", "b.parquet", "x.jpg"]);
    let source = open(root.path());
    assert_eq!((source.kind(), source.len(), source.ignored()), ("flat folder", 1, 2));
}

#[test]
fn other_files_are_no_sources() {
    let root = tree(&["weights.bin"]);
    fs::write(root.path().join("one.jpg"), b"\xFF\xD8\xFF\xE0").expect("file");
    assert!(error(&root.path().join("weights.bin")).contains("not a source"));
    assert!(error(&root.path().join("one.jpg")).contains("a single JPEG file"));
}

#[test]
fn the_folder_above_train_and_val_is_a_mistake() {
    let root = tree(&["train/n01/a.jpg", "val/n01/a.jpg"]);
    let message = error(root.path());
    assert!(
        message.contains("train, val") && message.contains(&*root.path().join("train").to_string_lossy()),
        "{message}"
    );
    assert_eq!(open(&root.path().join("train")).len(), 1);
    // A class may have such a name, among others.
    assert_eq!(open(tree(&["train/a.jpg", "bus/b.jpg"]).path()).classes(), ["bus", "train"]);
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let root = tree(&["a.jpg"]);
    let file = fs::File::create(root.path().join("a.jpg")).expect("file");
    file.set_len(tokengrid_ingest::MAX_FILE_BYTES + 1).expect("sparse file");
    let error = open(root.path()).read(0, &mut Vec::new()).expect_err("too large");
    assert_eq!(error.kind(), std::io::ErrorKind::FileTooLarge);
}

#[test]
fn an_unreadable_folder_is_named() {
    let root = tree(&["n01/a.jpg"]);
    // Root reads everything: what cannot be read by anyone is a path through a file.
    let through = root.path().join("n01/a.jpg/x");
    assert!(matches!(
        Source::open(&through, &SourceOptions::default()),
        Err(IngestError::Unreadable { path, .. }) if path == through
    ));
}
