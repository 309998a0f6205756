//! Progress of work that copies rows one after the other: imports, exports, merges, subsets.

use std::sync::OnceLock;

/// Images from one report to the next.
const EVERY: usize = 1024;

/// Called with the images that are done and all images.
pub type CopyProgress = fn(usize, usize);

static OBSERVER: OnceLock<CopyProgress> = OnceLock::new();

/// Names the function of this process that is told how far [`crate::merge()`], [`crate::subset`], imports and exports are. The
/// first call counts.
pub fn on_copy(progress: CopyProgress) {
    let _ = OBSERVER.set(progress);
}

/// Called after each image.
pub(crate) fn copied(done: usize, total: usize) {
    if let Some(progress) = OBSERVER.get()
        && (done.is_multiple_of(EVERY) || done == total)
    {
        progress(done, total);
    }
}
