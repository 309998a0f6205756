//! Label files: what they may look like, what becomes of the classes, and what is refused.

mod containers;

use containers::tar::archive_of;
use containers::*;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tokengrid_ingest::{IngestError, Source, SourceOptions};

/// A flat validation tar of four images.
fn val_tar() -> (TempDir, PathBuf) {
    let root = folder();
    let names = (1..=4).rev().map(|i| (format!("ILSVRC2012_val_{i:08}.JPEG"), &b"x"[..]));
    let path = write(root.path(), "ILSVRC2012_img_val.tar", archive_of(names));
    (root, path)
}

fn open_with(path: &Path, labels: &str) -> Result<Source, IngestError> {
    let file = path.parent().expect("a folder").join("labels");
    std::fs::write(&file, labels).expect("label file");
    Source::open(path, &SourceOptions { labels: Some(file), ..SourceOptions::default() })
}

fn labels(path: &Path, text: &str) -> Vec<i32> {
    let source = open_with(path, text).unwrap_or_else(|e| panic!("{e}"));
    (0..source.len()).map(|i| source.label(i)).collect()
}

fn message(path: &Path, text: &str) -> String {
    let text = open_with(path, text).expect_err("an error").to_string();
    assert!(!text.contains('\n') && text.contains("labels"), "{text}");
    text
}

const WNIDS: [&str; 4] = ["n01751748", "n09193705", "n02105855", "n01751748"];

#[test]
fn one_wnid_or_index_a_line_goes_by_the_order_of_names() {
    let (_root, val) = val_tar();
    assert_eq!(labels(&val, &format!("{}\n", WNIDS.join("\n"))), [0, 2, 1, 0]);
    let source = open_with(&val, &WNIDS.join("\r\n")).expect("source");
    assert_eq!(source.classes(), ["n01751748", "n02105855", "n09193705"]);
    assert_eq!(source.unlabelled(), 0);
    assert_eq!(labels(&val, "65\n970\n230\n809"), [65, 970, 230, 809]);
    assert_eq!(
        labels(&val, "\u{FEFF}65\r\n970\r\n\u{FEFF}230\r\n809\r\n"),
        [65, 970, 230, 809],
        "joined files with marks"
    );
    let short = message(&val, "65\n970\n230\n");
    assert!(short.contains("3 lines for 4 images"), "{short}");
}

#[test]
fn lines_may_name_images_by_key_by_file_name_or_without_extension() {
    let (_root, val) = val_tar();
    let keyed = "ILSVRC2012_val_00000003.JPEG\t7\n\nILSVRC2012_val_00000001.JPEG   0\nILSVRC2012_val_00000002 -1\n";
    assert_eq!(labels(&val, keyed), [0, -1, 7, -1]);
    assert_eq!(open_with(&val, keyed).expect("source").unlabelled(), 2);
    let csv = "ImageId,PredictionString\nILSVRC2012_val_00000004,n02 1\n";
    assert!(message(&val, csv).contains("line 2") && message(&val, csv).contains("'n02'"));
    let csv = "ImageId,PredictionString\nILSVRC2012_val_00000004,n03995372 85 1 499 272\nILSVRC2012_val_00000001,n01751748 1 2 3 4 n01751748 5 6 7 8\n";
    assert_eq!(labels(&val, csv), [0, -1, -1, 1]);
    let none = message(&val, "a.jpg 1\nb.jpg 2\n");
    assert!(none.contains("names none of the images") && none.contains("'a.jpg'"), "{none}");
    assert!(message(&val, "a.jpg 1\na.jpg 2\n").contains("line 2"));
    assert!(message(&val, "a.jpg cat\n").contains("'cat' is neither"));
    assert!(message(&val, "").contains("empty"));
}

#[test]
fn the_ids_of_the_development_kit_are_refused() {
    let (_root, val) = val_tar();
    let ids = message(&val, "490\n361\n1000\n1\n");
    assert!(ids.contains("development kit") && ids.contains("imagenet_2012_validation_synset_labels.txt"), "{ids}");
    assert_eq!(labels(&val, "490\n361\n1000\n0\n"), [490, 361, 1000, 0], "a zero shows that they are indices");
    assert!(message(&val, "490\nn01751748\n3\n4").contains("both wnids and class indices"));
}

#[test]
fn class_folders_must_agree_with_wnids() {
    let (root, images) = (folder(), images());
    images.iter().for_each(|image| drop(write(root.path(), &format!("tree/{}", image.key), &image.bytes)));
    let tree = root.path().join("tree");
    let line = |image: &Image| format!("{} {}\n", image.name(), &image.key[..9]);
    let all: String = images.iter().map(line).collect();
    // A file may know more classes: ranks are those among all of its wnids.
    let more = format!("{all}elsewhere.JPEG n01440000\n");
    let source = open_with(&tree, &more).expect("source");
    assert_eq!(
        good(&source).iter().map(|i| i.label - 1).collect::<Vec<_>>(),
        images.iter().map(|i| i.label).collect::<Vec<_>>()
    );
    assert_eq!(source.classes(), ["n01440000", CLASSES[0], CLASSES[1], CLASSES[2]]);
    let wrong = all.replace(&line(&images[7]), &format!("{} n01440764\n", images[7].name()));
    let text = message(&tree, &wrong);
    assert!(text.contains(&images[7].key) && text.contains("class folder 'n01443537'"), "{text}");
    let fewer = message(&tree, &line(&images[0]));
    assert!(fewer.contains("'n01443537'"), "{fewer}");
}

#[test]
fn class_folders_may_get_other_indices() {
    let (root, images) = (folder(), images());
    images.iter().for_each(|image| drop(write(root.path(), &format!("tree/{}", image.key), &image.bytes)));
    let tree = root.path().join("tree");
    let by = |index: [i32; 3]| {
        images.iter().map(|i| format!("{}\t{}\n", i.key, index[i.label as usize])).collect::<String>()
    };
    let source = open_with(&tree, &by([4, 0, 2])).expect("source");
    assert_eq!((source.label(0), source.label(14)), (4, 2));
    assert_eq!(source.classes(), ["n01443537", "", "n15075141", "", "n01440764"]);
    let two = message(&tree, &by([4, 0, 0]));
    assert!(two.contains("class index 0") && two.contains("'n01443537'"), "{two}");
    let torn = message(&tree, &by([4, 0, 2]).replacen("\t4", "\t3", 1));
    assert!(torn.contains("that class folder has 3"), "{torn}");
}

#[test]
fn excluded_images_have_lines_too() {
    let (root, val) = val_tar();
    write(root.path(), "labels", WNIDS.join("\n"));
    let options = SourceOptions {
        exclude: vec!["ILSVRC2012_val_00000001.JPEG".to_owned()],
        limit: Some(2),
        labels: Some(root.path().join("labels")),
        ..SourceOptions::default()
    };
    let source = Source::open(&val, &options).expect("source");
    assert_eq!((source.len(), source.excluded(), source.label(0), source.label(1)), (2, 1, 2, 1));
    let missing = SourceOptions { labels: Some(root.path().join("gone")), ..SourceOptions::default() };
    assert!(matches!(Source::open(&val, &missing), Err(IngestError::Unreadable { .. })));
}

#[test]
fn a_sibling_of_the_tar_is_not_guessed() {
    let (root, val) = val_tar();
    write(root.path(), "imagenet_2012_validation_synset_labels.txt", WNIDS.join("\n"));
    assert_eq!(open(&val).unlabelled(), 4);
}
