//! The map of the cache: every row as a point, and what lies inside a line that somebody draws around some of them.

use super::overview::progress;
use crate::query::Query;
use crate::reply::{Answer, Content, Refusal, Reply, json as json_reply, json_of, whole};
use crate::row_set::RowSet;
use crate::state::Shared;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use tokengrid_cache::{Survey, TokenCache};

/// Points that are sent at a time, and bytes of each.
const PART_POINTS: usize = 1 << 16;
const POINT_BYTES: usize = 8;

/// Corners of a line around points.
const CORNERS_MAX: usize = 5000;
/// Fewer have no inside.
const CORNERS_MIN: usize = 3;

/// Begins to survey the rows, where that was not done.
pub(super) fn begin(shared: &Arc<Shared>, query: &Query) -> Answer {
    query.expect(&[])?;
    shared.survey()?;
    state(shared, query)
}

/// How far that is.
pub(super) fn state(shared: &Arc<Shared>, query: &Query) -> Answer {
    query.expect(&[])?;
    Ok(json_reply(&progress(&shared.survey.state(), &|survey| json!({ "rows": survey.x.len() }))))
}

/// Every `step`-th row as a point, from row 0 on: x and y (two bytes each), label (four bytes), least significant byte first.
pub(super) fn points(shared: &Arc<Shared>, query: &Query) -> Answer {
    query.expect(&["step"])?;
    let step = query.number("step", 1, i64::from(u32::MAX))?.unwrap_or(1) as usize;
    let (survey, cache) = (shared.surveyed()?, shared.cache()?);
    let mut parts = Points { survey, cache, step, next: 0 };
    let reply = whole("application/octet-stream", Default::default());
    let first = parts.next().transpose()?.unwrap_or_default();
    let body = if parts.is_ended() {
        Content::Whole(first.into())
    } else {
        Content::Parts(Box::new(std::iter::once(Ok(first)).chain(parts)))
    };
    Ok(Reply { body, ..reply })
}

struct Points {
    survey: Arc<Survey>,
    cache: Arc<TokenCache>,
    step: usize,
    /// The next row.
    next: usize,
}

impl Points {
    fn is_ended(&self) -> bool {
        self.next >= self.survey.x.len()
    }
}

impl Iterator for Points {
    type Item = Result<Vec<u8>, Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_ended() {
            return None;
        }
        let rows = (self.next..self.survey.x.len()).step_by(self.step).take(PART_POINTS);
        let mut bytes = Vec::with_capacity(POINT_BYTES * rows.len());
        for row in rows {
            bytes.extend(self.survey.x[row].to_le_bytes());
            bytes.extend(self.survey.y[row].to_le_bytes());
            bytes.extend(self.cache.label(row).to_le_bytes());
            self.next = row.saturating_add(self.step);
        }
        Some(Ok(bytes))
    }
}

/// A line around points, which ends where it began.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lasso {
    /// x and y of its corners, 0 to 65535.
    corners: Vec<[f32; 2]>,
}

/// The answer.
#[derive(Debug, Serialize)]
struct RowsInside {
    count: usize,
    rows: String,
}

/// The rows inside a line.
pub(super) fn lasso(shared: &Arc<Shared>, query: &Query, body: &[u8]) -> Answer {
    query.expect(&[])?;
    let bad = |error: serde_json::Error| Refusal::Bad(format!("expected {{\"corners\": [[x, y], ...]}}: {error}"));
    let lasso: Lasso = serde_json::from_slice(body).map_err(bad)?;
    if lasso.corners.len() > CORNERS_MAX {
        return Err(Refusal::Bad(format!("the line has {} corners, at most {CORNERS_MAX}", lasso.corners.len())));
    }
    if lasso.corners.len() < CORNERS_MIN || !lasso.corners.iter().flatten().all(|side| side.is_finite()) {
        let (found, least) = (lasso.corners.len(), CORNERS_MIN);
        return Err(Refusal::Bad(format!("the line has {found} corners, expected {least} or more of finite numbers")));
    }
    let survey = shared.surveyed()?;
    let inside = Inside::of(&lasso.corners);
    let is_inside = |row: &usize| inside.has([survey.x[*row].into(), survey.y[*row].into()]);
    let rows = RowSet::of((0..survey.x.len()).filter(is_inside));
    Ok(json_of(&RowsInside { count: rows.len(), rows: rows.to_text()? }))
}

/// The inside of a polygon: where a ray crosses its sides an odd number of times.
struct Inside<'a> {
    corners: &'a [[f32; 2]],
    low: [f32; 2],
    high: [f32; 2],
}

impl Inside<'_> {
    fn of(corners: &[[f32; 2]]) -> Inside<'_> {
        let (mut low, mut high) = ([f32::MAX; 2], [f32::MIN; 2]);
        for [x, y] in corners {
            low = [low[0].min(*x), low[1].min(*y)];
            high = [high[0].max(*x), high[1].max(*y)];
        }
        Inside { corners, low, high }
    }

    fn has(&self, [x, y]: [f32; 2]) -> bool {
        let is_near = self.low[0] <= x && x <= self.high[0] && self.low[1] <= y && y <= self.high[1];
        if !is_near {
            return false;
        }
        let mut is_inside = false;
        let mut before = self.corners[self.corners.len() - 1];
        for corner in self.corners {
            let is_crossed = (corner[1] > y) != (before[1] > y);
            if is_crossed && x < (before[0] - corner[0]) * (y - corner[1]) / (before[1] - corner[1]) + corner[0] {
                is_inside = !is_inside;
            }
            before = *corner;
        }
        is_inside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_inside_a_line_of_any_shape_or_not() {
        // The letter U.
        let corners = [[0., 0.], [9., 0.], [9., 9.], [6., 9.], [6., 3.], [3., 3.], [3., 9.], [0., 9.]];
        let inside = Inside::of(&corners);
        for (x, y, expected) in [(1., 8., true), (8., 8., true), (4.5, 1., true), (4.5, 8., false), (10., 1., false)] {
            assert_eq!(inside.has([x, y]), expected, "{x}, {y}");
        }
        for few in [&corners[..0], &corners[..1], &corners[..2]] {
            assert!(!Inside::of(few).has([4.5, 0.0]), "{few:?}");
        }
    }
}
