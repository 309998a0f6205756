//! WebDataset: which members of a tar are one sample.
//!
//! Writers put the members of a sample next to each other, under one stem: `a/1.jpg`, `a/1.cls`, `a/1.mask.png`. Stems may have
//! dots of their own (`22.05.jpg`), and may come again where shards were joined. So:
//!
//! 1. A *run* is neighbours with the same name up to the first dot. A member that is there already begins a new run. Runs of
//!    one name are one if no member comes twice in them: such a tar was not written in order.
//! 2. In a run, members with the same name up to the last dot belong together. They are a sample if there is a picture and
//!    something else among them; if not, they belong to the longest stem that they extend, or, as a last resort, to the picture
//!    with which they have the longest stem in common.
//! 3. The picture of a sample is the member with nothing between stem and ending.
//!
//! What stays ambiguous is an error that names the members. In a tar without any other member beside a picture, images are
//! images, even if their names share a stem, unless all stems have the same set of endings.

use super::runs::{Member, are_labels_only, are_regular, base, ending, is_label_file, join_runs, runs, stem};
use crate::source::IMAGE_EXTENSIONS;
use crate::source::keys::file_name;
use crate::source::table::Place;
use std::collections::{BTreeMap, HashMap};

/// A picture, and the members that describe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) row: usize,
    pub(super) class: Option<Place>,
    pub(super) json: Option<Place>,
}

/// What the members of a tar are.
#[derive(Debug, Default)]
pub(super) struct Samples {
    pub(super) samples: Vec<Sample>,
    /// Rows of pictures of samples that have another one.
    pub(super) spare: Vec<usize>,
    /// Members that belong to no picture, or say nothing that is read.
    pub(super) ignored: usize,
}

/// The user's choice: endings of members after the stem, such as `left.jpg` and `cls`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Endings<'a> {
    pub(super) image: Option<&'a str>,
    pub(super) label: Option<&'a str>,
}

/// Sorts the members of a tar into samples; `None` where it holds images only. An error names what is ambiguous.
pub(super) fn group(mut members: Vec<Member<'_>>, endings: Endings<'_>) -> Result<Option<Samples>, String> {
    members.sort_by_key(|member| member.place.at);
    let is_alone = |member: &Member<'_>| member.is_picture() && !file_name(stem(member.key)).contains('.');
    let are_apart = members.windows(2).all(|pair| base(pair[0].key) != base(pair[1].key));
    if endings.image.is_none() && are_apart && members.iter().all(is_alone) {
        return Ok(None);
    }
    let runs = join_runs(runs(&members))?;
    let has_samples = runs.iter().any(|run| is_whole(run));
    let is_regular = !has_samples && are_regular(&runs);
    if !has_samples && !is_regular && endings.image.is_none() {
        return Ok(None);
    }
    let mut samples = Samples::default();
    for run in &runs {
        for unit in units(run, is_regular)? {
            unit.add_to(&mut samples, endings)?;
        }
    }
    samples.spare.sort_unstable();
    Ok(Some(samples))
}

/// Members of one sample, and their stem.
struct Unit<'a> {
    stem: &'a str,
    members: Vec<Member<'a>>,
}

/// Whether these are a picture and a member that describes it.
fn is_whole(members: &[Member<'_>]) -> bool {
    members.iter().any(Member::is_picture) && !members.iter().all(Member::is_picture)
}

/// Splits a run into samples.
fn units<'a>(run: &[Member<'a>], is_regular: bool) -> Result<Vec<Unit<'a>>, String> {
    let mut by_stem: BTreeMap<&str, Vec<Member<'a>>> = BTreeMap::new();
    for member in run {
        let stem = if is_regular { base(member.key) } else { stem(member.key) };
        by_stem.entry(stem).or_default().push(*member);
    }
    if by_stem.len() > 1 {
        by_stem = attach(by_stem)?;
    }
    Ok(by_stem.into_iter().map(|(stem, members)| Unit { stem, members }).collect())
}

/// Gives members that are not a sample by themselves to the one that they belong to.
fn attach<'a>(by_stem: BTreeMap<&'a str, Vec<Member<'a>>>) -> Result<BTreeMap<&'a str, Vec<Member<'a>>>, String> {
    let mut owners: HashMap<&str, &str> = HashMap::new();
    // Shorter stems come first, so that an owner's owner is known.
    for (stem, members) in &by_stem {
        let extended = prefixes(stem).find(|prefix| by_stem.contains_key(prefix)).filter(|_| !is_whole(members));
        let owner = extended.map_or(*stem, |prefix| owners[prefix]);
        owners.insert(stem, owner);
    }
    let mut attached: BTreeMap<&str, Vec<Member<'_>>> = BTreeMap::new();
    for (stem, members) in by_stem {
        attached.entry(owners[stem]).or_default().extend(members);
    }
    attach_labels(&mut attached)?;
    Ok(attached)
}

/// Gives label files without a picture to the one picture without anything else that has the longest stem in common.
fn attach_labels<'a>(by_stem: &mut BTreeMap<&'a str, Vec<Member<'a>>>) -> Result<(), String> {
    let are_pictures = |members: &[Member<'_>]| members.iter().all(Member::is_picture);
    let labels = by_stem.iter().filter(|(_, members)| are_labels_only(members));
    let labels: Vec<&'a str> = labels.map(|(stem, _)| *stem).collect();
    let mut pictures: HashMap<&'a str, Vec<&'a str>> = HashMap::new();
    for stem in by_stem.iter().filter(|(_, members)| are_pictures(members)).map(|(stem, _)| *stem) {
        prefixes(stem).for_each(|prefix| pictures.entry(prefix).or_default().push(stem));
    }
    for stem in labels {
        for prefix in prefixes(stem) {
            match pictures.get(prefix).map_or(&[][..], Vec::as_slice) {
                [] => continue,
                [one] => {
                    let members = by_stem.remove(stem).unwrap_or_default();
                    by_stem.entry(*one).or_default().extend(members);
                }
                [one, other, ..] => {
                    let (label, one, other) = (by_stem[stem][0].key, by_stem[*one][0].key, by_stem[*other][0].key);
                    return Err(format!("'{label}' may belong to '{one}' or to '{other}'; name it like one of them"));
                }
            }
            break;
        }
    }
    Ok(())
}

/// The stems that a stem extends, the longest first: `a/1.b`, `a/1` for `a/1.b.c`.
fn prefixes(stem: &str) -> impl Iterator<Item = &str> {
    let name = stem.len() - file_name(stem).len();
    stem.rmatch_indices('.')
        .map(move |(dot, _)| (dot, &stem[..dot]))
        .filter(move |(dot, _)| *dot > name)
        .map(|(_, prefix)| prefix)
}

impl Unit<'_> {
    fn add_to(&self, samples: &mut Samples, endings: Endings<'_>) -> Result<(), String> {
        let others = || self.members.iter().filter(|member| !member.is_picture());
        let Some(picture) = self.picture(endings.image)? else {
            samples.spare.extend(self.members.iter().filter_map(|member| member.row));
            samples.ignored += self.members.len();
            return Ok(());
        };
        let named = |ending: &str| others().find(|member| self.ends_in(member.key, ending));
        let class = match endings.label {
            Some(label) => named(label),
            None => self.label_file("cls", picture)?,
        };
        let json = self.label_file("json", picture)?;
        samples.samples.extend(picture.row.map(|row| Sample {
            row,
            class: class.map(|member| member.place),
            json: json.map(|member| member.place),
        }));
        let spare = self.members.iter().filter_map(|member| member.row).filter(|row| Some(*row) != picture.row);
        let before = samples.spare.len();
        samples.spare.extend(spare);
        samples.ignored += samples.spare.len() - before + others().filter(|member| !is_label_file(member)).count();
        Ok(())
    }

    fn ends_in(&self, key: &str, wanted: &str) -> bool {
        [self.stem, base(key)].iter().any(|stem| ending(key, stem).eq_ignore_ascii_case(wanted))
    }

    /// The picture of the sample, if it has one.
    fn picture(&self, wanted: Option<&str>) -> Result<Option<&Member<'_>>, String> {
        let pictures = || self.members.iter().filter(|member| member.is_picture());
        if let Some(wanted) = wanted {
            return Ok(pictures().find(|member| self.ends_in(member.key, wanted)));
        }
        let rank = |member: &&Member<'_>| {
            IMAGE_EXTENSIONS.iter().position(|known| ending(member.key, self.stem).eq_ignore_ascii_case(known))
        };
        let own = pictures().filter(|member| rank(member).is_some()).min_by_key(rank);
        let mut others = pictures();
        match (own, others.next(), others.next()) {
            (Some(picture), ..) => Ok(Some(picture)),
            (None, picture, None) => Ok(picture),
            (None, Some(one), Some(other)) => Err(format!(
                "the sample '{}' has several pictures, '{}' and '{}'; choose one by its ending, for example --image-column {}",
                self.stem,
                one.key,
                other.key,
                ending(one.key, self.stem)
            )),
            (None, None, Some(_)) => Ok(None),
        }
    }

    /// The file of this ending: the sample's own, else that of the picture, else the only one.
    fn label_file(&self, ending_wanted: &str, picture: &Member<'_>) -> Result<Option<&Member<'_>>, String> {
        let files: Vec<&Member<'_>> = self
            .members
            .iter()
            .filter(|member| {
                !member.is_picture() && ending(member.key, stem(member.key)).eq_ignore_ascii_case(ending_wanted)
            })
            .collect();
        let of = |wanted: &str| files.iter().find(|member| stem(member.key) == wanted).copied();
        match (of(self.stem).or_else(|| of(stem(picture.key))), &files[..]) {
            (Some(file), _) => Ok(Some(file)),
            (None, []) => Ok(None),
            (None, [file]) => Ok(Some(*file)),
            (None, [one, other, ..]) if ending_wanted == "cls" => Err(format!(
                "the sample '{}' has several labels, '{}' and '{}'; choose one by its ending, for example --label-column {}",
                self.stem,
                one.key,
                other.key,
                ending(one.key, self.stem)
            )),
            _ => Ok(None),
        }
    }
}
