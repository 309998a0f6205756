//! Pictures.
//!
//! | address | picture |
//! |---|---|
//! | `/picture/decoded/ROW.png` | what the tokens say |
//! | `/picture/original/ROW.png` | what they were made of |
//! | `/picture/difference/ROW.png` | how the two differ, four times |
//! | `/picture/resized/ROW.png` | the whole image that the original was cut from |
//! | `/picture/patch/ROW/POSITION.png` | what a token stands for, with its neighbours |
//! | `/picture/class/LABEL.png` | the mean of a class |
//! | `/picture/compare/ROW` | how well the two agree, as JSON |

use super::{missing, row_number, statistics};
use crate::pictures::Picture;
use crate::query::{Query, number};
use crate::reply::{Answer, Refusal, json as json_reply, png};
use crate::state::Shared;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Rows that a mean picture is made of.
pub(super) const MEAN_ROWS: usize = 16;

type Made = Result<Arc<Picture>, Refusal>;

/// Answers with a picture.
pub(super) fn picture(shared: &Arc<Shared>, path: &[&str], query: &Query, is_unwanted: &Arc<AtomicBool>) -> Answer {
    query.expect(&[])?;
    let of_row = |text: &str| row_number(shared, text);
    if let ["compare", row] = path {
        return compare(shared, of_row(row)?, is_unwanted);
    }
    let [kind, middle @ .., last] = path else { return Err(missing(&[&["picture"], path].concat())) };
    let Some(last) = last.strip_suffix(".png") else { return Err(missing(&[&["picture"], path].concat())) };
    let picture = match (*kind, middle) {
        ("decoded", []) => decoded(shared, of_row(last)?, is_unwanted)?,
        ("original", []) => Arc::new(original(shared, of_row(last)?)?),
        ("resized", []) => Arc::new(resized(shared, of_row(last)?)?),
        ("difference", []) => difference(shared, of_row(last)?, is_unwanted)?,
        ("patch", [row]) => patch(shared, of_row(row)?, last, is_unwanted)?,
        ("class", []) => mean(shared, last, is_unwanted)?,
        _ => return Err(missing(&[&["picture"], path].concat())),
    };
    // An address that names other pictures, or none, comes from elsewhere, or from a page of before.
    let may_be_kept = query.text("v") == Some(shared.id.as_str());
    Ok(png(picture.to_png(), may_be_kept))
}

fn decoded(shared: &Arc<Shared>, row: usize, is_unwanted: &Arc<AtomicBool>) -> Made {
    let decoding = shared.decoding()?;
    decoding.picture(row, || shared.tokens(row), is_unwanted)
}

fn original(shared: &Arc<Shared>, row: usize) -> Result<Picture, Refusal> {
    let (source, cache) = (shared.source()?, shared.cache()?);
    source.view(&shared.meta(row)?, row / cache.num_views())
}

fn resized(shared: &Arc<Shared>, row: usize) -> Result<Picture, Refusal> {
    let (source, cache) = (shared.source()?, shared.cache()?);
    source.resized(&shared.meta(row)?, row / cache.num_views())
}

fn difference(shared: &Arc<Shared>, row: usize, is_unwanted: &Arc<AtomicBool>) -> Made {
    let (original, decoded) = (original(shared, row)?, decoded(shared, row, is_unwanted)?);
    original.difference(&decoded).map(Arc::new).ok_or_else(other_size)
}

fn other_size() -> Refusal {
    Refusal::Unavailable("the tokenizer's pictures have another size than the originals".into())
}

fn compare(shared: &Arc<Shared>, row: usize, is_unwanted: &Arc<AtomicBool>) -> Answer {
    let (original, decoded) = (original(shared, row)?, decoded(shared, row, is_unwanted)?);
    let psnr = original.psnr(&decoded).ok_or_else(other_size)?;
    // Equal pictures have no finite one, and JSON has no infinity.
    Ok(json_reply(&json!({ "row": row, "psnr": psnr.is_finite().then_some(psnr) })))
}

/// The token at a place of the grid and the eight around it.
fn patch(shared: &Arc<Shared>, row: usize, position: &str, is_unwanted: &Arc<AtomicBool>) -> Made {
    let grid = shared.manifest.grid_spec();
    let position = number("position", position, 0, grid.num_tokens() as i64 - 1)? as usize;
    let picture = decoded(shared, row, is_unwanted)?;
    let (columns, rows) = (grid.width as usize, grid.height as usize);
    let (wide, high) = (picture.width / columns, picture.height / rows);
    // At the picture's edges the three by three tokens lie inside, too.
    let from = |at: usize, of: usize| at.saturating_sub(1).min(of.saturating_sub(3));
    let (left, top) = (from(position % columns, columns), from(position / columns, rows));
    Ok(Arc::new(picture.part((left * wide, top * high), (3 * wide, 3 * high))))
}

fn mean(shared: &Arc<Shared>, label: &str, is_unwanted: &Arc<AtomicBool>) -> Made {
    let label = number("class", label, -1, i64::from(i32::MAX))? as i32;
    let rows = statistics::first_of(shared, label)?;
    let pictures = rows.iter().map(|row| decoded(shared, *row, is_unwanted)).collect::<Result<Vec<_>, _>>()?;
    Picture::mean(&pictures).map(Arc::new).ok_or_else(|| Refusal::Missing(format!("class {label} has no rows")))
}
