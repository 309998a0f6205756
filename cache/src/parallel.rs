//! Work on many items by a few threads.

use crate::cancel;
use crate::error::CacheError;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// Threads for work that uses a core each.
pub(crate) fn num_threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// `work` on every one of `0..items`, by `threads` threads; the results in order, or the error of the first item (in
/// order) that failed. `work` may report amounts of progress, which arrive at `progress` on the calling thread.
pub(crate) fn map<R: Send>(
    threads: usize,
    items: usize,
    progress: &mut dyn FnMut(u64),
    work: impl Fn(usize, &dyn Fn(u64)) -> Result<R, CacheError> + Sync,
) -> Result<Vec<R>, CacheError> {
    if threads.min(items) <= 1 {
        let progress = std::cell::RefCell::new(progress);
        let one = |item| {
            cancel::check()?;
            work(item, &|amount| (progress.borrow_mut())(amount))
        };
        return (0..items).map(one).collect();
    }
    let next = AtomicUsize::new(0);
    let (next, work) = (&next, &work);
    let mut found: Vec<_> = std::thread::scope(|scope| {
        // Bounded by the threads that write to it, each of which waits for room.
        let (sender, reports) = mpsc::sync_channel::<u64>(64);
        let run = |sender: mpsc::SyncSender<u64>| {
            move || {
                let mut found = Vec::new();
                loop {
                    let item = next.fetch_add(1, Ordering::Relaxed);
                    if item >= items {
                        return found;
                    }
                    // The receiver lives until all senders are gone.
                    let result = cancel::check().and_then(|()| work(item, &|amount| _ = sender.send(amount)));
                    if result.is_err() {
                        next.store(items, Ordering::Relaxed);
                    }
                    found.push((item, result));
                }
            }
        };
        let workers: Vec<_> = (0..threads.clamp(1, items.max(1))).map(|_| scope.spawn(run(sender.clone()))).collect();
        drop(sender);
        reports.iter().for_each(progress);
        let join = |worker: std::thread::ScopedJoinHandle<'_, _>| match worker.join() {
            Ok(found) => found,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        workers.into_iter().flat_map(join).collect()
    });
    found.sort_by_key(|(item, _)| *item);
    found.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_and_progress_adds_up() {
        for threads in [1, 2, 7, 100] {
            let mut done = 0;
            let squares = map(threads, 50, &mut |amount| done += amount, |item, report| {
                report(item as u64);
                Ok(item * item)
            });
            assert_eq!(squares.unwrap(), (0..50).map(|item| item * item).collect::<Vec<_>>());
            assert_eq!(done, (0..50).sum::<u64>());
        }
        assert!(map(4, 0, &mut |_| {}, |_, _| Ok(())).unwrap().is_empty());
    }

    #[test]
    fn an_error_stops_the_rest() {
        let result = map(2, 1000, &mut |_| {}, |item, _| match item {
            3 => Err(CacheError::RowOutOfRange { row: item, num_rows: 0 }),
            _ => Ok(()),
        });
        assert!(matches!(result, Err(CacheError::RowOutOfRange { row: 3, .. })));
    }
}
