//! What was found last: somebody who scrolls, or turns a page, asks for the same again and again.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A few values by their keys; the one that was not asked for longest makes room.
#[derive(Debug)]
pub(crate) struct Remembered<K, V> {
    max: usize,
    /// The one that was asked for last comes first.
    entries: Mutex<Vec<(K, V)>>,
}

impl<K: PartialEq, V: Clone> Remembered<K, V> {
    pub(crate) fn new(max: usize) -> Remembered<K, V> {
        Remembered { max, entries: Mutex::default() }
    }

    fn entries(&self) -> MutexGuard<'_, Vec<(K, V)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let mut entries = self.entries();
        let place = entries.iter().position(|(known, _)| known == key)?;
        entries[..=place].rotate_right(1);
        Some(entries[0].1.clone())
    }

    pub(crate) fn insert(&self, key: K, value: V) {
        let mut entries = self.entries();
        entries.retain(|(known, _)| *known != key);
        entries.truncate(self.max.saturating_sub(1));
        entries.insert(0, (key, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_nobody_asked_for_makes_room() {
        let found = Remembered::new(2);
        found.insert("a", 1);
        found.insert("b", 2);
        assert_eq!(found.get(&"a"), Some(1));
        found.insert("c", 3);
        assert_eq!((found.get(&"a"), found.get(&"b"), found.get(&"c")), (Some(1), None, Some(3)));
        found.insert("a", 4);
        assert_eq!((found.get(&"c"), found.get(&"a")), (Some(3), Some(4)));
    }
}
