//! Rows that are similar to one: those in which the fewest bits differ.

use super::rows::{ENTRY, MORE, entries};
use super::{Kind, expect_list, list, row_number};
use crate::query::Query;
use crate::reply::Answer;
use crate::state::Shared;
use serde_json::json;
use std::ops::Range;
use std::sync::Arc;

const SIMILAR: Kind = Kind { name: "similar", columns: &[ENTRY, MORE, &["distance"]] };

/// The rows that are nearest to a row, the nearest first.
pub(super) fn similar(shared: &Arc<Shared>, text: &str, query: &Query) -> Answer {
    expect_list(query, &[])?;
    let row = row_number(shared, text)?;
    let found = shared.similar(row)?;
    let bits = shared.manifest.grid_spec().num_tokens() * shared.info.bits as usize;
    let more = json!({ "row": row, "bits": bits, "views": shared.info.views });
    let (maker, total) = (Arc::clone(shared), found.len());
    let items = move |places: Range<usize>| {
        let near = &found[places];
        let mut items = entries(&maker, &near.iter().map(|near| near.row).collect::<Vec<_>>())?;
        items.iter_mut().zip(near).for_each(|(item, near)| item["distance"] = json!(near.distance));
        Ok(items)
    };
    list(SIMILAR, total, more, query, Box::new(items))
}
