//! WebDataset: which members are a sample, whatever their names, and what is refused because it is unclear.

mod containers;

use containers::tar::archive_of;
use containers::*;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tokengrid_ingest::{Source, SourceOptions};

/// A tar of members, `name=contents` each.
fn shard(members: &[&str]) -> (TempDir, PathBuf) {
    let root = folder();
    let members = members.iter().map(|member| member.split_once('=').unwrap_or((member, "x")));
    let tar = archive_of(members.map(|(name, text)| (name.to_owned(), text.as_bytes())));
    let path = write(root.path(), "a.tar", tar);
    (root, path)
}

/// Keys, labels and contents.
fn items(source: &Source) -> Vec<(String, i32, String)> {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    good(source).into_iter().map(|image| (image.key, image.label, text(image.bytes))).collect()
}

fn found(members: &[&str]) -> Vec<(String, i32, String)> {
    let (_root, path) = shard(members);
    items(&open(&path))
}

fn expected(rows: &[(&str, i32, &str)]) -> Vec<(String, i32, String)> {
    rows.iter().map(|(key, label, text)| ((*key).to_owned(), *label, (*text).to_owned())).collect()
}

fn refused(members: &[&str]) -> String {
    let (_root, path) = shard(members);
    error(&path)
}

fn open_with(path: &Path, image: Option<&str>, label: Option<&str>) -> Source {
    let (image_column, label_column) = (image.map(str::to_owned), label.map(str::to_owned));
    let options = SourceOptions { image_column, label_column, ..SourceOptions::default() };
    Source::open(path, &options).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn stems_may_have_dots() {
    let rows = expected(&[("22.05.jpg", 7, "a"), ("22.10.jpg", 3, "b")]);
    assert_eq!(found(&["22.05.jpg=a", "22.05.cls=7", "22.10.jpg=b", "22.10.cls=3"]), rows);
    assert_eq!(found(&["22.05.cls=7", "22.05.jpg=a", "22.10.cls=3", "22.10.jpg=b"]), rows);
    assert_eq!(found(&["22.10.jpg=b", "22.05.jpg=a", "22.05.cls=7", "22.10.cls=3"]), rows, "in another order");
    let rows = expected(&[("22.05.jpg", 7, "a"), ("22.07.jpg", -1, "c"), ("22.10.jpg", 3, "b")]);
    assert_eq!(found(&["22.05.jpg=a", "22.05.cls=7", "22.07.jpg=c", "22.10.jpg=b", "22.10.cls=3"]), rows);
    let rows = expected(&[("a.b.jpg", 1, "x"), ("a.jpg", 2, "y")]);
    assert_eq!(found(&["a.b.jpg=x", "a.b.cls=1", "a.jpg=y", "a.cls=2"]), rows, "one stem extends the other");
    let rows = expected(&[("v1.2/x.jpg", 4, "p")]);
    assert_eq!(found(&["v1.2/x.jpg=p", "v1.2/x.cls=4"]), rows, "dots of folders are no part of the name");
}

#[test]
fn members_that_come_again_are_other_samples() {
    let rows = expected(&[("0.jpg", 1, "a"), ("0.jpg~2", 2, "b"), ("1.jpg", 3, "c")]);
    assert_eq!(found(&["0.jpg=a", "0.cls=1", "1.jpg=c", "1.cls=3", "0.jpg=b", "0.cls=2"]), rows);
    assert_eq!(found(&["0.jpg=a", "0.cls=1", "0.jpg=b", "0.cls=2", "1.jpg=c", "1.cls=3"]), rows);
    let three = ["0.jpg=a", "0.mask.png=m", "0.cls=1", "0.jpg=b", "0.mask.png=n", "0.cls=2"];
    assert_eq!(found(&three), rows[..2]);
    let rows = expected(&[("a.jpg", -1, "longer"), ("a.jpg~2", -1, "x"), ("b.jpg", -1, "y")]);
    assert_eq!(found(&["a.jpg=longer", "b.jpg=y", "a.jpg=x"]), rows, "the first keeps the key, whatever its size");
    let message = refused(&["0.jpg=a", "1.jpg=b", "0.cls=1", "1.cls=2", "0.jpg=c", "1.jpg=d", "0.cls=3", "1.cls=4"]);
    assert!(message.contains("'0.jpg'") || message.contains("'1.jpg'"), "{message}");
    assert!(message.contains("more than once"), "{message}");
    let message = refused(&["0.jpg=a", "0.jpg=b", "0.cls=1", "1.jpg=c", "1.cls=2"]);
    assert!(message.contains("'0.jpg' comes more than once before '0.cls'"), "{message}");
    // Once each, a member may lie anywhere.
    let rows = expected(&[("0.jpg", 1, "a"), ("1.jpg", 2, "b")]);
    assert_eq!(found(&["0.jpg=a", "1.jpg=b", "0.cls=1", "1.cls=2"]), rows);
}

#[test]
fn a_sample_has_one_picture() {
    let rows = expected(&[("0.jpg", -1, "a"), ("1.jpg", -1, "b")]);
    assert_eq!(found(&["0.jpg=a", "0.mask.png=m", "0.txt=t", "1.jpg=b", "1.mask.png=n", "1.txt=t"]), rows);
    assert_eq!(found(&["0.mask.png=m", "0.jpg=a", "1.mask.png=n", "1.jpg=b"]), rows, "without any other member");
    assert_eq!(found(&["0.jpg=a", "0.png=m", "1.jpg=b", "1.png=n"]), rows);
    let rows = expected(&[("0.img.jpg", 5, "a"), ("1.img.jpg", 6, "b")]);
    assert_eq!(found(&["0.img.jpg=a", "0.label.cls=5", "1.img.jpg=b", "1.label.cls=6"]), rows);
    assert_eq!(found(&["0.img.jpg=a", "0.cls=5", "1.img.jpg=b", "1.cls=6"]), rows);
    let named = ["0.img.jpg=a", "0.label.cls=5", "0.meta.json={\"filename\": \"x.jpg\"}"];
    assert_eq!(found(&named), expected(&[("x.jpg", 5, "a")]), "a label and a name");
    let message = refused(&["a.1.jpg=a", "a.x.cls=1", "a.2.jpg=b", "a.y.cls=2"]);
    assert!(message.contains("'a.x.cls' may belong to 'a.1.jpg' or to 'a.2.jpg'"), "{message}");
    let (_root, path) = shard(&["0.jpg=a", "0.mask.png=m", "0.txt=t"]);
    assert_eq!((open(&path).kind(), open(&path).ignored()), ("WebDataset", 2));
}

#[test]
fn several_pictures_are_chosen_from_by_their_ending() {
    for pair in [
        &["0.left.jpg=a", "0.right.jpg=b", "0.cls=1", "1.left.jpg=c", "1.right.jpg=d", "1.cls=2"][..],
        &[
            "0.left.jpg=a",
            "0.right.jpg=b",
            "0.json={\"label\": 1}",
            "1.left.jpg=c",
            "1.right.jpg=d",
            "1.json={\"label\": 2}",
        ],
        &["0.left.jpg=a", "0.right.jpg=b", "1.left.jpg=c", "1.right.jpg=d"],
    ] {
        let (_root, path) = shard(pair);
        let message = error(&path);
        assert!(message.contains("'0.left.jpg'") && message.contains("'0.right.jpg'"), "{message}");
        assert!(message.contains("--image-column left.jpg"), "{message}");
        let source = open_with(&path, Some("right.jpg"), None);
        let labels = if pair.len() == 6 { [1, 2] } else { [-1, -1] };
        assert_eq!(items(&source), expected(&[("0.right.jpg", labels[0], "b"), ("1.right.jpg", labels[1], "d")]));
    }
    let (_root, path) = shard(&["0.jpg=a", "0.cls=1"]);
    let options = SourceOptions { image_column: Some("up.jpg".to_owned()), ..SourceOptions::default() };
    let message = Source::open(&path, &options).expect_err("no such ending").to_string();
    assert!(message.contains("'.up.jpg'"), "{message}");
}

#[test]
fn images_with_something_in_common_are_images() {
    let rows =
        expected(&[("cat.0.jpg", -1, "a"), ("cat.1.jpg", -1, "b"), ("dog.0.jpg", -1, "c"), ("dog.1.jpg", -1, "d")]);
    assert_eq!(found(&["cat.0.jpg=a", "cat.1.jpg=b", "dog.0.jpg=c", "dog.1.jpg=d"]), rows);
    let rows = expected(&[("1.edited.jpg", -1, "a"), ("1.jpg", -1, "b"), ("2.jpg", -1, "c")]);
    assert_eq!(found(&["1.edited.jpg=a", "1.jpg=b", "2.jpg=c"]), rows);
    assert_eq!(found(&["1.edited.jpg=a", "1.jpg=b", "2.jpg=c", "readme.txt=t"]), rows);
}

#[test]
fn labels_may_be_names() {
    let (_root, path) = shard(&["0.jpg=a", "0.cls=zebra\n", "1.jpg=b", "1.cls=\u{FEFF}great white shark", "2.jpg=c"]);
    let source = open(&path);
    assert_eq!(items(&source), expected(&[("0.jpg", 1, "a"), ("1.jpg", 0, "b"), ("2.jpg", -1, "c")]));
    assert_eq!(source.classes(), ["great white shark", "zebra"]);
    let rows = expected(&[("0.jpg", 1, "a"), ("1.jpg", 2, "b")]);
    assert_eq!(found(&["0.jpg=a", "0.json={\"label\": 1.0}", "1.jpg=b", "1.json=\u{FEFF}{\"label\": 2}"]), rows);
    let message = refused(&["0.jpg=a", "0.json={\"label\": 1}", "1.jpg=b", "1.json={\"label\": \"cat\"}"]);
    assert!(message.contains("'cat'") && message.contains("class indices"), "{message}");
    let message = refused(&["0.jpg=a", "0.cls=10", "1.jpg=b", "1.cls=n/a", "2.jpg=c", "2.cls=2"]);
    assert!(message.contains("'10' (of '0.jpg')") && message.contains("'n/a' (of '1.jpg')"), "{message}");
    for label in ["-4", "99999999999", "1.5"] {
        let message = refused(&["0.jpg=a", &format!("0.cls={label}")]);
        assert!(message.contains("'0.jpg'") && message.contains(label), "{message}");
    }
    for label in ["1.5", "[1, 2]", "true", "99999999999", "-4"] {
        let message = refused(&["0.jpg=a", &format!("0.json={{\"label\": {label}}}")]);
        assert!(message.contains("'0.jpg'") && message.contains("'label'"), "{message}");
    }
    let message = refused(&["0.jpg=a", "0.cls=\u{1}\u{2}"]);
    assert!(message.contains("'0.jpg'"), "{message}");
}

#[test]
fn fields_and_endings_are_chosen_by_name() {
    let json = "0.json={\"label\": [1], \"fine\": 3, \"coarse\": \"pets\"}";
    let (_root, path) = shard(&["0.jpg=a", json, "0.cls2=9"]);
    assert!(error(&path).contains("--label-column"));
    let label = |name: &str| open_with(&path, None, Some(name)).label(0);
    assert_eq!([label("fine"), label("coarse"), label("cls2"), label("none")], [3, 0, 9, -1]);
    assert_eq!(open_with(&path, None, Some("coarse")).classes(), ["pets"]);
    let two = refused(&["0.jpg=a", "0.fine.cls=1", "0.coarse.cls=2"]);
    assert!(two.contains("'0.fine.cls'") && two.contains("--label-column"), "{two}");
}

#[test]
fn label_files_that_cannot_be_read_are_spoken_of() {
    let (_root, path) = shard(&["0.jpg=a", "0.json={\"label\": 1", "1.jpg=b", "1.json={\"label\": 1}"]);
    let source = open(&path);
    assert_eq!((source.label(0), source.label(1)), (-1, 1));
    assert!(source.notes()[0].contains("'0.jpg' is not JSON"), "{:?}", source.notes());
}

#[test]
fn a_label_that_is_nowhere_is_refused_and_others_are_offered() {
    let members = ["0.jpg=a", "0.json={\"class_id\": 3, \"width\": 5}", "0.class=7", "1.jpg=b"];
    let (_root, path) = shard(&members);
    let source = open(&path);
    assert_eq!(source.label(0), -1);
    let note = source.notes().join("\n");
    assert!(note.contains("--label-column class ") && note.contains("'class_id'"), "{note}");
    let (image_column, label_column) = (None, Some("clas_id".to_owned()));
    let options = SourceOptions { image_column, label_column, ..SourceOptions::default() };
    let message = Source::open(&path, &options).expect_err("no such label").to_string();
    assert!(message.contains("'clas_id'") && message.contains("class, class_id, json, width"), "{message}");
    assert_eq!(
        [open_with(&path, None, Some("class_id")).label(0), open_with(&path, None, Some("class")).label(0)],
        [3, 7]
    );
}
