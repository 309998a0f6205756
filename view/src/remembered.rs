//! What was found last: somebody who scrolls, or turns a page, asks for the same again and again.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A few values by their keys; the one that was not asked for longest makes room.
#[derive(Debug)]
pub(crate) struct Remembered<K, V> {
    max: usize,
    /// Memory of all values together; one that is larger is remembered alone.
    bytes_max: usize,
    /// The one that was asked for last comes first.
    entries: Mutex<Vec<Entry<K, V>>>,
}

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    value: V,
    bytes: usize,
}

impl<K: PartialEq, V: Clone> Remembered<K, V> {
    pub(crate) fn new(max: usize, bytes_max: usize) -> Remembered<K, V> {
        Remembered { max, bytes_max, entries: Mutex::default() }
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry<K, V>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let mut entries = self.entries();
        let place = entries.iter().position(|known| known.key == *key)?;
        entries[..=place].rotate_right(1);
        Some(entries[0].value.clone())
    }

    /// Remembers a value that takes so much memory.
    pub(crate) fn insert(&self, key: K, value: V, bytes: usize) {
        let mut entries = self.entries();
        entries.retain(|known| known.key != key);
        make_room(&mut entries, self.max.saturating_sub(1), self.bytes_max.saturating_sub(bytes));
        entries.insert(0, Entry { key, value, bytes });
    }

    /// Forgets as much as a value of this size will replace, before it is made.
    pub(crate) fn make_room(&self, bytes: usize) {
        make_room(&mut self.entries(), self.max, self.bytes_max.saturating_sub(bytes));
    }

    pub(crate) fn clear(&self) {
        self.entries().clear();
    }
}

fn make_room<K, V>(entries: &mut Vec<Entry<K, V>>, max: usize, bytes_max: usize) {
    let mut bytes = 0;
    let mut fits = |entry: &Entry<K, V>| {
        bytes += entry.bytes;
        bytes <= bytes_max
    };
    let kept = entries.iter().take(max).take_while(|entry| fits(entry)).count();
    entries.truncate(kept);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_nobody_asked_for_makes_room() {
        let found = Remembered::new(2, 100);
        found.insert("a", 1, 0);
        found.insert("b", 2, 0);
        assert_eq!(found.get(&"a"), Some(1));
        found.insert("c", 3, 0);
        assert_eq!((found.get(&"a"), found.get(&"b"), found.get(&"c")), (Some(1), None, Some(3)));
        found.insert("a", 4, 0);
        assert_eq!((found.get(&"c"), found.get(&"a")), (Some(3), Some(4)));
    }

    #[test]
    fn large_ones_are_remembered_as_far_as_there_is_memory() {
        let found = Remembered::new(8, 100);
        found.insert("a", 1, 60);
        found.insert("b", 2, 40);
        assert_eq!((found.get(&"b"), found.get(&"a")), (Some(2), Some(1)));
        found.make_room(30);
        assert_eq!((found.get(&"b"), found.get(&"a")), (None, Some(1)));
        found.insert("c", 3, 200);
        assert_eq!((found.get(&"a"), found.get(&"c")), (None, Some(3)));
        found.clear();
        assert_eq!(found.get(&"c"), None);
    }
}
