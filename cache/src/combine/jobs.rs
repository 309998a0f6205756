//! The job of caches together, and in which field they do not fit.

use crate::combine::input::{Input, same_quarantine};
use crate::error::CacheError;
use crate::format::identity::{JobIdentity, SourceInfo};
use crate::format::job::JobSpec;
use crate::format::split::Split;
use serde_json::Value;
use std::collections::BTreeSet;

/// The job of caches that follow each other, and for each of them the new number of each class.
pub(super) fn joined_job(inputs: &[Input]) -> Result<(JobSpec, Vec<Vec<i32>>), CacheError> {
    let first = &inputs[0];
    for input in &inputs[1..] {
        // What may differ is taken out of the comparison.
        let comparable = |input: &Input| JobIdentity {
            source: SourceInfo::default(),
            classes: Vec::new(),
            splits: Vec::new(),
            ..input.identity.clone()
        };
        if let Some((field, expected, actual)) = comparable(first).first_difference(&comparable(input)) {
            return Err(input.differs(first, field, expected, actual));
        }
    }
    let classes = united_classes(inputs)?;
    let new_label = |name: &String| classes.iter().position(|class| class == name).map_or(-1, |label| label as i32);
    let relabel = inputs.iter().map(|input| input.identity.classes.iter().map(new_label).collect()).collect();
    let sources: Vec<_> = inputs.iter().map(|input| &input.identity.source).collect();
    let locations: Vec<_> = sources.iter().map(|source| source.location.as_str()).collect();
    let mut job = JobSpec::from_identity(JobIdentity { classes, ..first.identity.clone() })?;
    job.source = SourceInfo {
        kind: "merge".to_owned(),
        location: locations.join(" + "),
        images: sources.iter().map(|source| source.images).sum(),
        excluded: sources.iter().map(|source| source.excluded).sum(),
        ..SourceInfo::default()
    };
    job.splits = joined_splits(inputs)?;
    Ok((job, relabel))
}

/// The common class list, or the sorted union of sorted ones: the list of a run over all of the folders.
fn united_classes(inputs: &[Input]) -> Result<Vec<String>, CacheError> {
    let first = &inputs[0];
    if inputs.iter().all(|input| input.identity.classes == first.identity.classes) {
        return Ok(first.identity.classes.clone());
    }
    for input in inputs {
        let classes = &input.identity.classes;
        if classes.is_empty() || !classes.is_sorted_by(|a, b| a < b) {
            let actual = format!("a list of {} that is not sorted", classes.len());
            return Err(input.differs(first, "classes", "the same list, or sorted lists of names".into(), actual));
        }
    }
    let union: BTreeSet<_> = inputs.iter().flat_map(|input| input.identity.classes.iter().cloned()).collect();
    Ok(union.into_iter().collect())
}

/// The splits in order. Either every image belongs to one or none does.
fn joined_splits(inputs: &[Input]) -> Result<Vec<Split>, CacheError> {
    let mut splits: Vec<Split> = Vec::new();
    let mut start = 0;
    for input in inputs {
        let whole = input.split.clone().map(|name| Split { name, images: [0, input.images()] });
        let own = whole.map_or_else(|| input.identity.splits.clone(), |split| vec![split]);
        if own.is_empty() != splits.is_empty() && start > 0 {
            let expected = "a split for every input or for none".to_owned();
            return Err(input.differs(&inputs[0], "splits", expected, format!("{} splits", own.len())));
        }
        for Split { name, images: [from, to] } in own {
            let images = [start + from, start + to];
            match splits.last_mut() {
                // Two parts of one split in a row are one.
                Some(last) if last.name == name => last.images[1] = images[1],
                _ => splits.push(Split { name, images }),
            }
        }
        start += input.images();
    }
    Ok(splits)
}

/// The job of caches of the same images whose views follow each other.
pub(super) fn widened_job(inputs: &[Input]) -> Result<JobSpec, CacheError> {
    let first = &inputs[0];
    let comparable = |input: &Input| {
        let mut identity = JobIdentity { views: 0, first_view: 0, ..input.identity.clone() };
        // The recipe's name of the views is what makes the difference.
        if let Some(recipe) = identity.recipe.as_object_mut() {
            recipe.remove("views");
        }
        identity
    };
    let mut next_view = first.identity.first_view;
    for input in inputs {
        if let Some((field, expected, actual)) = comparable(first).first_difference(&comparable(input)) {
            return Err(input.differs(first, field, expected, actual));
        }
        if !views_extend(&first.identity.recipe, &input.identity.recipe) {
            let views = |recipe: &Value| recipe.get("views").map_or("unknown".to_string(), Value::to_string);
            let expected = format!("what goes on from {}", views(&first.identity.recipe));
            return Err(input.differs(first, "recipe.views", expected, views(&input.identity.recipe)));
        }
        if input.identity.first_view != next_view {
            let actual = input.identity.first_view.to_string();
            return Err(input.differs(first, "first_view", next_view.to_string(), actual));
        }
        next_view += input.identity.views;
        if !same_quarantine(input, first)? {
            let num_quarantined = |input: &Input| input.cache.manifest().quarantine.images;
            let count = |input: &Input| format!("{} images of other numbers", num_quarantined(input));
            return Err(input.differs(first, "quarantine", count(first), count(input)));
        }
    }
    let last = &inputs[inputs.len() - 1].identity;
    let first_view = first.identity.first_view;
    JobSpec::from_identity(JobIdentity { views: next_view - first_view, first_view, ..last.clone() })
}

/// Whether the first views by the recipe `more` are those by the recipe `few`: the same kind of views, of which `more` has
/// more (`random-crop:4` and `random-crop:8`), or one that begins as the other (`center` and `center+flip`).
pub fn views_extend(few: &Value, more: &Value) -> bool {
    let kind = |recipe: &Value| {
        let views = recipe.get("views").and_then(Value::as_str).unwrap_or_default();
        views.split(':').next().unwrap_or_default().to_string()
    };
    let (few, more) = (kind(few), kind(more));
    more == few || more.strip_prefix(&few).is_some_and(|rest| rest.starts_with('+'))
}
