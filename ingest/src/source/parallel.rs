//! Work on several parts of a container at once.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Parts worked on at once. More than there are cores: headers are read one after the other, and what takes the time is
/// waiting for the disk.
pub(super) const THREADS: usize = 16;

/// The result of `work` for each item, in the order of the items, on `threads` threads including this one.
pub(super) fn in_parallel<T: Sync, R: Send>(items: &[T], threads: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let run = || {
        let claim = || {
            let number = next.fetch_add(1, Ordering::Relaxed);
            items.get(number).map(|item| (number, work(item)))
        };
        std::iter::from_fn(claim).collect::<Vec<_>>()
    };
    let mut results = thread::scope(|scope| {
        // Without help, when the system refuses threads, this one does it all.
        let help = |_| thread::Builder::new().name("index".to_owned()).spawn_scoped(scope, run).ok();
        let helpers: Vec<_> = (1..threads.min(items.len())).filter_map(help).collect();
        let mut results = run();
        for helper in helpers {
            results.extend(helper.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        results
    });
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_for_any_number_of_threads() {
        let items: Vec<u64> = (0..1000).collect();
        for threads in [0, 1, 3, 16, 5000] {
            assert_eq!(
                in_parallel(&items, threads, |item| item * item),
                items.iter().map(|i| i * i).collect::<Vec<_>>()
            );
        }
        assert!(in_parallel(&[0u8; 0], 4, |_| 0).is_empty());
    }
}
