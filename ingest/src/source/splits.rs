//! Folders and files that are the parts of a data set (`train`, `val2017`, `test-dev`), and not classes.

use super::classes::ClassFolder;
use std::collections::BTreeMap;

/// Parts that a name may stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Split {
    Train,
    Val,
    Test,
}

/// Words for them, in lower case.
const WORDS: [(&str, Split); 13] = [
    ("train", Split::Train),
    ("training", Split::Train),
    ("trainval", Split::Train),
    ("val", Split::Val),
    ("valid", Split::Val),
    ("validation", Split::Val),
    ("minival", Split::Val),
    ("dev", Split::Val),
    ("eval", Split::Val),
    ("evaluation", Split::Val),
    ("test", Split::Test),
    ("testing", Split::Test),
    ("tests", Split::Test),
];

fn split(word: &str) -> Option<Split> {
    WORDS.into_iter().find(|(known, _)| word.eq_ignore_ascii_case(known)).map(|(_, split)| split)
}

/// What sorts words for parts: the one to train on first.
pub(super) fn order(word: &str) -> impl Ord + use<> {
    split(word)
}

/// The words of a name: what is between digits and signs.
fn words(name: &str) -> impl Iterator<Item = &str> {
    name.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty())
}

/// The word by which a file is a part of a data set: `train` for `train-00000-of-00294.parquet`.
pub(super) fn split_of_file(name: &str) -> Option<&'static str> {
    words(name)
        .find_map(|word| WORDS.into_iter().find(|(known, _)| word.eq_ignore_ascii_case(known)))
        .map(|(word, _)| word)
}

/// The split that a folder's name certainly means: no second word follows, as in `train2017`, `train.X1` and `val_64x64`, but
/// not in `train station`.
fn certain(folder: &ClassFolder) -> Option<Split> {
    let mut words = words(&folder.name);
    let found = words.next().and_then(split).filter(|_| folder.name.starts_with(char::is_alphabetic));
    found.filter(|_| words.all(|word| word.chars().count() == 1))
}

/// What it may say: `train_images`, `ILSVRC2012_img_val`.
fn possible(folder: &ClassFolder) -> Option<Split> {
    let first = words(&folder.name).next().and_then(split);
    first.or_else(|| words(&folder.name).last().and_then(split))
}

/// Whether a folder may be a part of a data set by its name.
pub(super) fn is_possible(name: &str) -> bool {
    words(name).any(|word| split(word).is_some())
}

/// Names of the folders that are parts of a data set, if these folders are not classes:
///
/// - two parts exist with unambiguous names (`train` and `val`), beside any other files; or
/// - two names differ only in the word for the part (`seg_train` and `seg_test`), beside any other files; or
/// - all folders that hold images have the name of a part, and two parts are there or the images are in folders of them; or
/// - the only folder that holds images has parts in it (`images/train` and `images/val`).
///
/// A class may still be called `train` or `test tube`, among classes of other names.
pub(super) fn find(folders: &[ClassFolder]) -> Option<Vec<String>> {
    let with_images = || folders.iter().filter(|folder| folder.has_images());
    let first = with_images().next()?;
    if are_two(folders, certain) {
        return Some(names(folders, certain));
    }
    if let Some(parts) = alike(folders) {
        return Some(parts);
    }
    let are_parts = with_images().all(|folder| possible(folder).is_some());
    let are_several = are_two(folders, possible) || with_images().any(|folder| folder.in_folders);
    if are_parts && are_several {
        return Some(names(folders, possible));
    }
    if with_images().count() == 1 { inside(first) } else { None }
}

/// The parts that lie in a folder, with its name in front.
pub(super) fn inside(folder: &ClassFolder) -> Option<Vec<String>> {
    let folders: Vec<ClassFolder> = folder.inside.iter().map(|name| ClassFolder::with_images(name)).collect();
    let parts = if are_two(&folders, certain) { names(&folders, certain) } else { alike(&folders)? };
    Some(parts.into_iter().map(|part| format!("{}/{part}", folder.name)).collect())
}

/// Folders whose names differ only in the word for the part, the one to train on first.
fn alike(folders: &[ClassFolder]) -> Option<Vec<String>> {
    let mut by_frame: BTreeMap<String, Vec<(Split, &ClassFolder)>> = BTreeMap::new();
    for folder in folders {
        let words: Vec<String> = words(&folder.name).map(str::to_lowercase).collect();
        for (at, word) in words.iter().enumerate() {
            let Some(split) = split(word) else { continue };
            let frame = format!("{}|{}", words[..at].join(" "), words[at + 1..].join(" "));
            by_frame.entry(frame).or_default().push((split, folder));
        }
    }
    let mut parts = by_frame.into_values().find(|parts| parts.iter().any(|(split, _)| *split != parts[0].0))?;
    parts.sort_by_key(|(split, folder)| (!folder.has_images(), *split));
    Some(parts.into_iter().map(|(_, folder)| folder.name.clone()).collect())
}

/// Whether two different parts are among the folders.
fn are_two(folders: &[ClassFolder], split_of: fn(&ClassFolder) -> Option<Split>) -> bool {
    let mut splits = folders.iter().filter_map(split_of);
    let first = splits.next();
    splits.any(|split| Some(split) != first)
}

/// Those that are parts, the ones with images first, and of these the one to train on.
fn names(folders: &[ClassFolder], split_of: fn(&ClassFolder) -> Option<Split>) -> Vec<String> {
    let mut parts: Vec<&ClassFolder> = folders.iter().filter(|folder| split_of(folder).is_some()).collect();
    parts.sort_by_key(|folder| (!folder.has_images(), split_of(folder)));
    parts.into_iter().map(|folder| folder.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of the folders are parts. `meta` holds no images; all others do, directly or in folders.
    fn found(nested: bool, names: &[&str]) -> usize {
        let folder = |name: &&str| {
            let has_images = *name != "meta";
            let (directly, in_folders) = (has_images && !nested, has_images && nested);
            ClassFolder { directly, in_folders, ..ClassFolder::new(name) }
        };
        find(&names.iter().map(folder).collect::<Vec<_>>()).map_or(0, |names| names.len())
    }

    #[test]
    fn parts_of_data_sets_are_found_beside_other_files() {
        for nested in [true, false] {
            assert_eq!(found(nested, &["train", "val"]), 2);
            assert_eq!(found(nested, &["Train", "meta", "TEST", "extra"]), 2);
            assert_eq!(found(nested, &["meta", "train2017", "val2017", "unlabeled2017"]), 2);
            assert_eq!(found(nested, &["train.X1", "train.X2", "val.X"]), 3);
            assert_eq!(found(nested, &["train_64x64", "valid_64x64"]), 2);
            assert_eq!(found(nested, &["train_images", "test_images", "meta"]), 2);
            assert_eq!(found(nested, &["images_train", "ILSVRC2012_img_val"]), 2);
        }
        for nested in [true, false] {
            assert_eq!(found(nested, &["seg_pred", "seg_test", "seg_train"]), 2);
            assert_eq!(found(nested, &["holdout", "test_data", "train_data", "unlabeled"]), 2);
            assert_eq!(found(nested, &["bounding_box_test", "bounding_box_train", "gallery", "query"]), 2);
            assert_eq!(found(nested, &["Test_Set", "pred", "training_set"]), 2);
        }
        assert_eq!(found(true, &["train"]), 1);
        assert_eq!(found(true, &["meta", "train.X1", "train.X2"]), 2);
    }

    #[test]
    fn classes_may_have_such_names() {
        for nested in [true, false] {
            assert_eq!(found(nested, &["bus", "train", "tram"]), 0);
            assert_eq!(found(nested, &["test tube", "train station", "bullet_train", "cat"]), 0);
            assert_eq!(found(nested, &["bus", "train_freight", "train_passenger"]), 0);
            assert_eq!(found(nested, &["test tube", "train station", "cat"]), 0);
            assert_eq!(found(nested, &["trainer", "valley", "tester"]), 0);
            assert_eq!(found(nested, &["n01440764", "n01443537"]), 0);
            assert_eq!(found(nested, &["meta"]), 0);
        }
        assert_eq!(found(false, &["train", "meta"]), 0);
    }

    #[test]
    fn parts_may_lie_one_level_deeper() {
        let folder = |name: &str, inside: &[&str]| {
            let mut folder = ClassFolder::new(name);
            inside.iter().for_each(|part| folder.add_image(&format!("{part}/a/1.jpg")));
            folder
        };
        let images = folder("images", &["val", "train", "other"]);
        let expected = ["images/train", "images/val"].map(str::to_owned).to_vec();
        assert_eq!(find(&[images.clone(), ClassFolder::new("labels")]), Some(expected));
        assert_eq!(find(&[images, folder("bus", &["a"])]), None, "classes with separate parts");
        assert_eq!(find(&[folder("images", &["train", "bus"])]), None);
    }

    #[test]
    fn files_belong_to_parts_by_a_word_of_their_names() {
        assert_eq!(split_of_file("train-00000-of-00294.parquet"), Some("train"));
        assert_eq!(split_of_file("ILSVRC2012_img_val.tar"), Some("val"));
        assert_eq!(split_of_file("Val2017.tar"), Some("val"));
        assert_eq!(split_of_file("trains.tar"), None);
    }
}
