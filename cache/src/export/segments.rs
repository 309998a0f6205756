//! Ids of clips for the frames of a cache, which may hold several sets one after the other.
//!
//! Each set counts its frames upwards and has ids of its own. Readers take a clip to end where the id changes, so two sets
//! must not share ids: those of a later set are moved behind the ones before where they would meet.

use crate::error::CacheError;
use crate::format::frame_key::FrameKey;
use crate::import::error::import_error;
use crate::read::cache::TokenCache;

/// The frames of one set.
struct Set {
    end: usize,
    /// Added to the ids.
    offset: i64,
}

/// Hands out the ids, in the order of the rows.
pub(super) struct SegmentIds {
    sets: Vec<Set>,
    /// The set that the next row belongs to, and the number of that row.
    set: usize,
    row: usize,
}

impl SegmentIds {
    /// # Errors
    /// [`CacheError::Import`] for a key that names no frame; the keys are damaged.
    pub(super) fn of(cache: &TokenCache) -> Result<SegmentIds, CacheError> {
        let mut sets: Vec<Set> = Vec::new();
        // Of the current set: the name before its keys, its last frame, the smallest and the largest id.
        let (mut prefix, mut last, mut ids) = (String::new(), i32::MAX, (0i64, 0i64));
        let mut before = None;
        cache.visit_keys(0..cache.num_images(), &mut |image, key| {
            let key = parse(cache, key)?;
            if key.frame <= last || key.prefix != prefix {
                close(&mut sets, ids, &mut before);
                sets.push(Set { end: image, offset: 0 });
                ids = (key.segment.into(), key.segment.into());
                key.prefix.clone_into(&mut prefix);
            }
            last = key.frame;
            ids = (ids.0.min(key.segment.into()), ids.1.max(key.segment.into()));
            if let Some(set) = sets.last_mut() {
                set.end = image + 1;
            }
            Ok(())
        })?;
        close(&mut sets, ids, &mut before);
        Ok(SegmentIds { sets, set: 0, row: 0 })
    }

    /// The id of the next row, which has this key.
    pub(super) fn next(&mut self, cache: &TokenCache, key: &str) -> Result<i32, CacheError> {
        while self.sets.get(self.set).is_some_and(|set| set.end <= self.row) {
            self.set += 1;
        }
        self.row += 1;
        let offset = self.sets.get(self.set).map_or(0, |set| set.offset);
        let id = i64::from(parse(cache, key)?.segment) + offset;
        i32::try_from(id).map_err(|_| import_error(cache.dir(), "id of a clip", "a number of 32 bits".into(), id))
    }
}

/// Decides how far the ids of the last set, which are `ids.0` to `ids.1`, are moved; `before` are the smallest and the
/// largest one of the sets before.
fn close(sets: &mut [Set], ids: (i64, i64), before: &mut Option<(i64, i64)>) {
    let Some(set) = sets.last_mut() else { return };
    let (smallest, largest) = before.unwrap_or((i64::MAX, i64::MIN));
    if ids.0 <= largest && smallest <= ids.1 {
        set.offset = largest + 1 - ids.0;
    }
    *before = Some((smallest.min(ids.0 + set.offset), largest.max(ids.1 + set.offset)));
}

fn parse<'a>(cache: &TokenCache, key: &'a str) -> Result<FrameKey<'a>, CacheError> {
    FrameKey::parse(key).ok_or_else(|| import_error(cache.dir(), "key", "<segment>/<frame>".into(), key))
}
