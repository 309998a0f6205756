//! Lists: a part of one as JSON, or all of it as a file.

use std::ops::Range;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use crate::csv;
use crate::query::{BadRequest, Page, Query};
use crate::reply::{Answer, Content, Refusal, Reply, json as json_reply, whole};
use crate::state::Shared;

/// Items of a list at a time.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1000;

/// Parameters of every list.
const PARAMETERS: [&str; 3] = ["offset", "limit", "format"];

/// Makes the items of some places of a list.
pub(super) type Items = Box<dyn Fn(Range<usize>) -> Result<Vec<Value>, Refusal> + Send>;

/// Refuses parameters other than those of a list, and `more`.
pub(super) fn expect_list(query: &Query, more: &[&str]) -> Result<(), BadRequest> {
    query.expect(&[&PARAMETERS, more].concat())
}

/// Whether the list is asked for as a file.
pub(super) fn is_csv(query: &Query) -> bool {
    query.text("format") == Some("csv")
}

/// A part of a list as a JSON object with what `more` has, or, with `format=csv`, all of it as a file.
pub(super) fn list(shared: &Shared, name: &str, total: usize, more: Value, query: &Query, items: Items) -> Answer {
    if query.word("format", &["json", "csv"])? == "csv" {
        return file(shared, name, total, items);
    }
    let page: Page = query.page(LIMIT, LIMIT_MAX)?;
    let places = page.of(total);
    let mut object = json!({ "total": total, "offset": places.start, "items": items(places)? });
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
    Ok(json_reply(&object))
}

/// The list as a file, [`LIMIT_MAX`] items at a time.
fn file(shared: &Shared, name: &str, total: usize, items: Items) -> Answer {
    let permit = Arc::clone(&shared.files).try_acquire_owned().map_err(|_| Refusal::Busy)?;
    let mut parts = FileParts { items, next: 0, total, _permit: permit };
    // An error at the beginning can still be said in words.
    let first = parts.next().transpose()?;
    let parts = first.map(Ok).into_iter().chain(parts);
    let reply = whole("text/csv; charset=utf-8", Default::default());
    Ok(Reply { download: Some(format!("{name}.csv")), body: Content::Parts(Box::new(parts)), ..reply })
}

struct FileParts {
    items: Items,
    next: usize,
    total: usize,
    /// So many files are on their way at a time, however slow their clients are.
    _permit: OwnedSemaphorePermit,
}

impl Iterator for FileParts {
    type Item = Result<Vec<u8>, Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.total {
            return None;
        }
        let start = self.next;
        self.next = (start + LIMIT_MAX).min(self.total);
        let items = (self.items)(start..self.next);
        // After an error nothing follows.
        if items.is_err() {
            self.next = self.total;
        }
        Some(items.map(|items| csv::lines(&items, start == 0)))
    }
}
