//! Long lists that are sent as files: a bound on them that no client can exhaust.
//!
//! Each holds a part of its list in memory for as long as its client takes to read it. When there are too many, one whose client
//! has stopped reading gives way to a new one, the one that stalled first.

use crate::connections::Connection;
use crate::lock::lock;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// A client that took nothing for so long has stalled.
const STALLED: Duration = Duration::from_secs(2);

/// All of them.
#[derive(Debug)]
pub(crate) struct Files {
    max: usize,
    open: Mutex<Vec<Arc<Connection>>>,
}

/// The slot of a file that is sent; free when this is dropped.
#[derive(Debug)]
pub(crate) struct FileSlot {
    connection: Arc<Connection>,
    files: Arc<Files>,
}

impl Files {
    pub(crate) fn new(max: usize) -> Arc<Files> {
        Arc::new(Files { max, open: Mutex::default() })
    }

    fn open(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        lock(&self.open)
    }

    /// A slot for the file that `connection` sends; `None` when there are too many, and all are being read.
    pub(crate) fn admit(self: &Arc<Self>, connection: &Arc<Connection>) -> Option<FileSlot> {
        let mut open = self.open();
        if open.len() >= self.max {
            let waits = open.iter().enumerate().filter_map(|(at, other)| Some((at, other.waited()?)));
            let (longest, _) = waits.filter(|(_, waited)| *waited >= STALLED).max_by_key(|(_, waited)| *waited)?;
            open.swap_remove(longest).close();
        }
        open.push(Arc::clone(connection));
        Some(FileSlot { connection: Arc::clone(connection), files: Arc::clone(self) })
    }
}

impl Drop for FileSlot {
    fn drop(&mut self) {
        // A connection sends one answer at a time.
        self.files.open().retain(|other| !Arc::ptr_eq(other, &self.connection));
    }
}
