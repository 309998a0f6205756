//! Folders: what is no class, links that lead around, splits, and listing that is stopped.

mod containers;

use containers::tar::{archive_of, header, member};
use containers::*;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tempfile::TempDir;
use tokengrid_ingest::{IngestError, Source, SourceOptions};

fn tree(files: &[&str]) -> TempDir {
    let root = folder();
    files.iter().for_each(|file| drop(write(root.path(), file, "x")));
    root
}

fn items(path: &Path) -> Vec<(String, i32)> {
    let source = open(path);
    (0..source.len()).map(|i| (source.key(i).to_owned(), source.label(i))).collect()
}

fn rows(rows: &[(&str, i32)]) -> Vec<(String, i32)> {
    rows.iter().map(|(key, label)| ((*key).to_owned(), *label)).collect()
}

#[test]
fn folders_of_systems_are_no_classes() {
    let systems =
        ["lost+found", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "__pycache__"];
    let root = tree(&["cat/a.jpg", "dog/b.jpg"]);
    for system in systems {
        write(root.path(), &format!("{system}/c.jpg"), "x");
        write(root.path(), &format!("cat/{system}/a.jpg/thumb.jpg"), "x");
    }
    write(root.path(), ".snapshot/cat/a.jpg", "x");
    assert_eq!(items(root.path()), rows(&[("cat/a.jpg", 0), ("dog/b.jpg", 1)]));
    assert_eq!((open(root.path()).classes().len(), open(root.path()).notes().len()), (2, 0));
    let members = ["@eaDir/a.jpg", "cat/a.jpg", "cat/@eaDir/a.jpg", "lost+found/x.jpg", "dog/b.jpg"];
    let tar = write(root.path(), "x/a.tar", archive_of(members.map(|name| (name.to_owned(), &b"x"[..]))));
    assert_eq!(items(&tar), rows(&[("cat/a.jpg", 0), ("dog/b.jpg", 1)]));
}

#[test]
fn odd_class_folders_are_spoken_of() {
    let root = tree(&["cat/a.jpg", "dog/b.jpg", "meta/readme.txt", "old/notes.txt"]);
    let source = open(root.path());
    assert_eq!((source.classes().len(), source.notes().len()), (2, 1));
    assert!(source.notes()[0].contains("2 folders without images (first 'meta')"), "{:?}", source.notes());
    let nested = tree(&["all/cat/a.jpg", "all/dog/b.jpg"]);
    let source = open(nested.path());
    assert!(
        source.notes()[0].contains("no images themselves") && source.notes()[0].contains("'all'"),
        "{:?}",
        source.notes()
    );
    let tar = write(nested.path(), "x/a.tar", archive_of(["c/x.jpg", "d/y.txt"].map(|n| (n.to_owned(), &b"x"[..]))));
    assert!(open(&tar).notes()[0].contains("1 folder without images ('d')"), "{:?}", open(&tar).notes());
}

#[test]
fn labels_are_the_same_whatever_is_said_of_empty_folders() {
    let root = tree(&["b/1.jpg", "d/2.jpg", "c/notes.txt"]);
    std::fs::create_dir(root.path().join("a")).expect("folder");
    let expected = rows(&[("b/1.jpg", 0), ("d/2.jpg", 1)]);
    assert_eq!(items(root.path()), expected);
    let files = ["b/1.jpg", "d/2.jpg", "c/notes.txt"].map(|name| member(name, b"x"));
    let folders = ["a/", "b/", "c/", "d/"].map(|name| header(name, 0, b'5').to_vec());
    let end = vec![0; 1024];
    for (name, tar) in [
        ("with.tar", [folders.concat(), files.concat(), end.clone()].concat()),
        ("without.tar", [files.concat(), end].concat()),
    ] {
        let tar = write(root.path(), &format!("tars/{name}"), tar);
        assert_eq!((items(&tar), open(&tar).classes().len()), (expected.clone(), 2), "{name}");
        assert!(open(&tar).notes()[0].contains("without images"), "{:?}", open(&tar).notes());
    }
}

#[test]
fn splits_are_no_classes_whatever_lies_beside_them() {
    for (folders, advice) in [
        (&["seg_pred", "seg_test", "seg_train"][..], "seg_train"),
        (&["holdout", "test_data", "train_data", "unlabeled"], "train_data"),
        (&["bounding_box_test", "bounding_box_train", "gallery", "query"], "bounding_box_train"),
        (&["imagenet/val", "imagenet/train"], "imagenet/train"),
        (&["images/train", "images/val"], "images/train"),
    ] {
        let files: Vec<String> = folders.iter().map(|folder| format!("{folder}/a/1.jpg")).collect();
        let mut files: Vec<&str> = files.iter().map(String::as_str).collect();
        files.push("labels/train/1.txt");
        let root = tree(&files);
        let message = error(root.path());
        let example = root.path().join(advice);
        assert!(message.contains("splits") && message.contains(&*example.to_string_lossy()), "{message}");
        let tar = archive_of(files.iter().map(|name| ((*name).to_owned(), &b"x"[..])));
        let tars = folder();
        let message = error(&write(tars.path(), "a.tar", &tar));
        assert!(message.contains("splits"), "{message}");
    }
    let root = tree(&["bus/1.jpg", "train/1.jpg", "train_freight/2.jpg", "tram/train/3.jpg", "tram/val/3.jpg"]);
    assert_eq!(open(root.path()).classes(), ["bus", "train", "train_freight", "tram"]);
    assert!(open(root.path()).notes()[0].contains("tram/train, tram/val"), "{:?}", open(root.path()).notes());
}

#[test]
fn a_stray_tar_beside_class_tars_is_named() {
    let root = folder();
    for name in ["n01440764.tar", "n01443537.tar", "extra.tar"] {
        write(root.path(), name, archive_of([("a.jpg".to_owned(), &b"x"[..])]));
    }
    let message = error(root.path());
    assert!(message.contains("'extra.tar'") && message.contains("'n01440764.tar'"), "{message}");
    std::fs::remove_file(root.path().join("extra.tar")).expect("removed");
    assert_eq!(items(root.path()), rows(&[("n01440764/a.jpg", 0), ("n01443537/a.jpg", 1)]));
}

#[test]
fn links_between_folders_give_each_image_once() {
    let root = tree(&["a/1.jpg", "b/2.jpg", "c/3.jpg", "c/deep/4.jpg"]);
    let all = rows(&[("a/1.jpg", 0), ("b/2.jpg", 1), ("c/3.jpg", 2), ("c/deep/4.jpg", 2)]);
    for (link, target) in [("a", "b"), ("a", "c"), ("b", "a"), ("b", "c/deep"), ("c", "a"), ("c/deep", "../b")] {
        let name = format!("{link}/see_{}", target.replace('/', "_"));
        symlink(format!("../{target}"), root.path().join(name)).expect("link");
    }
    assert_eq!(items(root.path()), all);
    // A link beside its folder is no class of its own.
    symlink("a", root.path().join("alias")).expect("link");
    assert_eq!((items(root.path()), open(root.path()).classes().len()), (all, 3));
    assert!(open(root.path()).notes()[0].contains("7 links"), "{:?}", open(root.path()).notes());
}

#[test]
fn links_to_other_places_are_followed_once() {
    let elsewhere = tree(&["x/1.jpg", "y/2.jpg", "y/z/3.jpg"]);
    let root = tree(&[".store/h/9.jpg"]);
    let link = |target: &Path, name: &str| symlink(target, root.path().join(name)).expect("link");
    link(&elsewhere.path().join("y"), "k1");
    link(&elsewhere.path().join("y/z"), "k2");
    link(Path::new(".store/h"), "k3");
    symlink("..", elsewhere.path().join("y/up")).expect("link");
    // k2 is a class of its own, so k1 does not hold its images again.
    assert_eq!(items(root.path()), rows(&[("k1/2.jpg", 0), ("k2/3.jpg", 1), ("k3/9.jpg", 2)]));
}

#[test]
fn splits_are_refused_whatever_lies_beside_them() {
    for files in [
        &["train/n01/a.jpg", "val/n01/b.jpg", "meta/readme.txt"][..],
        &["train/n01/a.jpg", "val/n01/b.jpg", "extra/n01/c.jpg"],
        &["train.X1/n01/a.jpg", "train.X2/n02/b.jpg", "val.X/n01/c.jpg"],
        &["train2017/a.jpg", "val2017/b.jpg", "annotations/x.json"],
        &["train/n01/a.jpg", "meta/readme.txt"],
        &["Training/a.jpg", "Testing/b.jpg"],
    ] {
        let root = tree(files);
        let message = error(root.path());
        let split = files[0].split('/').next().expect("a folder");
        assert!(
            message.contains("splits") && message.contains(&*root.path().join(split).to_string_lossy()),
            "{message}"
        );
        if files.len() == 2 && files[1] == "meta/readme.txt" {
            // In a tar, a folder around all images does not count.
            continue;
        }
        let tar = archive_of(files.iter().map(|name| ((*name).to_owned(), &b"x"[..])));
        assert!(error(&write(folder().path(), "a.tar", tar)).contains(split));
    }
    let classes = tree(&["bus/a.jpg", "train/b.jpg", "test tube/c.jpg"]);
    assert_eq!(open(classes.path()).classes(), ["bus", "test tube", "train"]);
}

#[test]
fn listing_ends_when_it_is_stopped() {
    let root = tree(&["cat/a.jpg", "list.txt"]);
    write(root.path(), "list.txt", "cat/a.jpg\n");
    write(root.path(), "a.tar", archive_of([("a.jpg".to_owned(), &b"x"[..])]));
    parquet::write(&root.path().join("a.parquet"), &[(Some(vec![1]), None, None)], None, parquet::Layout::default());
    for name in ["", "list.txt", "a.tar", "a.parquet"] {
        let open =
            |stop| Source::open_until(&root.path().join(name), &SourceOptions::default(), &AtomicBool::new(stop));
        assert!(matches!(open(true), Err(IngestError::Cancelled)), "{name}");
        assert_eq!(open(false).expect("a source").len(), 1, "{name}");
    }
}

/// Images that are counted while what is at a path is listed, and those that there are.
fn counted(path: &Path) -> (u64, usize) {
    let listed = AtomicU64::new(0);
    let never = AtomicBool::new(false);
    let source = Source::open_watched(path, &SourceOptions::default(), &never, &listed).expect("a source");
    (listed.load(Ordering::Relaxed), source.len())
}

#[test]
fn images_are_counted_while_they_are_listed() {
    let root = tree(&["cat/a.jpg", "cat/b/c.png", "dog/d.jpg", "dog/readme.txt"]);
    assert_eq!(counted(root.path()), (3, 3));
    let flat = tree(&["a.jpg", "b.jpg", "notes.txt"]);
    assert_eq!(counted(flat.path()), (2, 2));
    let list = write(flat.path(), "list.txt", "a.jpg\nb.jpg\n\n");
    assert_eq!(counted(&list), (2, 2));
    let members = ["cat/a.jpg", "dog/b.jpg", "dog/c.jpg", "dog/readme.txt"];
    let tar = write(root.path(), "x/a.tar", archive_of(members.map(|name| (name.to_owned(), &b"x"[..]))));
    assert_eq!(counted(&tar), (3, 3));
    let parquet = root.path().join("x/a.parquet");
    let rows: Vec<_> = images().into_iter().map(|image| (Some(image.bytes), Some(image.key), Some(0))).collect();
    containers::parquet::write(&parquet, &rows, None, containers::parquet::Layout::default());
    assert_eq!(counted(&parquet), (15, 15));
}
