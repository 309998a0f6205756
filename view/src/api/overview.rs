//! The cache as a whole: what the manifest says, whether it is whole, what was left out.

use super::{Kind, beside, expect_list, list};
use crate::background::State;
use crate::query::Query;
use crate::reply::{Answer, json as json_reply};
use crate::state::Shared;
use crate::text::cut;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;
use tokengrid_cache::{QuarantineReader, QuarantineRecord, Split, VerifyReport};

const QUARANTINE: Kind = Kind { name: "quarantine", columns: &[&["index", "key", "reason", "stage"]] };

/// Everything that the manifest says: no row is read for it.
pub(super) fn overview(shared: &Arc<Shared>, query: &Query) -> Answer {
    query.expect(&[])?;
    let manifest = &shared.manifest;
    let shard_margins: Vec<_> = manifest.shards.iter().map(|shard| &shard.margins.counts).collect();
    let source = shared
        .source
        .as_ref()
        .map(|source| progress(&source.state(), &|source| json!({ "images": source.len(), "doubt": source.doubt() })));
    Ok(json_reply(&json!({
        "id": shared.id,
        "source_id": shared.id,
        "dir": shared.dir,
        "version": env!("CARGO_PKG_VERSION"),
        "info": shared.info,
        "first_view": manifest.first_view,
        "classes": classes(shared),
        "splits": manifest.splits.iter().map(|split| split_entry(shared, split)).collect::<Vec<_>>(),
        "class_names": manifest.classes.iter().map(|name| cut(name)).collect::<Vec<_>>(),
        "readable_class_names": readable(shared),
        "margin_edges": tokengrid_cache::MARGIN_EDGES,
        "shard_margins": shard_margins,
        "pictures": shared.tokenizer,
        "beside": beside::described(shared),
        "export_dir": shared.export_dir,
        "source": source,
        "cache": progress(&shared.cache.state(), &|_| json!({})),
        "statistics": progress(&shared.inspection.state(), &|_| json!({})),
        "health": progress(&shared.health.state(), &report),
    })))
}

/// What classes are called, by index; null where nobody said.
fn readable(shared: &Shared) -> Value {
    let classes = 0..shared.manifest.classes.len().max(shared.class_names.len()) as i32;
    let names = || classes.map(|label| shared.class_names.get(label)).collect::<Vec<_>>();
    if shared.class_names.count() == 0 { Value::Null } else { json!(names()) }
}

/// How many classes there are: those of the list, and labels without a name that rows have, which is known once the cache
/// is open.
fn classes(shared: &Shared) -> Value {
    let named = shared.manifest.classes.len();
    let all = match shared.cache.state() {
        State::Done(cache) => Some(shared.num_classes(&cache)),
        _ => None,
    };
    json!({ "all": all, "named": named })
}

/// A split: its images in the source's order, end excluded; and its rows, once the cache is open.
fn split_entry(shared: &Shared, split: &Split) -> Value {
    let rows = match shared.cache.state() {
        State::Done(cache) => cache.split_images(&split.name).map(|images| images.len() * cache.num_views()),
        _ => None,
    };
    json!({ "name": split.name, "images": split.images, "rows": rows })
}

/// How far background work is: `state` is `idle`, `running`, `done` or `failed`.
pub(super) fn progress<T>(state: &State<T>, value: &dyn Fn(&T) -> Value) -> Value {
    match state {
        State::Idle => json!({ "state": "idle" }),
        State::Running { done, total } => json!({ "state": "running", "done": done, "total": total }),
        State::Failed(why) => json!({ "state": "failed", "error": why }),
        State::Done(found) => {
            let mut object = value(found);
            object["state"] = "done".into();
            object
        }
    }
}

fn report(report: &VerifyReport) -> Value {
    json!({ "ok": report.is_ok(), "rows": report.rows, "bytes": report.bytes, "problems": report.problems })
}

/// Whether every byte is what was written, as far as that is known.
pub(super) fn health(shared: &Arc<Shared>, query: &Query) -> Answer {
    query.expect(&[])?;
    Ok(json_reply(&progress(&shared.health.state(), &report)))
}

/// Begins to verify.
pub(super) fn verify(shared: &Arc<Shared>, query: &Query) -> Answer {
    query.expect(&[])?;
    shared.verify();
    health(shared, query)
}

/// Inputs without rows.
pub(super) fn quarantine(shared: &Arc<Shared>, query: &Query) -> Answer {
    expect_list(query, &[])?;
    // The list may be long, and is not kept. An altered one is an error before anything is sent.
    QuarantineReader::open(&shared.dir, &shared.manifest)?.try_for_each(|record| record.map(drop))?;
    let item = |record: QuarantineRecord| {
        let QuarantineRecord { index, key, stage, reason } = record;
        json!({ "index": index, "key": cut(&key), "stage": cut(&stage), "reason": cut(&reason) })
    };
    let (total, shared) = (shared.manifest.quarantine.images, Arc::clone(shared));
    // Where the part before this one ended.
    let reader = RefCell::new(None);
    let items = move |places: Range<usize>| {
        let (mut records, read) = match reader.take() {
            Some((records, read)) if read <= places.start => (records, read),
            _ => (QuarantineReader::open(&shared.dir, &shared.manifest)?, 0),
        };
        let part = records.by_ref().skip(places.start - read).take(places.len());
        let items = part.map(|record| record.map(item)).collect::<Result<_, _>>()?;
        reader.replace(Some((records, places.end)));
        Ok(items)
    };
    list(QUARANTINE, total, Value::Null, query, Box::new(items))
}
