//! Rows that are another's, nearly another's, or in the wrong class.

use super::rows::{ENTRY, entry};
use super::{Kind, expect_list, list};
use crate::query::Query;
use crate::reply::{Answer, Refusal};
use crate::state::Shared;
use crate::text::cut;
use serde_json::{Value, json};
use std::ops::Range;
use std::sync::Arc;

/// Fields of both rows of a pair.
const PAIR: &[&str] = &["first", "first_key", "key", "row"];
const DUPLICATES: Kind = Kind { name: "duplicates", columns: &[PAIR, &["same_image"]] };
const NEAR_DUPLICATES: Kind = Kind { name: "near-duplicates", columns: &[PAIR, &["equal_bits", "equal_tokens"]] };
const LABEL_CONFLICTS: Kind = Kind { name: "label-conflicts", columns: &[ENTRY, &["folder", "folder_class"]] };

/// Rows with the grid of an earlier row.
pub(super) fn duplicates(shared: &Arc<Shared>, query: &Query) -> Answer {
    expect_list(query, &[])?;
    let inspected = shared.counted()?;
    let total = inspected.inspection.duplicates.len();
    let found = &inspected.inspection.stats.duplicates;
    let more = json!({ "rows": found.rows, "rows_within_image": found.rows_within_image });
    let (maker, is_flat) = (Arc::clone(shared), query.is_csv()?);
    let items = move |places: Range<usize>| {
        let of_page = &inspected.inspection.duplicates[places];
        let both = pair_entries(&maker, of_page.iter().map(|pair| (pair.first, pair.row)), is_flat)?;
        Ok(both
            .into_iter()
            .zip(of_page)
            .map(|(entry, pair)| with(entry, &json!({ "same_image": pair.same_image })))
            .collect())
    };
    list(DUPLICATES, total, more, query, Box::new(items))
}

/// First views that are nearly those of another image, the nearest first.
pub(super) fn near_duplicates(shared: &Arc<Shared>, query: &Query) -> Answer {
    expect_list(query, &["least"])?;
    let num_tokens = shared.manifest.grid_spec().num_tokens();
    let least = query.number("least", 0, num_tokens as i64)?.unwrap_or(0) as usize;
    let inspected = shared.counted()?;
    let near = &inspected.inspection.stats.near_duplicates;
    // The best ones come first.
    let total = near.listed.partition_point(|pair| pair.equal_tokens >= least);
    let more = json!({
        "pairs": near.pairs, "is_cut_short": near.is_cut_short, "tokens": num_tokens,
        "bits": num_tokens * shared.info.bits as usize,
    });
    let (maker, is_flat) = (Arc::clone(shared), query.is_csv()?);
    let items = move |places: Range<usize>| {
        let of_page = &inspected.inspection.stats.near_duplicates.listed[places];
        let both = pair_entries(&maker, of_page.iter().map(|pair| (pair.first, pair.row)), is_flat)?;
        let agreement = of_page.iter().map(|p| json!({ "equal_tokens": p.equal_tokens, "equal_bits": p.equal_bits }));
        Ok(both.into_iter().zip(agreement).map(|(entry, more)| with(entry, &more)).collect())
    };
    list(NEAR_DUPLICATES, total, more, query, Box::new(items))
}

/// Images whose folder is called like another class than their label's.
pub(super) fn label_conflicts(shared: &Arc<Shared>, query: &Query) -> Answer {
    expect_list(query, &[])?;
    let inspected = shared.counted()?;
    let conflicts = &inspected.inspection.stats.label_conflicts;
    let more = json!({ "images": conflicts.images, "compared": conflicts.compared });
    let (maker, total) = (Arc::clone(shared), conflicts.listed.len());
    let items = move |places: Range<usize>| {
        let of_page = &inspected.inspection.stats.label_conflicts.listed[places];
        let metas = maker.metas(&of_page.iter().map(|conflict| conflict.row).collect::<Vec<_>>())?;
        let item = |(conflict, meta): (&tokengrid_cache::LabelConflict, &tokengrid_cache::RowMeta)| {
            let folder = json!({ "folder": conflict.folder, "folder_class": maker.class_name(conflict.folder) });
            with(entry(&maker, conflict.row, meta), &folder)
        };
        Ok(of_page.iter().zip(&metas).map(item).collect())
    };
    list(LABEL_CONFLICTS, total, more, query, Box::new(items))
}

/// Both rows of pairs: as objects, or, for a file, by their numbers and keys.
fn pair_entries(
    shared: &Arc<Shared>,
    pairs: impl Iterator<Item = (usize, usize)>,
    is_flat: bool,
) -> Result<Vec<Value>, Refusal> {
    let pairs: Vec<(usize, usize)> = pairs.collect();
    let mut rows: Vec<usize> = pairs.iter().flat_map(|(first, row)| [*first, *row]).collect();
    rows.sort_unstable();
    rows.dedup();
    let metas = shared.metas(&rows)?;
    let of = |row: usize| rows.binary_search(&row).map(|place| &metas[place]).expect("every row of a pair was read");
    let object = |(first, row): &(usize, usize)| {
        if is_flat {
            json!({ "first": first, "first_key": cut(&of(*first).key), "row": row, "key": cut(&of(*row).key) })
        } else {
            json!({ "first": entry(shared, *first, of(*first)), "row": entry(shared, *row, of(*row)) })
        }
    };
    Ok(pairs.iter().map(object).collect())
}

fn with(mut object: Value, more: &Value) -> Value {
    if let (Some(object), Some(more)) = (object.as_object_mut(), more.as_object()) {
        object.extend(more.clone());
    }
    object
}
