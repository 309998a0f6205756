//! Rows: many by a filter, or one with all that is known of it.

use super::{row_number, statistics};
use crate::background::State;
use crate::query::{BadRequest, Query};
use crate::reply::{Answer, Refusal, json as json_reply};
use crate::search::Wanted;
use crate::state::Shared;
use crate::text::{cut, printable};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokengrid_cache::{RowFilter, RowMeta};

/// Rows of one answer.
const ROWS: usize = 60;
const ROWS_MAX: usize = 500;

/// Longest text that is looked for in keys.
const KEY_BYTES_MAX: usize = 1024;

/// Parameters of a filter.
const FILTER: [&str; 6] = ["class", "label", "view", "shard", "split", "key"];

/// Rows that have what the parameters say, in row order.
pub(super) fn rows(shared: &Arc<Shared>, query: &Query, is_unwanted: &AtomicBool) -> Answer {
    query.expect(&[&FILTER[..], &["offset", "limit"]].concat())?;
    let wanted = Wanted { filter: filter(shared, query)?, split: query.text("split").map(str::to_owned) };
    let page = query.page(ROWS, ROWS_MAX)?;
    let found = shared.find(&wanted, is_unwanted)?;
    let places = page.of(found.len());
    let rows: Vec<usize> = places.clone().filter_map(|place| found.get(place)).collect();
    let items = entries(shared, &rows)?;
    Ok(json_reply(&json!({ "total": found.len(), "offset": places.start, "items": items })))
}

/// Rows, without their tokens. Where a row group cannot be read, each of its rows says why, and the others are there.
fn entries(shared: &Shared, rows: &[usize]) -> Result<Vec<Value>, Refusal> {
    let report = shared.last_report();
    let with_damage = |row: usize, mut entry: Value| {
        if let Some(what) = shared.shards.known_damage(shared.shards.place(row), report.as_deref()) {
            entry["damage"] = what.into();
        }
        entry
    };
    if let Ok(metas) = shared.metas(rows) {
        let each = rows.iter().zip(&metas);
        return Ok(each.map(|(row, meta)| with_damage(*row, entry(shared, *row, meta))).collect());
    }
    let mut items = Vec::with_capacity(rows.len());
    for group in rows.chunk_by(|a, b| shared.shards.place(*a) == shared.shards.place(*b)) {
        match shared.metas(group) {
            Ok(metas) => {
                let each = group.iter().zip(&metas);
                items.extend(each.map(|(row, meta)| with_damage(*row, entry(shared, *row, meta))));
            }
            Err(refusal @ Refusal::Unavailable(_)) => {
                shared.log_once(refusal.text(), "/api/rows");
                items.extend(group.iter().map(|row| unreadable(shared, *row, refusal.text())));
            }
            Err(other) => return Err(other),
        }
    }
    Ok(items)
}

/// A row of which nothing but its number and label is known.
fn unreadable(shared: &Shared, row: usize, why: &str) -> Value {
    let label = shared.cache().map_or(-1, |cache| cache.label(row));
    json!({ "row": row, "key": null, "label": label, "class": shared.class_name(label).map(cut), "damage": why })
}

fn filter(shared: &Shared, query: &Query) -> Result<RowFilter, Refusal> {
    let named = query.text("class").map(|text| class(shared, text)).transpose()?;
    // Classes may be called by numbers, and not by their own: `label` is an index, and never a name.
    let numbered = query.number("label", -1, i64::from(i32::MAX))?.map(|label| label as i32);
    if named.is_some() && numbered.is_some() {
        return Err(Refusal::Bad("`class` and `label` are both given: one is enough".to_owned()));
    }
    let label = named.or(numbered);
    let view = query.number("view", 0, i64::from(u32::MAX))?.map(|view| view as u32);
    let shard = query.number("shard", 0, i64::MAX)?.map(|shard| shard as usize);
    let key = query.text("key").map(str::to_owned);
    if key.as_ref().is_some_and(|key| key.len() > KEY_BYTES_MAX) {
        return Err(Refusal::Bad(format!("`key` is longer than {KEY_BYTES_MAX} bytes")));
    }
    Ok(RowFilter { label, view, shard, key })
}

/// A class by its name or index, or as the page shows it; -1 for rows without one.
fn class(shared: &Shared, text: &str) -> Result<i32, BadRequest> {
    let by_name = shared.manifest.classes.iter().position(|name| name == text).map(|label| label as i32);
    match by_name.or_else(|| shown_class(shared, text)) {
        Some(label) => Ok(label),
        None => crate::query::number("class", text, -1, i64::from(i32::MAX)).map(|label| label as i32).map_err(|_| {
            let known = shared.manifest.classes.len();
            let shown = printable(text, 64);
            BadRequest(format!(
                "`class` is `{shown}`, expected a class index from -1, or one of the cache's {known} class names"
            ))
        }),
    }
}

/// The class that the page shows as `text`: `no class`, `NAME (INDEX)`, or `class INDEX` where it has no name.
fn shown_class(shared: &Shared, text: &str) -> Option<i32> {
    if text == "no class" {
        return Some(-1);
    }
    let unnamed = text.strip_prefix("class ").and_then(|index| index.parse().ok());
    if let Some(label) = unnamed.filter(|label| *label >= 0 && shared.class_name(*label).is_none()) {
        return Some(label);
    }
    let (name, index) = text.strip_suffix(')')?.rsplit_once(" (")?;
    let label = index.parse().ok()?;
    shared.class_name(label).is_some_and(|known| cut(known) == name).then_some(label)
}

/// A row, without its tokens.
pub(super) fn entry(shared: &Shared, row: usize, meta: &RowMeta) -> Value {
    json!({
        "row": row, "key": cut(&meta.key), "label": meta.label, "class": shared.class_name(meta.label).map(cut),
        "view": meta.view, "crop_x": meta.crop_x, "crop_y": meta.crop_y, "flip": meta.flip,
    })
}

/// Everything about one row.
pub(super) fn row(shared: &Arc<Shared>, text: &str, query: &Query) -> Answer {
    query.expect(&[])?;
    let row = row_number(shared, text)?;
    let cache = shared.cache()?;
    let meta = shared.meta(row)?;
    let tokens = shared.tokens(row)?;
    let (grid, views) = (cache.grid(), cache.num_views());
    let image = row / views;
    let mut object = entry(shared, row, &meta);
    object["image"] = json!(image);
    object["views"] = json!(cache.image_rows(image).collect::<Vec<_>>());
    object["split"] = json!(split(shared, image)?);
    let place = shared.shards.place(row);
    (object["shard"], object["row_group"]) = (json!(shared.shards.file(place.shard)), json!(place.row_group));
    let reported = shared.shards.known_damage(place, shared.last_report().as_deref());
    object["damage"] = json!(reported.or_else(|| shared.shards.damage(&cache, row)));
    object["tokens"] = json!(tokens.chunks(grid.width as usize).collect::<Vec<_>>());
    // How often each of its codes is used, where that is known already: this page does not wait for it.
    if let State::Done(inspected) = shared.inspection.state() {
        object["counts"] =
            json!(tokens.iter().map(|code| inspected.inspection.code_counts[*code as usize]).collect::<Vec<_>>());
    }
    object["related"] = statistics::related(shared, row);
    object["origin"] = origin(shared, image, &meta);
    Ok(json_reply(&object))
}

/// The name of the split that an image is of, where the cache has splits.
fn split(shared: &Shared, image: usize) -> Result<Option<&str>, Refusal> {
    let cache = shared.cache()?;
    let mut names = shared.manifest.splits.iter().map(|split| split.name.as_str());
    let is_in = |name: &&str| cache.split_images(name).is_some_and(|images| images.contains(&image));
    Ok(names.find(is_in))
}

/// What the source says, where there is one.
fn origin(shared: &Shared, image: usize, meta: &RowMeta) -> Value {
    let found = match shared.source() {
        Err(Refusal::Missing(_)) => return Value::Null,
        other => other.and_then(|source| Ok((source.size(), source.origin(meta, image)?))),
    };
    match found {
        Ok((size, origin)) => json!({ "label": origin.label, "resized": origin.resized, "size": size }),
        Err(refusal) => json!({ "error": refusal.text() }),
    }
}
