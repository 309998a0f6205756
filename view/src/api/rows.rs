//! Rows: many by a filter, or one with all that is known of it.

use super::list::{Kind, file};
use super::{row_number, statistics};
use crate::background::State;
use crate::query::{BadRequest, Query};
use crate::reply::{Answer, Refusal, json as json_reply, json_of};
use crate::row_set::RowSet;
use crate::search::{By, Listed, Order, Wanted};
use crate::state::Shared;
use crate::text::{cut, printable};
use serde::Serialize;
use serde_json::{Value, json};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokengrid_cache::{RowFilter, RowMeta};

/// Rows of one answer.
const ROWS: usize = 60;
const ROWS_MAX: usize = 500;

/// Longest text that is looked for in keys.
const KEY_BYTES_MAX: usize = 1024;

/// Parameters of a filter.
const FILTER: [&str; 10] = ["class", "label", "view", "shard", "split", "key", "code", "rows", "sort", "order"];

/// Classes of one filter.
const LABELS_MAX: usize = 1000;

/// What [`entry`] says of a row, and what [`entries`] adds.
pub(super) const ENTRY: &[&str] = &["class", "class_name", "crop_x", "crop_y", "flip", "key", "label", "row", "view"];
pub(super) const MORE: &[&str] = &["class_distance", "damage", "entropy"];

/// Rows as a file.
const ROWS_FILE: Kind = Kind { name: "rows", columns: &[ENTRY, MORE] };

/// Rows that have what the parameters say.
pub(super) fn rows(shared: &Arc<Shared>, query: &Query, is_unwanted: &AtomicBool) -> Answer {
    query.expect(&[&FILTER[..], &["offset", "limit", "format"]].concat())?;
    let (is_csv, page) = (query.is_csv()?, query.page(ROWS, ROWS_MAX)?);
    let found = shared.find(&wanted(shared, query)?, is_unwanted)?;
    let (maker, total) = (Arc::clone(shared), found.len());
    let items = move |places: Range<usize>| {
        let rows: Vec<usize> = places.filter_map(|place| found.get(place)).collect();
        entries(&maker, &rows)
    };
    if is_csv {
        return file(ROWS_FILE, total, Box::new(items));
    }
    let places = page.of(total);
    Ok(json_reply(&json!({ "total": total, "offset": places.start, "items": items(places)? })))
}

/// Numbers of rows, as [`RowSet`] writes them.
#[derive(Debug, Serialize)]
struct Numbers {
    total: usize,
    count: usize,
    rows: String,
}

/// The numbers of the rows that have what the parameters say, as a text: those of some places in the list, or all.
pub(super) fn numbers(shared: &Arc<Shared>, query: &Query, is_unwanted: &AtomicBool) -> Answer {
    query.expect(&[&FILTER[..], &["offset", "limit"]].concat())?;
    let page = query.page(usize::MAX >> 1, usize::MAX >> 1)?;
    let found = shared.find(&wanted(shared, query)?, is_unwanted)?;
    let places = page.of(found.len());
    let rows = RowSet::of(places.clone().filter_map(|place| found.get(place)));
    Ok(json_of(&Numbers { total: found.len(), count: rows.len(), rows: rows.to_text()? }))
}

/// Rows of a selection as a file.
pub(super) fn selected(shared: &Arc<Shared>, rows: RowSet) -> Answer {
    let (maker, total) = (Arc::clone(shared), rows.len());
    let items = move |places: Range<usize>| {
        let rows: Vec<usize> = places.filter_map(|place| rows.get(place)).collect();
        entries(&maker, &rows)
    };
    file(ROWS_FILE, total, Box::new(items))
}

/// Rows, without their tokens. Where a row group cannot be read, each of its rows says why, and the others are there.
pub(super) fn entries(shared: &Shared, rows: &[usize]) -> Result<Vec<Value>, Refusal> {
    let report = shared.last_report();
    let survey = match shared.survey.state() {
        State::Done(survey) => Some(survey),
        _ => None,
    };
    let with_more = |row: usize, mut entry: Value| {
        if let Some(survey) = &survey {
            entry["entropy"] = rounded(survey.entropy_bits(row)).into();
            entry["class_distance"] = rounded(survey.class_distance_bits(row)).into();
        }
        if let Some(what) = shared.shards.known_damage(shared.shards.place(row), report.as_deref()) {
            entry["damage"] = what.into();
        }
        entry
    };
    if let Ok(metas) = shared.metas(rows) {
        let each = rows.iter().zip(&metas);
        let mut items: Vec<Value> = each.map(|(row, meta)| with_more(*row, entry(shared, *row, meta))).collect();
        add_beside(shared, rows, &metas, &mut items)?;
        return Ok(items);
    }
    let mut items = Vec::with_capacity(rows.len());
    for group in rows.chunk_by(|a, b| shared.shards.place(*a) == shared.shards.place(*b)) {
        match shared.metas(group) {
            Ok(metas) => {
                let each = group.iter().zip(&metas);
                items.extend(each.map(|(row, meta)| with_more(*row, entry(shared, *row, meta))));
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

/// Adds to entries the rows of the second cache that go with them, where there is a second cache.
fn add_beside(shared: &Shared, rows: &[usize], metas: &[RowMeta], items: &mut [Value]) -> Result<(), Refusal> {
    let Some(beside) = &shared.beside else { return Ok(()) };
    let views = shared.cache()?.num_views();
    let images: Vec<usize> = rows.iter().map(|row| row / views).collect();
    let found = match beside.rows(&images, metas) {
        Ok(found) => found,
        Err(not_yet @ Refusal::NotYet(_)) => return Err(not_yet),
        // What is wrong with the other cache is said on the pages of single rows; here the others are still found.
        Err(_) => images.iter().zip(metas).map(|(image, meta)| beside.row(meta, *image).ok().flatten()).collect(),
    };
    for (item, other) in items.iter_mut().zip(found) {
        item["beside"] = json!(other);
    }
    Ok(())
}

/// Thousandths are more than is kept.
fn rounded(value: f32) -> f64 {
    (f64::from(value) * 1000.0).round() / 1000.0
}

/// A row of which nothing but its number and label is known.
fn unreadable(shared: &Shared, row: usize, why: &str) -> Value {
    let label = shared.cache().map_or(-1, |cache| cache.label(row));
    json!({ "row": row, "key": null, "label": label, "class": shared.class_name(label).map(cut), "class_name": shared.class_names.get(label), "damage": why })
}

/// What the parameters say.
fn wanted(shared: &Shared, query: &Query) -> Result<Wanted, Refusal> {
    let labels = labels(shared, query)?;
    let mut listed = Listed {
        labels: None,
        code: query.number("code", 0, (1i64 << shared.info.bits) - 1)?.map(|code| code as u32),
        // A selection without rows has none: it is not a filter that was left out.
        rows: query.given("rows").map(|text| RowSet::parse(text, shared.info.rows)).transpose()?,
        order: order(query)?,
    };
    let label = match labels.as_deref() {
        Some([label]) => Some(*label),
        _ => {
            listed.labels = labels;
            None
        }
    };
    Ok(Wanted { filter: filter(query, label)?, split: query.text("split").map(str::to_owned), listed })
}

/// The order that is wanted, where it is not that of the rows.
fn order(query: &Query) -> Result<Option<Order>, BadRequest> {
    let is_descending = query.word("order", &["up", "down"])? == "down";
    let by = match query.word("sort", &["row", "entropy", "distance", "margin"])? {
        "entropy" => By::Entropy,
        "distance" => By::Distance,
        "margin" => By::Margin,
        _ if is_descending => By::Row,
        _ => return Ok(None),
    };
    Ok(Some(Order { by, is_descending }))
}

/// The classes that are wanted, in ascending order.
fn labels(shared: &Shared, query: &Query) -> Result<Option<Vec<i32>>, Refusal> {
    let named = query.text("class").map(|text| class(shared, text)).transpose()?;
    // Classes may be called by numbers, and not by their own: `label` is an index, and never a name.
    let number = |text: &str| crate::query::number("label", text, -1, i64::from(i32::MAX)).map(|label| label as i32);
    let numbered: Option<Vec<i32>> =
        query.text("label").map(|text| text.split(',').map(number).collect()).transpose()?;
    let mut labels = match (named, numbered) {
        (Some(_), Some(_)) => return Err(Refusal::Bad("`class` and `label` are both given: one is enough".to_owned())),
        (Some(label), None) => vec![label],
        (None, Some(labels)) => labels,
        (None, None) => return Ok(None),
    };
    if labels.len() > LABELS_MAX {
        return Err(Refusal::Bad(format!("`label` has {} classes, at most {LABELS_MAX}", labels.len())));
    }
    labels.sort_unstable();
    labels.dedup();
    Ok(Some(labels))
}

fn filter(query: &Query, label: Option<i32>) -> Result<RowFilter, Refusal> {
    let view = query.number("view", 0, i64::from(u32::MAX))?.map(|view| view as u32);
    let shard = query.number("shard", 0, i64::MAX)?.map(|shard| shard as usize);
    let key = query.text("key").map(str::to_owned);
    if key.as_ref().is_some_and(|key| key.len() > KEY_BYTES_MAX) {
        return Err(Refusal::Bad(format!("`key` is longer than {KEY_BYTES_MAX} bytes")));
    }
    Ok(RowFilter { label, view, shard, key })
}

/// A class by its name, its readable name or its index, or as the page shows it; -1 for rows without one.
fn class(shared: &Shared, text: &str) -> Result<i32, BadRequest> {
    let by_name = shared.manifest.classes.iter().position(|name| name == text).map(|label| label as i32);
    // What several classes are called is none of them.
    let by_meaning = || match shared.class_names.find(text).as_slice() {
        [label] => Some(*label),
        _ => None,
    };
    match by_name.or_else(|| shown_class(shared, text)).or_else(by_meaning) {
        Some(label) => Ok(label),
        None => crate::query::number("class", text, -1, i64::from(i32::MAX)).map(|label| label as i32).map_err(|_| {
            let known = shared.manifest.classes.len();
            let shown = printable(text, 64);
            BadRequest(format!(
                "`class` is `{shown}`, expected a class index from -1, or one of the cache's {known} class names; for several \
                 classes give their indices: `label=0,2`"
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
    let has_name = |label: i32| shared.class_name(label).is_some() || shared.class_names.get(label).is_some();
    if let Some(label) = unnamed.filter(|label| *label >= 0 && !has_name(*label)) {
        return Some(label);
    }
    let (name, index) = text.strip_suffix(')')?.rsplit_once(" (")?;
    let label = index.parse().ok()?;
    let names = [shared.class_name(label), shared.class_names.get(label)];
    names.iter().flatten().any(|known| cut(known) == name).then_some(label)
}

/// A row, without its tokens.
pub(super) fn entry(shared: &Shared, row: usize, meta: &RowMeta) -> Value {
    json!({
        "row": row, "key": cut(&meta.key), "label": meta.label, "class": shared.class_name(meta.label).map(cut),
        "class_name": shared.class_names.get(meta.label),
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
