//! The second cache: which of its rows goes with a row of the first one, and how the two differ.

use super::row_number;
use crate::beside::BesideCache;
use crate::query::Query;
use crate::reply::{Answer, Refusal, json as json_reply};
use crate::state::Shared;
use serde_json::{Value, json};
use std::sync::Arc;

/// The second cache, where there is one.
pub(super) fn other(shared: &Shared) -> Result<&BesideCache, Refusal> {
    let none = || Refusal::Missing("there is no other cache: start with --beside DIR".to_owned());
    shared.beside.as_ref().ok_or_else(none)
}

/// What the overview says of it.
pub(super) fn described(shared: &Shared) -> Value {
    let Some(beside) = &shared.beside else { return Value::Null };
    let Shared { dir, id, tokenizer, info, manifest, .. } = &*beside.shared;
    json!({
        "dir": dir, "id": id, "pictures": tokenizer, "info": info, "first_view": manifest.first_view,
    })
}

/// The row of the second cache that goes with a row, and in how many tokens and bits they differ.
pub(super) fn beside(shared: &Arc<Shared>, text: &str, query: &Query) -> Answer {
    query.expect(&[])?;
    let row = row_number(shared, text)?;
    let beside = other(shared)?;
    let meta = shared.meta(row)?;
    let Some(found) = beside.row(&meta, row / shared.cache()?.num_views())? else {
        return Ok(json_reply(&json!({ "row": null, "unequal": null })));
    };
    let is_comparable = shared.manifest.grid_spec() == beside.shared.manifest.grid_spec();
    let unequal = if is_comparable {
        let (ours, others) = (shared.tokens(row)?, beside.shared.tokens(found)?);
        let differ = |(a, b): (&u32, &u32)| a ^ b;
        let bits: Vec<u32> = ours.iter().zip(&others).map(differ).map(u32::count_ones).collect();
        json!({ "tokens": bits.iter().filter(|bits| **bits > 0).count(), "bits": bits.iter().sum::<u32>(), "each": bits })
    } else {
        Value::Null
    };
    Ok(json_reply(&json!({ "row": found, "unequal": unequal })))
}
