//! What is done with a selection of rows: files of it, and a cache.
//!
//! The page keeps the selection and sends it, as [`RowSet`] writes it: the server need not remember whose it is.

use super::list::download;
use super::overview::progress;
use super::rows;
use crate::query::Query;
use crate::reply::{Answer, Refusal, json as json_reply, with_causes};
use crate::row_set::RowSet;
use crate::state::{Shared, Subset};
use crate::text::printable;
use serde::Deserialize;
use serde_json::json;
use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use tokengrid_cache::{OpenMode, Selection};

/// Longest name of a new cache's folder.
const NAME_BYTES_MAX: usize = 100;

/// What is sent to have a cache written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubsetRequest<'a> {
    #[serde(borrow)]
    rows: Cow<'a, str>,
    name: String,
}

fn row_set(shared: &Shared, body: &[u8]) -> Result<RowSet, Refusal> {
    let text = std::str::from_utf8(body).map_err(|_| Refusal::Bad("the selection is not UTF-8".to_owned()))?;
    Ok(RowSet::parse(text, shared.info.rows)?)
}

/// The keys of the selected rows' images, a line each: for programs, and for `--exclude @FILE`.
pub(super) fn keys(shared: &Arc<Shared>, query: &Query, body: &[u8]) -> Answer {
    query.expect(&["name"])?;
    let name = query.word("name", &["keys", "exclude"])?;
    let rows = row_set(shared, body)?;
    let (maker, total, views) = (Arc::clone(shared), rows.len(), shared.cache()?.num_views());
    let part = move |places: Range<usize>| {
        let before = places.start.checked_sub(1).and_then(|place| rows.get(place)).map(|row| row / views);
        let mut chosen: Vec<usize> = places.filter_map(|place| rows.get(place)).collect();
        // Rows of one image follow each other.
        chosen.dedup_by_key(|row| *row / views);
        chosen.retain(|row| Some(*row / views) != before);
        lines_of_keys(&maker, &chosen)
    };
    download(&format!("{name}.txt"), "text/plain; charset=utf-8", total, Box::new(part))
}

fn lines_of_keys(shared: &Shared, rows: &[usize]) -> Result<Vec<u8>, Refusal> {
    let mut lines = String::new();
    for (row, meta) in rows.iter().zip(shared.metas(rows)?) {
        if meta.key.contains(['\n', '\r']) {
            let key = printable(&meta.key, 100);
            let text =
                format!("the key of row {row} has a line break and fits no list of lines: {key}; the CSV has it");
            return Err(Refusal::Unavailable(text));
        }
        lines.push_str(&meta.key);
        lines.push('\n');
    }
    Ok(lines.into_bytes())
}

/// The selected rows as a file of comma-separated values.
pub(super) fn rows(shared: &Arc<Shared>, query: &Query, body: &[u8]) -> Answer {
    query.expect(&[])?;
    rows::selected(shared, row_set(shared, body)?)
}

/// Begins to write a cache of the images of the selected rows.
pub(super) fn write_subset(shared: &Arc<Shared>, query: &Query, body: &[u8]) -> Answer {
    query.expect(&[])?;
    let folder = shared.export_dir.clone().ok_or_else(|| {
        let text = "this server writes nothing: start with --export-dir DIR to have caches written below DIR";
        Refusal::Missing(text.to_owned())
    })?;
    let bad =
        |error: serde_json::Error| Refusal::Bad(format!("expected {{\"rows\": \"0-5,9\", \"name\": ...}}: {error}"));
    let request: SubsetRequest<'_> = serde_json::from_slice(body).map_err(bad)?;
    let out = folder.join(checked_name(&request.name)?);
    if is_same(&out, &shared.dir) {
        return Err(Refusal::Bad(format!("`{}` is the cache that is shown: give another name", request.name)));
    }
    let rows = RowSet::parse(&request.rows, shared.info.rows)?;
    if rows.len() == 0 {
        return Err(Refusal::Bad("no row is selected".to_owned()));
    }
    let (cache, maker) = (shared.cache()?, Arc::clone(shared));
    shared.subset.start(true, move |_| {
        let selection = Selection { image_ranges: Some(rows.images(cache.num_views())), ..Selection::default() };
        drop(rows);
        let write = || tokengrid_cache::subset(&maker.dir, &out, &selection, OpenMode::Resume);
        let finished = maker.alone(&cache, write);
        Ok(Subset { dir: out, finished: finished.map_err(|error| with_causes(&error))? })
    });
    state_of_subset(shared)
}

/// A name that is one folder below another on every system, and not hidden.
fn checked_name(name: &str) -> Result<&str, Refusal> {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ' ' | '+' | '=');
    let is_name = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name.chars().all(is_plain)
        && !name.starts_with(['.', ' ', '-'])
        && !name.ends_with(['.', ' ']);
    is_name.then_some(name).ok_or_else(|| {
        let shown = printable(name, 100);
        Refusal::Bad(format!(
            "`{shown}` is no name for a folder: letters, digits, blanks and -_.+= are, at most {NAME_BYTES_MAX} bytes, and \
             neither a dot, a blank nor a - comes first"
        ))
    })
}

fn is_same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// How far the writing is.
pub(super) fn subset(shared: &Arc<Shared>, query: &Query) -> Answer {
    query.expect(&[])?;
    state_of_subset(shared)
}

fn state_of_subset(shared: &Shared) -> Answer {
    Ok(json_reply(&progress(&shared.subset.state(), &|Subset { dir, finished }| {
        json!({
            "dir": dir, "rows": finished.rows, "images": finished.images, "content_hash": finished.content_hash,
        })
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_folder() {
        for name in ["a", "cats 2", "n01440764", "ä-b_c.d", "a=1+2"] {
            assert!(checked_name(name).is_ok(), "{name}");
        }
        let long = "a".repeat(101);
        for name in ["", ".", "..", "a/b", "/a", "a\\b", "c:d", "-rf", " a", "a.", "a\nb", "\u{0}", &long] {
            assert!(checked_name(name).is_err(), "{name}");
        }
    }
}
