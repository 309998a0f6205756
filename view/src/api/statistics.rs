//! What was counted over all rows.

use super::overview::progress;
use super::{Kind, expect_list, list};
use crate::background::State;
use crate::query::Query;
use crate::reply::{Answer, Refusal, json as json_reply};
use crate::state::Shared;
use crate::text::cut;
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::ops::Range;
use std::sync::Arc;
use tokengrid_cache::{ClassRows, Inspection};

const CODES: Kind = Kind { name: "codes", columns: &[&["code", "count", "position", "row"]] };
const CLASSES: Kind = Kind {
    name: "classes",
    columns: &[&["class_name", "code_entropy_bits", "distinct_codes", "label", "name", "rows"]],
};

/// Points of the curve of codes by their use.
const CURVE_POINTS: usize = 200;

/// Pairs that are named on a row's page.
const RELATED_MAX: usize = 20;

/// Begins to count, where that was not done.
pub(super) fn count(shared: &Arc<Shared>, query: &Query) -> Answer {
    query.expect(&[])?;
    shared.count()?;
    statistics(shared, query)
}

/// The figures, without the long lists, or how far the counting is.
pub(super) fn statistics(shared: &Arc<Shared>, query: &Query) -> Answer {
    query.expect(&[])?;
    Ok(json_reply(&progress(&shared.inspection.state(), &|inspected| {
        let Inspection { stats, code_counts, .. } = &inspected.inspection;
        let mut figures = serde_json::to_value(stats).unwrap_or_default();
        // Lists of their own.
        figures["classes"] = json!(stats.classes.len());
        figures["near_duplicates"]["listed"] = json!(stats.near_duplicates.listed.len());
        figures["label_conflicts"]["listed"] = json!(stats.label_conflicts.listed.len());
        let curve = curve(inspected.by_use.len());
        let counts = |rank: &usize| code_counts[inspected.by_use[*rank] as usize];
        json!({
            "figures": figures,
            "curve": curve.iter().map(|rank| json!([rank + 1, counts(rank)])).collect::<Vec<_>>(),
            "duplicates_listed": inspected.inspection.duplicates.len(),
        })
    })))
}

/// Ranks, evenly on a logarithmic scale, the first and the last among them.
fn curve(codes: usize) -> Vec<usize> {
    let Some(last) = codes.checked_sub(1) else { return Vec::new() };
    let rank = |i: usize| ((codes as f64).powf(i as f64 / (CURVE_POINTS - 1) as f64).round() as usize - 1).min(last);
    let mut ranks: Vec<usize> = (0..CURVE_POINTS).map(rank).collect();
    ranks.dedup();
    ranks
}

/// Codes by their use, with the place where each occurs first.
pub(super) fn codes(shared: &Arc<Shared>, query: &Query) -> Answer {
    expect_list(query, &["sort"])?;
    let sort = query.word("sort", &["most", "least"])?;
    let inspected = shared.counted()?;
    let total = inspected.by_use.len();
    let (maker, is_most_first) = (Arc::clone(shared), sort == "most");
    let items = move |places: Range<usize>| {
        let nth = |place: usize| inspected.by_use[if is_most_first { place } else { total - 1 - place }];
        Ok(places.map(|place| code_entry(&maker, &inspected.inspection, nth(place))).collect())
    };
    list(CODES, total, Value::Null, query, Box::new(items))
}

fn code_entry(shared: &Shared, inspection: &Inspection, code: u32) -> Value {
    let num_tokens = shared.manifest.grid_spec().num_tokens() as u64;
    let first = inspection.code_first[code as usize];
    json!({
        "code": code, "count": inspection.code_counts[code as usize],
        "row": first.map(|place| place / num_tokens), "position": first.map(|place| place % num_tokens),
    })
}

/// One code.
pub(super) fn code(shared: &Arc<Shared>, text: &str, query: &Query) -> Answer {
    query.expect(&[])?;
    let codes = 1i64 << shared.info.bits;
    let code = crate::query::number("code", text, 0, codes - 1)?;
    Ok(json_reply(&code_entry(shared, &shared.counted()?.inspection, code as u32)))
}

/// Classes by index, size, entropy or name.
pub(super) fn classes(shared: &Arc<Shared>, query: &Query) -> Answer {
    expect_list(query, &["sort"])?;
    let sort = query.word("sort", &["label", "rows", "entropy", "name"])?;
    let inspected = shared.counted()?;
    let stats = &inspected.inspection.stats;
    let mut order: Vec<usize> = (0..stats.classes.len()).collect();
    let class = |place: &usize| &stats.classes[*place];
    match sort {
        "rows" => order.sort_by_key(|place| Reverse(class(place).rows)),
        "entropy" => order.sort_by(|a, b| class(a).code_entropy_bits.total_cmp(&class(b).code_entropy_bits)),
        "name" => order.sort_by_key(|place| {
            let label = class(place).label as i32;
            shared.class_names.get(label).or(shared.class_name(label))
        }),
        _ => {}
    }
    let more = json!({ "unlabelled_rows": stats.unlabelled_rows, "empty": stats.empty_classes });
    let total = order.len();
    let maker = Arc::clone(shared);
    let items = move |places: Range<usize>| {
        let classes = &inspected.inspection.stats.classes;
        Ok(order[places].iter().map(|place| class_entry(&maker, &classes[*place])).collect())
    };
    list(CLASSES, total, more, query, Box::new(items))
}

fn class_entry(shared: &Shared, class: &ClassRows) -> Value {
    json!({
        "class_name": shared.class_names.get(class.label as i32),
        "label": class.label, "name": class.name.as_deref().map(cut), "rows": class.rows,
        "distinct_codes": class.distinct_codes, "code_entropy_bits": class.code_entropy_bits,
    })
}

/// Rows that a row is, or nearly is, where that is known already.
pub(super) fn related(shared: &Shared, row: usize) -> Value {
    let State::Done(inspected) = shared.inspection.state() else { return Value::Null };
    let Inspection { stats, duplicates, .. } = &inspected.inspection;
    let other =
        |first: usize, second: usize| if first == row { Some(second) } else { (second == row).then_some(first) };
    let same: Vec<_> = duplicates.iter().filter_map(|pair| other(pair.first, pair.row)).take(RELATED_MAX).collect();
    let near = stats.near_duplicates.listed.iter();
    let near: Vec<_> = near
        .filter_map(|pair| Some(json!({ "row": other(pair.first, pair.row)?, "equal_tokens": pair.equal_tokens })))
        .take(RELATED_MAX)
        .collect();
    let conflict = stats.label_conflicts.listed.iter().find(|conflict| conflict.row == row);
    json!({ "same": same, "near": near, "folder": conflict.map(|conflict| conflict.folder) })
}

/// Refuses what cannot be said before the rows are counted: for pictures that need the counts.
pub(super) fn first_of(shared: &Arc<Shared>, label: i32) -> Result<Vec<usize>, Refusal> {
    let (rows, views) = (shared.rows_of_class(label)?, shared.cache()?.num_views());
    let images = rows.len() / views;
    let step = images.div_ceil(super::picture::MEAN_ROWS).max(1);
    Ok((0..images).step_by(step).filter_map(|image| rows.get(image * views)).collect())
}
