//! WebDataset: members of a tar with one name, next to each other.

use crate::source::keys::file_name;
use crate::source::table::Place;
use std::collections::{BTreeSet, HashMap, HashSet};

/// A file of a tar: an image, or not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member<'a> {
    pub(super) key: &'a str,
    pub(super) place: Place,
    /// Row of the image in the table.
    pub(super) row: Option<usize>,
}

impl Member<'_> {
    pub(super) fn is_picture(&self) -> bool {
        self.row.is_some()
    }
}

/// The name up to the first dot of its last part.
pub(super) fn base(key: &str) -> &str {
    let name = file_name(key);
    &key[..key.len() - name.len() + name.find('.').unwrap_or(name.len())]
}

/// The name up to its last dot.
pub(super) fn stem(key: &str) -> &str {
    let name = file_name(key);
    &key[..key.len() - name.len() + name.rfind('.').unwrap_or(name.len())]
}

/// What follows a stem and a dot.
pub(super) fn ending<'a>(key: &'a str, stem: &str) -> &'a str {
    key[stem.len()..].trim_start_matches('.')
}

pub(super) fn is_label_file(member: &Member<'_>) -> bool {
    let ending = ending(member.key, stem(member.key));
    !member.is_picture() && (ending.eq_ignore_ascii_case("cls") || ending.eq_ignore_ascii_case("json"))
}

/// Whether these have a label file, but no picture.
pub(super) fn are_labels_only(members: &[Member<'_>]) -> bool {
    !members.iter().any(Member::is_picture) && members.iter().any(is_label_file)
}

pub(super) fn runs<'a>(members: &[Member<'a>]) -> Vec<Vec<Member<'a>>> {
    let mut runs: Vec<Vec<Member<'_>>> = Vec::new();
    let mut keys = HashSet::new();
    for member in members {
        let continues = runs.last().is_some_and(|run| base(run[0].key) == base(member.key));
        if !continues || keys.contains(member.key) {
            runs.push(Vec::new());
            keys.clear();
        }
        keys.insert(member.key);
        if let Some(run) = runs.last_mut() {
            run.push(*member);
        }
    }
    runs
}

/// Joins the runs of one name, unless members come again in them.
pub(super) fn join_runs(runs: Vec<Vec<Member<'_>>>) -> Result<Vec<Vec<Member<'_>>>, String> {
    let mut by_base: HashMap<&str, Vec<usize>> = HashMap::new();
    for (number, run) in runs.iter().enumerate() {
        by_base.entry(base(run[0].key)).or_default().push(number);
    }
    let mut joined: Vec<Option<Vec<Member<'_>>>> = runs.into_iter().map(Some).collect();
    for numbers in by_base.into_values().filter(|numbers| numbers.len() > 1) {
        let all: Vec<Member<'_>> =
            numbers.iter().flat_map(|number| joined[*number].iter().flatten().copied()).collect();
        let different: HashSet<&str> = all.iter().map(|member| member.key).collect();
        if different.len() == all.len() {
            numbers.iter().for_each(|number| joined[*number] = None);
            joined[numbers[0]] = Some(all);
            continue;
        }
        check_neighbours(&numbers, &joined)?;
        let lost = numbers.iter().filter_map(|number| joined[*number].as_ref()).find(|run| are_labels_only(run));
        if let (Some(lost), Some(picture)) = (lost, all.iter().find(|member| member.is_picture())) {
            return Err(format!(
                "'{}' and '{}' come more than once, and not next to each other: which of them belong together is unclear; write \
                 the members of each sample one after the other, or give each sample a name of its own",
                picture.key, lost[0].key
            ));
        }
    }
    Ok(joined.into_iter().flatten().collect())
}

/// Refuses a picture that comes twice in front of one label: which one the label belongs to is unclear. `numbers` are those of the
/// runs of one name.
fn check_neighbours(numbers: &[usize], runs: &[Option<Vec<Member<'_>>>]) -> Result<(), String> {
    for pair in numbers.windows(2).filter(|pair| pair[0] + 1 == pair[1]) {
        let (Some(first), Some(second)) = (&runs[pair[0]], &runs[pair[1]]) else { continue };
        let label = second.iter().find(|member| is_label_file(member));
        let repeated = first.iter().find(|m| m.is_picture() && second.iter().any(|other| other.key == m.key));
        if let (Some(picture), Some(label), false) = (repeated, label, first.iter().any(is_label_file)) {
            return Err(format!(
                "'{}' comes more than once before '{}': which of them the label belongs to is unclear; give each sample a \
                 name of its own",
                picture.key, label.key
            ));
        }
    }
    Ok(())
}

/// Whether several stems are there, all of them with the same endings, more than one, that are not numbers: `left.jpg` and
/// `right.jpg`.
pub(super) fn are_regular(runs: &[Vec<Member<'_>>]) -> bool {
    let endings = |run: &[Member<'_>]| -> BTreeSet<String> {
        run.iter().map(|member| ending(member.key, base(member.key)).to_ascii_lowercase()).collect()
    };
    let [first, others @ ..] = runs else { return false };
    let expected = endings(first);
    let is_number = |ending: &str| ending.bytes().next().is_some_and(|byte| byte.is_ascii_digit());
    let has_names = expected.len() > 1 && !expected.iter().any(|ending| is_number(ending));
    has_names && !others.is_empty() && others.iter().all(|run| endings(run) == expected)
}
