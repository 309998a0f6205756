//! Rows: many by a filter, or one with all that is known of it.

use std::sync::Arc;

use serde_json::{Value, json};
use tokengrid_cache::{RowFilter, RowMeta};

use super::{row_number, statistics};
use crate::background::State;
use crate::query::{BadRequest, Query};
use crate::reply::{Answer, Refusal, json as json_reply};
use crate::state::{Shared, metas, tokens};

/// Rows of one answer.
const ROWS: usize = 60;
const ROWS_MAX: usize = 500;

/// Longest text that is looked for in keys.
const KEY_BYTES_MAX: usize = 1024;

/// Parameters of a filter.
const FILTER: [&str; 4] = ["class", "view", "shard", "key"];

/// Rows that have what the parameters say, in row order.
pub(super) fn rows(shared: &Arc<Shared>, query: &Query) -> Answer {
    query.expect(&[&FILTER[..], &["offset", "limit"]].concat())?;
    let filter = filter(shared, query)?;
    let page = query.page(ROWS, ROWS_MAX)?;
    let cache = shared.cache()?;
    let found = shared.find(&cache, &filter)?;
    let places = page.of(found.len());
    let rows: Vec<usize> = places.clone().filter_map(|place| found.get(place)).collect();
    let metas = metas(&cache, &rows)?;
    let items: Vec<_> = rows.iter().zip(&metas).map(|(row, meta)| entry(shared, *row, meta)).collect();
    Ok(json_reply(&json!({ "total": found.len(), "offset": places.start, "items": items })))
}

fn filter(shared: &Shared, query: &Query) -> Result<RowFilter, Refusal> {
    let label = query.text("class").map(|text| class(shared, text)).transpose()?;
    let view = query.number("view", 0, i64::from(u32::MAX))?.map(|view| view as u32);
    let shard = query.number("shard", 0, i64::MAX)?.map(|shard| shard as usize);
    let key = query.text("key").map(str::to_owned);
    if key.as_ref().is_some_and(|key| key.len() > KEY_BYTES_MAX) {
        return Err(Refusal::Bad(format!("`key` is longer than {KEY_BYTES_MAX} bytes")));
    }
    Ok(RowFilter { label, view, shard, key })
}

/// A class by its name or index; -1 for rows without one.
fn class(shared: &Shared, text: &str) -> Result<i32, BadRequest> {
    let by_name = shared.manifest.classes.iter().position(|name| name == text);
    match by_name {
        Some(label) => Ok(label as i32),
        None => crate::query::number("class", text, -1, i64::from(i32::MAX)).map(|label| label as i32).map_err(|_| {
            let known = shared.manifest.classes.len();
            let shown: String = text.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect();
            BadRequest(format!(
                "`class` is `{shown}`, expected a class index from -1, or one of the cache's {known} class names"
            ))
        }),
    }
}

/// A row, without its tokens.
pub(super) fn entry(shared: &Shared, row: usize, meta: &RowMeta) -> Value {
    json!({
        "row": row, "key": meta.key, "label": meta.label, "class": shared.class_name(meta.label), "view": meta.view,
        "crop_x": meta.crop_x, "crop_y": meta.crop_y, "flip": meta.flip,
    })
}

/// Everything about one row.
pub(super) fn row(shared: &Arc<Shared>, text: &str, query: &Query) -> Answer {
    query.expect(&[])?;
    let row = row_number(shared, text)?;
    let cache = shared.cache()?;
    let meta = cache.meta(row)?;
    let tokens = tokens(&cache, row);
    let (grid, views) = (cache.grid(), cache.num_views());
    let mut object = entry(shared, row, &meta);
    object["image"] = json!(row / views);
    object["views"] = json!(cache.image_rows(row / views).collect::<Vec<_>>());
    let (shard, row_group) = place(shared, row);
    (object["shard"], object["row_group"]) = (json!(shard), json!(row_group));
    object["tokens"] = json!(tokens.chunks(grid.width as usize).collect::<Vec<_>>());
    // How often each of its codes is used, where that is known already: this page does not wait for it.
    if let State::Done(inspected) = shared.inspection.state() {
        object["counts"] =
            json!(tokens.iter().map(|code| inspected.inspection.code_counts[*code as usize]).collect::<Vec<_>>());
    }
    object["related"] = statistics::related(shared, row);
    object["origin"] = origin(shared, row / views, &meta);
    Ok(json_reply(&object))
}

/// The shard that a row lies in, and its row group there.
fn place(shared: &Shared, row: usize) -> (String, usize) {
    let mut end = 0;
    for shard in &shared.manifest.shards {
        for (number, group) in shard.row_groups.iter().enumerate() {
            end += group.rows;
            if row < end {
                return (shard.file.clone(), number);
            }
        }
    }
    unreachable!("the row was checked against the manifest")
}

/// What the source says, where there is one.
fn origin(shared: &Shared, image: usize, meta: &RowMeta) -> Value {
    let found = match shared.source() {
        Err(Refusal::Missing(_)) => return Value::Null,
        other => other.and_then(|source| Ok((source.size(), source.origin(meta, image)?))),
    };
    match found {
        Ok((size, origin)) => json!({ "label": origin.label, "resized": origin.resized, "size": size }),
        Err(Refusal::Missing(why) | Refusal::Unavailable(why) | Refusal::Bad(why)) => json!({ "error": why }),
        Err(Refusal::Busy) => Value::Null,
    }
}
