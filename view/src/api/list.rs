//! Lists: a part of one as JSON, or all of it as a file.

use crate::csv;
use crate::query::{BadRequest, Page, Query};
use crate::reply::{Answer, Content, Refusal, Reply, json as json_reply, whole};
use serde_json::{Value, json};
use std::ops::Range;

/// Items of a list at a time.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1000;

/// Parameters of every list.
const PARAMETERS: [&str; 3] = ["offset", "limit", "format"];

/// Makes the items of some places of a list.
pub(super) type Items = Box<dyn Fn(Range<usize>) -> Result<Vec<Value>, Refusal> + Send>;

/// Refuses parameters other than those of a list, and `more`; and those of a list where they are not valid, whether or not there
/// is a list yet.
pub(super) fn expect_list(query: &Query, more: &[&str]) -> Result<(), BadRequest> {
    query.expect(&[&PARAMETERS, more].concat())?;
    query.is_csv()?;
    query.page(LIMIT, LIMIT_MAX).map(drop)
}

/// A list: what it is called, and what its items have.
pub(super) struct Kind {
    /// Its name as a file, without the ending.
    pub(super) name: &'static str,
    /// The fields of its items in a file, where they are in the order of their names.
    pub(super) columns: &'static [&'static [&'static str]],
}

/// A part of a list as a JSON object with what `more` has, or, with `format=csv`, all of it as a file.
pub(super) fn list(kind: Kind, total: usize, more: Value, query: &Query, items: Items) -> Answer {
    if query.is_csv()? {
        return file(kind, total, items);
    }
    let page: Page = query.page(LIMIT, LIMIT_MAX)?;
    let places = page.of(total);
    let mut object = json!({ "total": total, "offset": places.start, "items": items(places)? });
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
    Ok(json_reply(&object))
}

/// The list as a file of comma-separated values.
pub(super) fn file(Kind { name, columns }: Kind, total: usize, items: Items) -> Answer {
    let mut columns = columns.concat();
    columns.sort_unstable();
    let part = move |places: Range<usize>| {
        let has_heading = places.start == 0;
        Ok(csv::lines(&items(places)?, &columns, has_heading))
    };
    download(&format!("{name}.csv"), "text/csv; charset=utf-8", total, Box::new(part))
}

/// Makes the text of some places of a list.
pub(super) type Part = Box<dyn Fn(Range<usize>) -> Result<Vec<u8>, Refusal> + Send>;

/// A file that is made of a list, [`LIMIT_MAX`] items at a time. A short one is an answer like any other.
pub(super) fn download(name: &str, kind: &'static str, total: usize, part: Part) -> Answer {
    let mut parts = FileParts { part, next: 0, total, is_begun: false };
    // An error at the beginning can still be said in words.
    let first = parts.next().transpose()?.unwrap_or_default();
    let reply = whole(kind, Default::default());
    let body = if total <= LIMIT_MAX {
        Content::Whole(first.into())
    } else {
        Content::Parts(Box::new(std::iter::once(Ok(first)).chain(parts)))
    };
    Ok(Reply { download: Some(name.to_owned()), body, ..reply })
}

struct FileParts {
    part: Part,
    next: usize,
    total: usize,
    is_begun: bool,
}

impl Iterator for FileParts {
    type Item = Result<Vec<u8>, Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        // An empty list has one part, too: its heading.
        let is_first = !std::mem::replace(&mut self.is_begun, true);
        if self.next >= self.total && !is_first {
            return None;
        }
        let start = self.next;
        self.next = (start + LIMIT_MAX).min(self.total);
        let part = (self.part)(start..self.next);
        // After an error nothing follows.
        if part.is_err() {
            self.next = self.total;
        }
        Some(part)
    }
}
