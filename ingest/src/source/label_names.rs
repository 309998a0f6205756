//! Classes that a container gives as text.
//!
//! Text that is a number everywhere is a class index, and -1 is not a label. Text that is a number nowhere is a name: indices are
//! the ranks of all names, compared as bytes, and the names are the classes. Numbers beside names are refused, and so are
//! numbers that can be no class.

use super::table::Table;
use std::collections::{BTreeSet, HashMap};

/// Longest name of a class, in bytes, and the most names. More is a caption, or damage.
const MAX_NAME_BYTES: usize = 255;
const MAX_NAMES: usize = 1 << 20;

/// Labels of rows that are text.
#[derive(Debug, Default)]
pub(super) struct LabelNames {
    numbers: HashMap<String, u32>,
    /// Rows and the numbers of their names.
    rows: Vec<(usize, u32)>,
    /// Whether other rows have a class index that is not text.
    pub(super) has_indices: bool,
}

impl LabelNames {
    /// Notes the label of a row. White space around it and a byte order mark do not count; an empty text is not a label.
    ///
    /// # Errors
    /// Why it is not a name of a class.
    pub(super) fn push(&mut self, row: usize, text: &str) -> Result<(), String> {
        let name = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{FEFF}');
        if name.is_empty() {
            return Ok(());
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(format!("a label of {} bytes; the name of a class has at most {MAX_NAME_BYTES}", name.len()));
        }
        if name.contains(char::is_control) {
            return Err(format!("the label {name:?}; the name of a class is one line"));
        }
        if is_number(name) && class_index(name).is_none() {
            return Err(format!(
                "{name}, which is not a class index; a class index is 0 or more, and -1 means no label"
            ));
        }
        let number = match self.numbers.get(name) {
            Some(number) => *number,
            None if self.numbers.len() == MAX_NAMES => {
                return Err(format!("more than {MAX_NAMES} different labels, too many to be classes"));
            }
            None => self.add(name),
        };
        self.rows.push((row, number));
        Ok(())
    }

    fn add(&mut self, name: &str) -> u32 {
        let next = self.numbers.len() as u32;
        *self.numbers.entry(name.to_owned()).or_insert(next)
    }

    /// Whether any row has a label.
    pub(super) fn any(&self) -> bool {
        self.has_indices || !self.rows.is_empty()
    }

    /// Takes the labels of rows that will follow `before` others.
    pub(super) fn append(&mut self, other: LabelNames, before: usize) {
        let mut renumbered = vec![0; other.numbers.len()];
        for (name, number) in &other.numbers {
            renumbered[*number as usize] = self.add(name);
        }
        self.rows.extend(other.rows.iter().map(|(row, number)| (before + row, renumbered[*number as usize])));
        self.has_indices |= other.has_indices;
    }

    /// Labels the rows. Returns the classes where labels are names.
    ///
    /// # Errors
    /// Names beside class indices.
    pub(super) fn apply(&self, table: &mut Table) -> Result<Option<Vec<String>>, String> {
        let mut labels = vec![-1; self.numbers.len()];
        let mut names = BTreeSet::new();
        for (text, number) in &self.numbers {
            match class_index(text) {
                Some(index) => labels[*number as usize] = index,
                None => {
                    names.insert(text.as_str());
                }
            }
        }
        self.check_one_kind(table, &names)?;
        for (rank, name) in (0..).zip(&names) {
            labels[self.numbers[*name] as usize] = rank;
        }
        self.rows.iter().for_each(|(row, number)| table.set_label(*row, labels[*number as usize]));
        Ok((!names.is_empty()).then(|| names.into_iter().map(str::to_owned).collect()))
    }

    /// Refuses names beside class indices: ranks would silently replace the indices.
    fn check_one_kind(&self, table: &Table, names: &BTreeSet<&str>) -> Result<(), String> {
        let is_index = |text: &str| class_index(text).is_some_and(|index| index >= 0);
        let place = |(row, text): (usize, &str)| format!("'{text}' (of '{}')", table.key(row));
        let Some(name) = self.first_row(|text| names.contains(text)).map(place) else { return Ok(()) };
        let index = match self.first_row(is_index).map(place) {
            Some(index) => format!("such as {index}, "),
            None if self.has_indices => String::new(),
            None => return Ok(()),
        };
        Err(format!("some labels are class indices, {index}and others names, such as {name}; use one of them"))
    }

    /// The first row with such a text.
    fn first_row(&self, wanted: impl Fn(&str) -> bool) -> Option<(usize, &str)> {
        let texts: HashMap<u32, &str> = self
            .numbers
            .iter()
            .filter(|(text, _)| wanted(text))
            .map(|(text, number)| (*number, text.as_str()))
            .collect();
        let rows = self.rows.iter().filter_map(|(row, number)| Some((*row, *texts.get(number)?)));
        rows.min_by_key(|(row, _)| *row)
    }
}

/// The class index that a text is, -1 for none. As numbers of spreadsheets, indices may end in `.0`.
fn class_index(text: &str) -> Option<i32> {
    let whole = text.split_once('.').filter(|(_, end)| !end.is_empty() && end.bytes().all(|byte| byte == b'0'));
    let index: i32 = whole.map_or(text, |(whole, _)| whole).parse().ok()?;
    (index >= -1).then_some(index)
}

/// Whether a text is a number in digits: such as no class index is (negative, too large, or with a fraction) is not a name either.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let is_whole = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    digits.split_once('.').map_or(is_whole(digits), |(whole, fraction)| is_whole(whole) && is_whole(fraction))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::table::Place;

    fn labels(texts: &[&str]) -> (Vec<i32>, Option<Vec<String>>) {
        let (mut table, mut first, mut names) = (Table::default(), LabelNames::default(), LabelNames::default());
        texts.iter().for_each(|text| table.push(text, -1, Place::default()));
        // In two parts, as from two files.
        first.push(0, texts[0]).expect("a label");
        texts[1..].iter().enumerate().for_each(|(row, text)| names.push(row, text).expect("a label"));
        first.append(names, 1);
        let classes = first.apply(&mut table).expect("labels of one kind");
        ((0..table.len()).map(|row| table.label(row)).collect(), classes)
    }

    #[test]
    fn text_is_indices_or_names_sorted() {
        assert_eq!(labels(&["7", "\u{FEFF}10\n", "", "-1", "2.0"]), (vec![7, 10, -1, -1, 2], None));
        let names = |names: &[&str]| Some(names.iter().map(|name| name.to_string()).collect());
        assert_eq!(labels(&["dog", " cat ", "dog", ""]), (vec![1, 0, 1, -1], names(&["cat", "dog"])));
        assert_eq!(labels(&["1e3", "2CV", "-1"]), (vec![0, 1, -1], names(&["1e3", "2CV"])));
    }

    #[test]
    fn what_is_no_class_is_refused() {
        let mut labels = LabelNames::default();
        assert!(labels.push(0, &"long".repeat(100)).expect_err("long").contains("400 bytes"));
        assert!(labels.push(0, "a\nb").expect_err("lines").contains("one line"));
        for number in ["-3", "99999999999", "1.5", "-7.0"] {
            let message = labels.push(0, number).expect_err("no class");
            assert!(message.contains(number) && message.contains("not a class index"), "{message}");
        }
        labels.push(0, "cat").expect("a label");
        let mut table = Table::default();
        ["a.jpg", "b.jpg"].iter().for_each(|key| table.push(key, -1, Place::default()));
        let mut both = LabelNames::default();
        both.push(0, "10").expect("an index");
        both.push(1, "n/a").expect("a name");
        let message = both.apply(&mut table).expect_err("both");
        assert!(message.contains("'10' (of 'a.jpg')") && message.contains("'n/a' (of 'b.jpg')"), "{message}");
        labels.has_indices = true;
        assert!(labels.apply(&mut table).expect_err("both").contains("'cat'"));
    }
}
