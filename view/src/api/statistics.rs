//! What was counted over all rows.

use std::sync::Arc;

use serde_json::{Value, json};
use tokengrid_cache::Inspection;

use super::overview::progress;
use super::{expect_list, list};
use crate::background::State;
use crate::query::Query;
use crate::reply::{Answer, Refusal, json as json_reply};
use crate::state::Shared;

/// Points of the curve of codes by their use.
const CURVE_POINTS: usize = 200;

/// Pairs that are named on a row's page.
const RELATED_MAX: usize = 20;

/// The figures, without the long lists; begins to count where that was not done.
pub(super) fn statistics(shared: &Arc<Shared>, query: &Query) -> Answer {
    query.expect(&[])?;
    let state = shared.inspected()?;
    Ok(json_reply(&progress(&state, &|inspected| {
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
    let codes = &inspected.by_use;
    list("codes", codes.len(), Value::Null, query, &|places| {
        let nth = |place: usize| if sort == "most" { codes[place] } else { codes[codes.len() - 1 - place] };
        Ok(places.map(|place| code_entry(shared, &inspected.inspection, nth(place))).collect())
    })
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
    let mut classes: Vec<_> = stats.classes.iter().collect();
    match sort {
        "rows" => classes.sort_by_key(|class| std::cmp::Reverse(class.rows)),
        "entropy" => classes.sort_by(|a, b| a.code_entropy_bits.total_cmp(&b.code_entropy_bits)),
        "name" => classes.sort_by_key(|class| class.name.as_deref()),
        _ => {}
    }
    let more = json!({ "unlabelled_rows": stats.unlabelled_rows, "empty": stats.empty_classes });
    list("classes", classes.len(), more, query, &|places| {
        Ok(classes[places].iter().map(|class| json!(class)).collect())
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
    let cache = shared.cache()?;
    let views = cache.num_views();
    let images = shared.index(&cache).images(label);
    let step = images.len().div_ceil(super::picture::MEAN_ROWS).max(1);
    Ok(images.iter().step_by(step).map(|image| *image as usize * views).collect())
}
