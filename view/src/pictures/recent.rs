//! The pictures that were used last, within a bound on memory.

use super::Picture;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Pictures by row; the one that was not used for longest makes room.
#[derive(Debug)]
pub(super) struct Recent {
    bytes_max: usize,
    bytes: usize,
    clock: u64,
    pictures: HashMap<usize, (u64, Arc<Picture>)>,
    by_age: BTreeMap<u64, usize>,
}

impl Recent {
    pub(super) fn new(bytes_max: usize) -> Recent {
        Recent { bytes_max, bytes: 0, clock: 0, pictures: HashMap::new(), by_age: BTreeMap::new() }
    }

    pub(super) fn get(&mut self, row: usize) -> Option<Arc<Picture>> {
        let (used, picture) = self.pictures.get_mut(&row)?;
        self.clock += 1;
        self.by_age.remove(used);
        self.by_age.insert(self.clock, row);
        *used = self.clock;
        Some(Arc::clone(picture))
    }

    pub(super) fn insert(&mut self, row: usize, picture: Arc<Picture>) {
        self.remove(row);
        self.clock += 1;
        self.bytes += picture.rgb.len();
        self.by_age.insert(self.clock, row);
        self.pictures.insert(row, (self.clock, picture));
        while self.bytes > self.bytes_max {
            let Some((_, oldest)) = self.by_age.first_key_value() else { return };
            self.remove(*oldest);
        }
    }

    fn remove(&mut self, row: usize) {
        if let Some((used, picture)) = self.pictures.remove(&row) {
            self.by_age.remove(&used);
            self.bytes -= picture.rgb.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room() {
        let picture = || Arc::new(Picture { width: 10, height: 1, rgb: vec![0; 30] });
        let mut recent = Recent::new(100);
        (0..3).for_each(|row| recent.insert(row, picture()));
        assert!(recent.get(0).is_some());
        recent.insert(3, picture());
        let here: Vec<usize> = (0..4).filter(|row| recent.get(*row).is_some()).collect();
        assert_eq!((here, recent.bytes), (vec![0, 2, 3], 90));
        recent.insert(2, picture());
        assert_eq!((recent.bytes, recent.by_age.len()), (90, 3));
    }
}
