//! Staging while rows are read: whole shards, in the order in which they are needed.

use super::{LeftOut, Shared};
use crate::error::{CacheError, io_error};
use crate::shard::open::Shard;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use tokengrid_store::{Fetching, StoreError};

/// How often one looks what another process has staged.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Starts the thread that stages the cache's files in this order.
pub(super) fn start(
    shared: &Arc<Shared>,
    order: Vec<usize>,
    left_out: impl Fn(&LeftOut) + Send + 'static,
) -> Result<(), CacheError> {
    let without_room = shared.staging.without_room(&order)?;
    let known = without_room.iter().filter(|file| **file < shared.shards.len()).count();
    if known > 0 {
        left_out(&shared.left_out(known));
    }
    let worker = Arc::clone(shared);
    let work = move || match stage(&worker, order) {
        Ok(shards) if shards > known => left_out(&worker.left_out(shards)),
        // The program is stopping, or the reader is dropped.
        Ok(_) | Err(CacheError::Cancelled) => {}
        Err(error) => worker.fail(error),
    };
    let started = thread::Builder::new().name("stage".to_owned()).spawn(work);
    started.map(drop).map_err(io_error("start a thread for", &shared.dir))
}

/// Stages files; how many shards stay in the bucket for lack of room.
fn stage(shared: &Shared, mut order: Vec<usize>) -> Result<usize, CacheError> {
    let is_stopped = || shared.is_stopped.load(Ordering::Relaxed);
    loop {
        let mut missing = Vec::with_capacity(order.len());
        for file in order {
            match shared.staging.path(file) {
                Some(path) => shared.take(file, &path)?,
                None => missing.push(file),
            }
        }
        if missing.is_empty() || is_stopped() {
            return Ok(0);
        }
        let done = |file: usize| {
            let taken = shared.staging.path(file).map_or(Ok(()), |path| shared.take(file, &path));
            if let Err(error) = taken {
                shared.fail(error);
            }
        };
        match shared.staging.fetch(&missing, &is_stopped, &done) {
            Ok(Fetching::ByAnother) => thread::sleep(LOOK_EVERY),
            Ok(Fetching::Done { left_out: 0 }) => return Ok(0),
            Ok(Fetching::Done { .. }) => return Ok(shared.num_remote()),
            // Others used what was free. What is not staged can still be read.
            Err(StoreError::Io { source, .. }) if is_full(&source) => return Ok(shared.num_remote()),
            Err(error) => return Err(error.into()),
        }
        order = missing;
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

impl Shared {
    fn left_out(&self, shards: usize) -> LeftOut {
        let (dir, num_shards) = (self.dir.clone(), self.shards.len());
        LeftOut { dir, shards, num_shards }
    }

    fn num_remote(&self) -> usize {
        self.shards.iter().filter(|shard| !shard.is_staged()).count()
    }

    /// Maps a file that was staged, if it is a shard.
    fn take(&self, file: usize, path: &Path) -> Result<(), CacheError> {
        let Some(remote) = self.shards.get(file).filter(|shard| !shard.is_staged()) else { return Ok(()) };
        let entry = &self.manifest.shards[file];
        let shard = Shard::open(path, Some(entry))?;
        shard.check_belongs(&self.manifest.job, self.manifest.grid_spec(), self.manifest.views)?;
        shard.check_entry(entry)?;
        let bytes = shard.load(self.access)?;
        remote.publish((*bytes).clone())
    }
}
