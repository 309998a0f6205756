//! What is answered to what.
//!
//! | address | module |
//! |---|---|
//! | `/`, `/grid`, `/sample/ROW`, ...; `/assets/FILE` | [`crate::assets`] |
//! | `/api/overview`, `/api/health`, `/api/quarantine` | [`overview`] |
//! | `/api/rows`, `/api/row/ROW`, `/api/row-numbers` | [`rows`] |
//! | `/api/map`, `/api/map/points`, `/api/map/lasso` | [`map`] |
//! | `/api/beside/ROW`; `/beside/api/row/ROW`, `/beside/picture/...` | [`beside`] |
//! | `/api/similar/ROW` | [`similar`] |
//! | `/api/selection/...`, `/api/subset` | [`selection`] |
//! | `/api/statistics`, `/api/codes`, `/api/code/CODE`, `/api/classes` | [`statistics`] |
//! | `/api/duplicates`, `/api/near-duplicates`, `/api/label-conflicts` | [`duplicates`] |
//! | `/picture/...` | [`picture`] |

mod beside;
mod duplicates;
mod list;
mod map;
mod overview;
mod picture;
mod rows;
mod selection;
mod similar;
mod statistics;

use self::list::{Kind, expect_list, list};
use crate::assets;
use crate::query::Query;
use crate::reply::{Answer, Refusal, Reply, json as json_reply, panic_text};
use crate::state::Shared;
use crate::text::printable;
use hyper::{Method, StatusCode};
use serde_json::json;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What a request needs, and so with how many others it shares the threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Nothing that takes time: the page, the overview, how far work is.
    Quick,
    /// Rows and what was counted of them.
    Rows,
    /// Every key or token of the cache, or the whole list of inputs without rows.
    Search,
    /// The decoder, or an image of the source.
    Pictures,
}

impl Lane {
    /// The lane of a request; `path` begins after the prefix.
    pub(crate) fn of(path: &str, query: &str) -> Lane {
        let mut segments = path.split('/').filter(|segment| !segment.is_empty()).peekable();
        // What is asked of the second cache takes as long as of the first.
        let _ = segments.next_if_eq(&"beside");
        let reads_all = |pair: &str| ["key=", "code=", "sort="].iter().any(|name| pair.starts_with(name));
        let is_search = query.split('&').any(reads_all);
        match (segments.next(), segments.next()) {
            (Some("api"), Some("map")) if segments.next().is_none() => Lane::Quick,
            (Some("picture"), _) => Lane::Pictures,
            (Some("api"), Some("overview" | "health" | "statistics")) => Lane::Quick,
            (Some("api"), Some("subset")) => Lane::Quick,
            (Some("api"), Some("quarantine" | "similar")) => Lane::Search,
            (Some("api"), Some("rows" | "row-numbers")) if is_search => Lane::Search,
            (Some("api"), _) => Lane::Rows,
            _ => Lane::Quick,
        }
    }
}

/// The answer to other methods.
const ONLY_GET: &str = "this address answers GET alone; POST is answered at /api/health and /api/statistics, and at \
    /api/map, /api/map/lasso, /api/selection/keys, /api/selection/rows and /api/subset";

/// Answers one request with the body `body`. `is_unwanted` is set when nobody waits for the answer any more.
pub(crate) fn answer(
    shared: &Arc<Shared>,
    method: &Method,
    path: &str,
    query: &str,
    body: &[u8],
    is_unwanted: &Arc<AtomicBool>,
) -> Reply {
    let answer = || -> Answer {
        let query = Query::parse(path, query)?;
        let segments: Vec<&str> = query.segments.iter().map(String::as_str).collect();
        match (method, segments.as_slice()) {
            (&Method::GET | &Method::HEAD, []) => Ok(assets::page(path)),
            (&Method::GET | &Method::HEAD, [page, ..]) if assets::PAGES.contains(page) => Ok(assets::page(path)),
            (&Method::GET | &Method::HEAD, segments) => route(shared, segments, &query, is_unwanted),
            (&Method::POST, ["api", "health"]) => overview::verify(shared, &query),
            (&Method::POST, ["api", "statistics"]) => statistics::count(shared, &query),
            (&Method::POST, ["api", "selection", "keys"]) => selection::keys(shared, &query, body),
            (&Method::POST, ["api", "selection", "rows"]) => selection::rows(shared, &query, body),
            (&Method::POST, ["api", "map"]) => map::begin(shared, &query),
            (&Method::POST, ["api", "map", "lasso"]) => map::lasso(shared, &query, body),
            (&Method::POST, ["api", "subset"]) => selection::write_subset(shared, &query, body),
            _ => Ok(Reply { status: StatusCode::METHOD_NOT_ALLOWED, ..json_reply(&json!({"error": ONLY_GET})) }),
        }
    };
    // One request that panics is one answer less; what it held is dropped, and what requests share is behind locks that
    // survive it.
    let answer = catch_unwind(AssertUnwindSafe(answer))
        .unwrap_or_else(|payload| Err(Refusal::Internal(panic_text(payload.as_ref()))));
    answer.unwrap_or_else(|refusal| {
        if refusal.is_of_server() {
            shared.log_once(refusal.text(), path);
        }
        refusal.reply()
    })
}

fn route(shared: &Arc<Shared>, segments: &[&str], query: &Query, is_unwanted: &Arc<AtomicBool>) -> Answer {
    match segments {
        ["assets", name] => assets::file(name).ok_or_else(|| missing(segments)),
        ["favicon.ico"] => assets::file("icon.svg").ok_or_else(|| missing(segments)),
        ["api", "overview"] => overview::overview(shared, query),
        ["api", "health"] => overview::health(shared, query),
        ["api", "quarantine"] => overview::quarantine(shared, query),
        ["api", "rows"] => rows::rows(shared, query, is_unwanted),
        ["api", "row", row] => rows::row(shared, row, query),
        ["api", "row-numbers"] => rows::numbers(shared, query, is_unwanted),
        ["api", "beside", row] => beside::beside(shared, row, query),
        ["beside", "api", "row", row] => rows::row(&beside::other(shared)?.shared, row, query),
        ["beside", "picture", rest @ ..] => picture::picture(&beside::other(shared)?.shared, rest, query, is_unwanted),
        ["api", "similar", row] => similar::similar(shared, row, query),
        ["api", "map"] => map::state(shared, query),
        ["api", "map", "points"] => map::points(shared, query),
        ["api", "subset"] => selection::subset(shared, query),
        ["api", "statistics"] => statistics::statistics(shared, query),
        ["api", "codes"] => statistics::codes(shared, query),
        ["api", "code", code] => statistics::code(shared, code, query),
        ["api", "classes"] => statistics::classes(shared, query),
        ["api", "duplicates"] => duplicates::duplicates(shared, query),
        ["api", "near-duplicates"] => duplicates::near_duplicates(shared, query),
        ["api", "label-conflicts"] => duplicates::label_conflicts(shared, query),
        ["picture", rest @ ..] => picture::picture(shared, rest, query, is_unwanted),
        _ => Err(missing(segments)),
    }
}

fn missing(segments: &[&str]) -> Refusal {
    Refusal::Missing(format!("there is no /{} here", printable(&segments.join("/"), 100)))
}

/// A row by its number in the address.
fn row_number(shared: &Shared, text: &str) -> Result<usize, Refusal> {
    let row = crate::query::number("row", text, 0, i64::MAX)? as usize;
    let rows = shared.info.rows;
    if row < rows {
        return Ok(row);
    }
    let there_are = match rows {
        0 => "no rows".to_owned(),
        1 => "row 0 alone".to_owned(),
        _ => format!("rows 0 to {}", rows - 1),
    };
    Err(Refusal::Missing(format!("row {row} does not exist: the cache has {there_are}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_has_a_lane_of_its_own() {
        for (path, query, lane) in [
            ("/", "", Lane::Quick),
            ("/grid", "key=x", Lane::Quick),
            ("/api/overview", "", Lane::Quick),
            ("//api//rows", "class=1", Lane::Rows),
            ("/api/rows", "class=1&key=a", Lane::Search),
            ("/api/row-numbers", "code=5", Lane::Search),
            ("/api/similar/7", "", Lane::Search),
            ("/beside/picture/decoded/1.png", "", Lane::Pictures),
            ("/beside/api/row/1", "", Lane::Rows),
            ("/api/subset", "", Lane::Quick),
            ("/api/codes", "format=csv", Lane::Rows),
            ("/picture/decoded/1.png", "", Lane::Pictures),
        ] {
            assert_eq!(Lane::of(path, query), lane, "{path}?{query}");
        }
    }
}
