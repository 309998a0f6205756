//! What was asked for: a path and parameters, each checked before it is used.
//!
//! Nothing here trusts the text. A value that is not a number, out of bounds or not UTF-8 is a [`BadRequest`] that names the
//! parameter, what it was and what was expected; so is a parameter that does not exist, which is most likely a typo.

use std::collections::BTreeMap;

/// Longest path and query that are accepted, in bytes.
const TARGET_BYTES_MAX: usize = 4096;

/// A request that is not valid; the text says why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadRequest(pub String);

/// Path segments and parameters, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query {
    /// The path, cut at its slashes.
    pub segments: Vec<String>,
    parameters: BTreeMap<String, String>,
}

impl Query {
    /// Decodes a request's target: `/api/rows?class=3&key=a%2Fb`.
    pub(crate) fn parse(path: &str, query: &str) -> Result<Query, BadRequest> {
        if path.len() + query.len() > TARGET_BYTES_MAX {
            return Err(BadRequest(format!("the address is longer than {TARGET_BYTES_MAX} bytes")));
        }
        let segments = path.split('/').filter(|segment| !segment.is_empty()).map(|text| decode(text, false));
        let mut parameters = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name, true)?, decode(value, true)?);
            if parameters.insert(name.clone(), value).is_some() {
                return Err(BadRequest(format!("parameter `{}` is there twice", printable(&name))));
            }
        }
        Ok(Query { segments: segments.collect::<Result<_, _>>()?, parameters })
    }

    /// Refuses parameters that are not `known`.
    pub(crate) fn expect(&self, known: &[&str]) -> Result<(), BadRequest> {
        // `v` only makes the addresses of different caches' pictures differ, for the browser's own cache.
        let unknown = self.parameters.keys().find(|name| *name != "v" && !known.contains(&name.as_str()));
        let Some(name) = unknown else { return Ok(()) };
        let list = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Err(BadRequest(format!("there is no parameter `{}` here; there are: {list}", printable(name))))
    }

    /// A parameter's text, which may be empty; `None` where it is missing.
    pub(crate) fn given(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// A parameter's text; `None` where it is missing or empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// A number from `least` to `most`; `None` where it is missing or empty.
    pub(crate) fn number(&self, name: &str, least: i64, most: i64) -> Result<Option<i64>, BadRequest> {
        self.text(name).map(|text| number(name, text, least, most)).transpose()
    }

    /// One of some words, the first one where it is missing.
    pub(crate) fn word<'a>(&self, name: &str, words: &[&'a str]) -> Result<&'a str, BadRequest> {
        let Some(text) = self.text(name) else { return Ok(words[0]) };
        let found = words.iter().find(|word| **word == text);
        found.copied().ok_or_else(|| {
            BadRequest(format!("`{name}` is `{}`, expected one of {}", printable(text), words.join(", ")))
        })
    }

    /// Whether `format` asks for a list as a file, which then is all of it.
    pub(crate) fn is_csv(&self) -> Result<bool, BadRequest> {
        if self.word("format", &["json", "csv"])? == "json" {
            return Ok(false);
        }
        match ["offset", "limit"].into_iter().find(|name| self.text(name).is_some()) {
            None => Ok(true),
            Some(name) => Err(BadRequest(format!("`format` is `csv`, a file of the whole list: leave out `{name}`"))),
        }
    }

    /// `offset` and `limit` of a list.
    pub(crate) fn page(&self, limit_default: usize, limit_max: usize) -> Result<Page, BadRequest> {
        let offset = self.number("offset", 0, i64::MAX)?.unwrap_or(0);
        let limit = self.number("limit", 0, limit_max as i64)?.unwrap_or(limit_default as i64);
        Ok(Page { offset: offset as usize, limit: limit as usize })
    }
}

/// A part of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// The first item.
    pub offset: usize,
    /// The most items of a page.
    pub limit: usize,
}

impl Page {
    /// The places of a list of `total` items that the page shows.
    pub(crate) fn of(self, total: usize) -> std::ops::Range<usize> {
        let start = self.offset.min(total);
        start..start.saturating_add(self.limit).min(total)
    }
}

/// A whole number in bounds, written in decimal digits.
pub(crate) fn number(name: &str, text: &str, least: i64, most: i64) -> Result<i64, BadRequest> {
    let found = text.parse().ok().filter(|number| (least..=most).contains(number));
    found.ok_or_else(|| {
        BadRequest(format!("`{name}` is `{}`, expected a whole number from {least} to {most}", printable(text)))
    })
}

/// The beginning of a text, for a message.
fn printable(text: &str) -> String {
    crate::text::printable(text, 64)
}

/// Percent-decoding; `+` is a space in queries.
fn decode(text: &str, plus_is_space: bool) -> Result<String, BadRequest> {
    let refuse = || BadRequest(format!("`{}` is not percent-encoded UTF-8", printable(text)));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || (rest.next()? as char).to_digit(16);
                let (high, low) = (digit().ok_or_else(refuse)?, digit().ok_or_else(refuse)?);
                (16 * high + low) as u8
            }
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| refuse())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_decoded() {
        let query = Query::parse("/api//rows/", "key=a%2Fb+c%C3%A9&class=&limit=5").unwrap();
        assert_eq!(query.segments, ["api", "rows"]);
        assert_eq!((query.text("key"), query.text("class"), query.text("x")), (Some("a/b cé"), None, None));
        assert_eq!(query.page(10, 5).unwrap(), Page { offset: 0, limit: 5 });
        assert!(query.expect(&["key", "class", "limit"]).is_ok());
        assert!(query.expect(&["key"]).unwrap_err().0.contains("class"));
    }

    #[test]
    fn invalid_parameters_are_refused_by_name() {
        for (query, name) in [
            ("limit=-1", "limit"),
            ("limit=6", "5"),
            ("limit=NaN", "NaN"),
            ("limit=1e3", "1e3"),
            ("offset=99999999999999999999", "offset"),
            ("offset=%31%00", "offset"),
        ] {
            let message = Query::parse("/", query).unwrap().page(5, 5).unwrap_err().0;
            assert!(message.contains(name), "{query}: {message}");
        }
        for query in ["a=%", "a=%4", "a=%zz", "a=%ff", "a=1&a=2", &"a".repeat(5000)] {
            assert!(Query::parse("/", query).is_err(), "{query}");
        }
        assert!(Query::parse("/", "sort=up").unwrap().word("sort", &["most", "least"]).is_err());
    }

    #[test]
    fn pages_stay_inside_their_list() {
        let page = |offset, limit| Page { offset, limit }.of(10);
        assert_eq!((page(0, 3), page(8, 5), page(10, 1), page(usize::MAX, usize::MAX)), (0..3, 8..10, 10..10, 10..10));
    }

    proptest! {
        #[test]
        fn no_address_makes_it_panic(path in ".{0,200}", query in ".{0,200}") {
            if let Ok(query) = Query::parse(&path, &query) {
                let _ = query.page(1, 1);
                let _ = query.word("sort", &["a"]);
            }
        }
    }
}
