//! Readable names of classes.
//!
//! The classes of a cache are called as the source's folders are: `n01440764`. What they mean is kept beside the cache, in a
//! file of its own that is no part of the content: [`CLASS_NAMES_FILE`], a JSON object of class and name.

use crate::error::{CacheError, io_error};
use crate::files::atomic::write_atomically;
use crate::files::small::{is_missing, read_at_most, remove_if_present};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::path::Path;

/// Name of the file of readable names in a cache's folder.
pub const CLASS_NAMES_FILE: &str = "class-names.json";

/// A file of the longest names for more classes than any data set has.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Longer names are none.
const NAME_BYTES_MAX: usize = 4096;

/// Readable names by class index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassNames {
    names: Vec<Option<String>>,
}

impl ClassNames {
    /// Reads a file of names for the classes `classes` (of a cache's manifest; empty where it has none). It may be
    ///
    /// - lines of a class and its name, with blanks or a tab between them: `LOC_synset_mapping.txt`, `wnid<TAB>name`;
    /// - lines of names alone, one for each class, in their order;
    /// - a JSON object of class, or index, and name: [`CLASS_NAMES_FILE`]; or of index and `[class, name]`:
    ///   `imagenet_class_index.json`; or a JSON list of names.
    ///
    /// Classes that `classes` does not have are passed over.
    ///
    /// # Errors
    /// [`CacheError::ClassNames`]: it is none of these, or names no class; [`CacheError::TooLarge`]; [`CacheError::Io`].
    pub fn read(path: &Path, classes: &[String]) -> Result<ClassNames, CacheError> {
        let bad = |what: String| CacheError::ClassNames { path: path.into(), what };
        let bytes = read_at_most(path, FILE_BYTES_MAX)?;
        let text = String::from_utf8(bytes).map_err(|_| bad("it is not UTF-8".to_owned()))?;
        ClassNames::parse(&text, classes).map_err(bad)
    }

    /// [`ClassNames::read`] of a text; the error says what is wrong with it.
    ///
    /// # Errors
    /// As [`ClassNames::read`].
    pub fn parse(text: &str, classes: &[String]) -> Result<ClassNames, String> {
        let text = text.trim_start_matches('\u{feff}').trim_end();
        let names = match text.trim_start().chars().next() {
            Some('{' | '[') => of_json(text, classes)?,
            _ => of_lines(text, classes)?,
        };
        let mut found = ClassNames::default();
        for (label, name) in names {
            found.set(label, name)?;
        }
        if found.count() == 0 {
            let example = classes.first().map_or("0", String::as_str);
            return Err(format!("it names none of the {} classes; a line would be `{example} NAME`", classes.len()));
        }
        Ok(found)
    }

    fn set(&mut self, label: usize, name: String) -> Result<(), String> {
        let name = name.trim();
        if name.len() > NAME_BYTES_MAX || label > crate::format::row::CLASS_INDEX_MAX as usize {
            return Err(format!("the name of class {label} has {} bytes, at most {NAME_BYTES_MAX}", name.len()));
        }
        if name.is_empty() {
            return Ok(());
        }
        if self.names.len() <= label {
            self.names.resize(label + 1, None);
        }
        // They are shown in tables and terminals.
        self.names[label] = Some(name.replace(char::is_control, " "));
        Ok(())
    }

    /// The names that are kept beside the cache in `dir`, for its `classes`; `None` where there are none, or the file is damaged.
    pub fn load(dir: &Path, classes: &[String]) -> Option<ClassNames> {
        ClassNames::read(&dir.join(CLASS_NAMES_FILE), classes).ok()
    }

    /// Keeps the names beside the cache in `dir`, whose manifest lists `classes`.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn store(&self, dir: &Path, classes: &[String]) -> Result<(), CacheError> {
        let class = |label: usize| classes.get(label).cloned().unwrap_or_else(|| label.to_string());
        let entry = |(label, name): (usize, &Option<String>)| Some((class(label), Value::from(name.clone()?)));
        let object: Map<String, Value> = self.names.iter().enumerate().filter_map(entry).collect();
        let path = dir.join(CLASS_NAMES_FILE);
        let text = format!("{:#}\n", Value::Object(object));
        write_atomically(&path, text.as_bytes()).map_err(io_error("write", &path))
    }

    /// Forgets what is kept beside the cache in `dir`.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn remove(dir: &Path) -> Result<(), CacheError> {
        remove_if_present(&dir.join(CLASS_NAMES_FILE))
    }

    /// Keeps the names of the cache in `from` beside the one in `to`, as far as it has those classes: where one cache was made
    /// of another.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub(crate) fn carry(from: &Path, to: &Path, classes: &[String]) -> Result<(), CacheError> {
        let given = match read_at_most(&from.join(CLASS_NAMES_FILE), FILE_BYTES_MAX) {
            Err(error) if is_missing(&error) => return Ok(()),
            other => other?,
        };
        let text = String::from_utf8_lossy(&given);
        let Ok(names) = ClassNames::parse(&text, classes) else { return Ok(()) };
        let mut kept = ClassNames::load(to, classes).unwrap_or_default();
        for (label, name) in names.names.into_iter().enumerate() {
            if let Some(name) = name.filter(|_| kept.get(label as i32).is_none()) {
                // It was accepted before.
                let _ = kept.set(label, name);
            }
        }
        kept.store(to, classes)
    }

    /// The name of a class; `None` where it has none.
    pub fn get(&self, label: i32) -> Option<&str> {
        self.names.get(usize::try_from(label).ok()?)?.as_deref()
    }

    /// One more than the largest index of a class with a name.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether no class has a name.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Classes that have a name.
    pub fn count(&self) -> usize {
        self.names.iter().flatten().count()
    }

    /// The classes that are called `text`: by the whole name, or by one of the synonyms in it, with commas between them.
    /// Capital letters do not matter.
    pub fn find(&self, text: &str) -> Vec<i32> {
        let text = text.trim().to_lowercase();
        let is_called = |name: &str| {
            let name = name.to_lowercase();
            name == text || name.split(',').any(|synonym| synonym.trim() == text)
        };
        let labels = (0..).zip(&self.names);
        labels.filter(|(_, name)| name.as_deref().is_some_and(is_called)).map(|(label, _)| label).collect()
    }
}

type Named = Vec<(usize, String)>;

/// The index of a class by its name, or by its index as text.
struct Labels<'a> {
    by_name: HashMap<&'a str, usize>,
    count: usize,
}

impl Labels<'_> {
    fn of(classes: &[String]) -> Labels<'_> {
        Labels { by_name: classes.iter().map(String::as_str).zip(0..).collect(), count: classes.len() }
    }

    fn named(&self, class: &str) -> Option<usize> {
        self.by_name.get(class).copied()
    }

    /// Where there is a list of classes, it says which indices there are.
    fn numbered(&self, index: &str) -> Option<usize> {
        index.parse().ok().filter(|label| self.count == 0 || *label < self.count)
    }
}

fn of_lines(text: &str, classes: &[String]) -> Result<Named, String> {
    let labels = Labels::of(classes);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let split = |line: &&str| line.split_once('\t').or_else(|| line.split_once(char::is_whitespace)).map(both_owned);
    let pairs: Vec<Option<(String, String)>> = lines.iter().map(split).collect();
    let named = |pair: &Option<(String, String)>| Some((labels.named(&pair.as_ref()?.0)?, pair.as_ref()?.1.clone()));
    let of_classes: Named = pairs.iter().filter_map(named).collect();
    if !of_classes.is_empty() {
        return Ok(of_classes);
    }
    let by_index = |pair: &Option<(String, String)>| {
        let (index, name) = pair.as_ref()?;
        Some((labels.numbered(index)?, name.clone()))
    };
    let indices: Option<Named> = pairs.iter().map(by_index).collect();
    if let Some(indices) = indices {
        return Ok(indices);
    }
    let is_wnid = |pair: &Option<(String, String)>| pair.as_ref().is_some_and(|(class, _)| looks_like_wnid(class));
    if pairs.iter().all(is_wnid) {
        if !classes.is_empty() {
            return Ok(Named::new());
        }
        // The classes of a set that is listed whole are numbered in the order of their names.
        return Ok(pairs.into_iter().flatten().map(|(_, name)| name).enumerate().collect());
    }
    let count = text.lines().count();
    if !classes.is_empty() && count != classes.len() {
        return Err(format!(
            "it has {} lines, none of which begins with a class; expected lines of a class and its name (`{} NAME`), or {} \
             lines, one for each class",
            count,
            classes[0],
            classes.len()
        ));
    }
    // An empty line is that of a class without a name.
    Ok(text.lines().map(str::to_owned).enumerate().collect())
}

fn both_owned((class, name): (&str, &str)) -> (String, String) {
    (class.to_owned(), name.trim().to_owned())
}

/// `n01440764`: a class of WordNet.
fn looks_like_wnid(text: &str) -> bool {
    text.strip_prefix('n').is_some_and(|digits| digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn of_json(text: &str, classes: &[String]) -> Result<Named, String> {
    let labels = Labels::of(classes);
    let wrong = |found: &Value| {
        let shown: String = found.to_string().chars().take(60).collect();
        format!("{shown} is no name; expected a JSON object of class and name, or of index and [class, name]")
    };
    match serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))? {
        Value::Array(list) => {
            let name = |(label, name): (usize, Value)| match name {
                Value::String(name) => Ok((label, name)),
                other => Err(wrong(&other)),
            };
            list.into_iter().enumerate().map(name).collect()
        }
        Value::Object(object) => {
            let mut named = Named::new();
            for (key, value) in object {
                let entry = match &value {
                    Value::String(name) => labels.named(&key).or_else(|| labels.numbered(&key)).zip(Some(name.clone())),
                    Value::Array(pair) => match pair.as_slice() {
                        [Value::String(class), Value::String(name), ..] => {
                            let label = if classes.is_empty() { labels.numbered(&key) } else { labels.named(class) };
                            // This file has an underscore for each blank.
                            label.zip(Some(name.replace('_', " ")))
                        }
                        _ => return Err(wrong(&value)),
                    },
                    _ => return Err(wrong(&value)),
                };
                named.extend(entry);
            }
            Ok(named)
        }
        other => Err(wrong(&other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn classes(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn all(names: &ClassNames) -> Vec<Option<&str>> {
        (0..3).map(|label| names.get(label)).collect()
    }

    #[test]
    fn every_form_of_file_names_the_same_classes() {
        let known = classes(&["n01440764", "n01443537", "n01484850"]);
        for text in [
            "n01440764 tench, Tinca tinca\nn01484850 great white shark\nn99999999 none of ours\n",
            "\u{feff}n01484850\tgreat white shark\r\n\r\nn01440764\ttench, Tinca tinca\r\n",
            r#"{"n01440764": "tench, Tinca tinca", "n01484850": "great white shark", "other": "x"}"#,
            r#"{"7": ["n01440764", "tench,_Tinca_tinca"], "2": ["n01484850", "great_white_shark"]}"#,
            r#"{"0": "tench, Tinca tinca", "2": "great white shark", "3": "out of range"}"#,
            "0 tench, Tinca tinca\n2 great white shark",
            r#"["tench, Tinca tinca", "", "great white shark"]"#,
        ] {
            let names = ClassNames::parse(text, &known).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(all(&names), [Some("tench, Tinca tinca"), None, Some("great white shark")], "{text}");
            assert_eq!(names.count(), 2);
        }
        let names = ClassNames::parse("tench\ngoldfish\ngreat white shark\n", &known).unwrap();
        assert_eq!(all(&names), [Some("tench"), Some("goldfish"), Some("great white shark")]);
        // Without a list of classes, their numbers are all there is.
        for text in [
            "n01440764 tench\nn01443537 goldfish",
            "tench\ngoldfish",
            r#"{"1": ["n01443537", "goldfish"], "0": "tench"}"#,
        ] {
            assert_eq!(all(&ClassNames::parse(text, &[]).unwrap()), [Some("tench"), Some("goldfish"), None], "{text}");
        }
    }

    #[test]
    fn what_names_no_class_is_refused_with_a_reason() {
        let known = classes(&["n01440764", "n01443537", "n01484850"]);
        for (text, reason) in [
            ("", "names none of the 3 classes"),
            ("one\ntwo", "2 lines"),
            ("n99999999 none of ours", "names none"),
            ("{\"n01440764\": 5}", "5 is no name"),
            ("{\"n01440764\"", "no JSON"),
            ("{\"0\": [\"n01440764\"]}", "is no name"),
            ("[1]", "1 is no name"),
        ] {
            let error = ClassNames::parse(text, &known).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        let long = format!("n01440764 {}", "x".repeat(5000));
        assert!(ClassNames::parse(&long, &known).unwrap_err().contains("5000 bytes"));
    }

    #[test]
    fn classes_are_found_by_name_or_synonym() {
        let names = ClassNames::parse("tench, Tinca tinca\ncrane\nCrane, machine", &[]).unwrap();
        assert_eq!(names.find("Tinca Tinca"), [0]);
        assert_eq!(names.find("tench, tinca tinca"), [0]);
        assert_eq!(names.find("crane"), [1, 2]);
        assert!(names.find("tinca").is_empty() && names.find("").is_empty());
    }

    #[test]
    fn they_are_kept_beside_the_cache_and_carried_to_another() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let known = classes(&["b", "a"]);
        assert_eq!(ClassNames::load(a.path(), &known), None);
        let names = ClassNames::parse("a the first\nb the\u{1b}second", &known).unwrap();
        names.store(a.path(), &known).unwrap();
        assert_eq!(ClassNames::load(a.path(), &known).as_ref(), Some(&names));
        assert_eq!(names.get(0), Some("the second"), "nothing that a terminal would obey");
        let other = classes(&["c", "a"]);
        ClassNames::parse("c the third", &other).unwrap().store(b.path(), &other).unwrap();
        ClassNames::carry(a.path(), b.path(), &other).unwrap();
        let carried = ClassNames::load(b.path(), &other).unwrap();
        assert_eq!((carried.get(0), carried.get(1)), (Some("the third"), Some("the first")));
        ClassNames::remove(a.path()).unwrap();
        ClassNames::carry(a.path(), b.path(), &other).unwrap();
        assert_eq!(ClassNames::load(b.path(), &other), Some(carried));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[nab0-9 \t\n{}\\[\\]\":,]{0,80}") {
            let _ = ClassNames::parse(&text, &classes(&["n1", "a", "0"]));
            let _ = ClassNames::parse(&text, &[]);
        }
    }
}
