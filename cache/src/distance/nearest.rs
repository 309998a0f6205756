//! The nearest of many, in bounded memory.

use std::collections::BinaryHeap;

/// Keeps the least `limit` of what it is given, and counts all of it.
#[derive(Debug)]
pub(crate) struct Nearest<T> {
    limit: usize,
    pub(crate) count: u64,
    /// The greatest one on top.
    kept: BinaryHeap<T>,
}

impl<T: Ord> Nearest<T> {
    pub(crate) fn new(limit: usize) -> Nearest<T> {
        Nearest { limit, count: 0, kept: BinaryHeap::new() }
    }

    pub(crate) fn push(&mut self, item: T) {
        self.count += 1;
        self.keep(item);
    }

    fn keep(&mut self, item: T) {
        if self.kept.len() < self.limit {
            self.kept.push(item);
        } else if let Some(mut greatest) = self.kept.peek_mut()
            && item < *greatest
        {
            *greatest = item;
        }
    }

    /// Takes what another one has found.
    pub(crate) fn add(&mut self, other: Nearest<T>) {
        self.count += other.count;
        other.kept.into_iter().for_each(|item| self.keep(item));
    }

    /// The least ones, in order.
    pub(crate) fn into_sorted(self) -> Vec<T> {
        self.kept.into_sorted_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_are_kept_and_all_are_counted() {
        let mut all = Nearest::new(3);
        for part in [vec![5, 1, 9], vec![], vec![2, 2, 8]] {
            let mut found = Nearest::new(3);
            part.into_iter().for_each(|item| found.push(item));
            all.add(found);
        }
        assert_eq!((all.count, all.into_sorted()), (6, vec![1, 2, 2]));
        let mut none = Nearest::new(0);
        none.push(1);
        assert_eq!((none.count, none.into_sorted()), (1, vec![]));
    }
}
