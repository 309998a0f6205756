//! What is answered to what.
//!
//! | address | module |
//! |---|---|
//! | `/`, `/grid`, `/sample/ROW`, ...; `/assets/FILE` | [`crate::assets`] |
//! | `/api/overview`, `/api/health`, `/api/quarantine` | [`overview`] |
//! | `/api/rows`, `/api/row/ROW` | [`rows`] |
//! | `/api/statistics`, `/api/codes`, `/api/code/CODE`, `/api/classes` | [`statistics`] |
//! | `/api/duplicates`, `/api/near-duplicates`, `/api/label-conflicts` | [`doubles`] |
//! | `/picture/...` | [`picture`] |

mod doubles;
mod overview;
mod picture;
mod rows;
mod statistics;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::assets;
use crate::query::{BadRequest, Page, Query};
use crate::reply::{Answer, Refusal, Reply, csv, json as json_reply};
use crate::state::Shared;

/// Items of a list at a time, and as a file.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1000;

/// Answers one request. `is_unwanted` is set when nobody waits for the answer any more.
pub(crate) fn answer(
    shared: &Arc<Shared>,
    method: &Method,
    path: &str,
    query: &str,
    is_unwanted: &Arc<AtomicBool>,
) -> Reply {
    let parsed = Query::parse(path, query).map_err(Refusal::from);
    let answer = parsed.and_then(|query| {
        let segments: Vec<&str> = query.segments.iter().map(String::as_str).collect();
        let is_start = matches!(segments.as_slice(), ["api", "health"]);
        match *method {
            Method::GET | Method::HEAD => route(shared, &segments, &query, is_unwanted),
            Method::POST if is_start => overview::verify(shared, &query),
            _ => Ok(Reply {
                status: StatusCode::METHOD_NOT_ALLOWED,
                ..json_reply(&json!({"error": "only GET is answered here"}))
            }),
        }
    });
    answer.unwrap_or_else(|refusal| refusal.reply())
}

fn route(shared: &Arc<Shared>, segments: &[&str], query: &Query, is_unwanted: &Arc<AtomicBool>) -> Answer {
    match segments {
        [] => Ok(assets::page()),
        ["assets", name] => assets::file(name).ok_or_else(|| missing(segments)),
        ["favicon.ico"] => assets::file("icon.svg").ok_or_else(|| missing(segments)),
        ["api", "overview"] => overview::overview(shared, query),
        ["api", "health"] => overview::health(shared, query),
        ["api", "quarantine"] => overview::quarantine(shared, query),
        ["api", "rows"] => rows::rows(shared, query),
        ["api", "row", row] => rows::row(shared, row, query),
        ["api", "statistics"] => statistics::statistics(shared, query),
        ["api", "codes"] => statistics::codes(shared, query),
        ["api", "code", code] => statistics::code(shared, code, query),
        ["api", "classes"] => statistics::classes(shared, query),
        ["api", "duplicates"] => doubles::duplicates(shared, query),
        ["api", "near-duplicates"] => doubles::near_duplicates(shared, query),
        ["api", "label-conflicts"] => doubles::label_conflicts(shared, query),
        ["picture", rest @ ..] => picture::picture(shared, rest, query, is_unwanted),
        [page, ..] if assets::PAGES.contains(page) => Ok(assets::page()),
        _ => Err(missing(segments)),
    }
}

fn missing(segments: &[&str]) -> Refusal {
    let path: String = segments.join("/").chars().take(100).map(|c| if c.is_control() { '?' } else { c }).collect();
    Refusal::Missing(format!("there is no /{path} here"))
}

/// A row by its number in the address.
fn row_number(shared: &Shared, text: &str) -> Result<usize, Refusal> {
    let row = crate::query::number("row", text, 0, i64::MAX)? as usize;
    let rows = shared.info.rows;
    if row < rows {
        Ok(row)
    } else {
        Err(Refusal::Missing(format!("row {row} does not exist: the cache has rows 0..{rows}")))
    }
}

/// A part of a list as JSON, or, with `format=csv`, all of it as a file: `all` makes the items of some places.
fn list(
    name: &str,
    total: usize,
    more: Value,
    query: &Query,
    all: &dyn Fn(std::ops::Range<usize>) -> Result<Vec<Value>, Refusal>,
) -> Answer {
    if query.word("format", &["json", "csv"])? == "csv" {
        return Ok(csv(name, &all(0..total)?));
    }
    let page: Page = query.page(LIMIT, LIMIT_MAX)?;
    let places = page.of(total);
    let mut object = json!({ "total": total, "offset": places.start, "items": all(places)? });
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
    Ok(json_reply(&object))
}

/// Parameters of every list.
const LIST: [&str; 3] = ["offset", "limit", "format"];

/// Refuses parameters other than those of a list, and `more`.
fn expect_list(query: &Query, more: &[&str]) -> Result<(), BadRequest> {
    query.expect(&[&LIST, more].concat())
}
