//! Open connections: a bound on them that no client can exhaust.
//!
//! A browser keeps half a dozen open without saying anything, and a hostile client keeps hundreds, or sends its request
//! one byte at a time. So a connection that waits for its client gives way to a new one when there are too many, the one that
//! waited longest first; one whose request is being worked on does not.

use crate::lock::lock;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Connections at a time.
pub(crate) const CONNECTIONS_MAX: usize = 256;

/// How long a client may neither send a request nor take its answer.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);

/// In place of a time: a request of the connection is being worked on.
const BUSY: u64 = u64::MAX;

/// All connections that are open.
#[derive(Debug)]
pub(crate) struct Connections {
    started: Instant,
    max: usize,
    open: Mutex<Vec<Arc<Connection>>>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Connection {
    started: Instant,
    /// Since when it waits for its client, in milliseconds from `started` on; or [`BUSY`].
    waits_since: AtomicU64,
    closed: Notify,
}

/// A connection's entry among the others; gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    connection: Arc<Connection>,
    connections: Arc<Connections>,
}

impl Connections {
    pub(crate) fn new(max: usize) -> Arc<Connections> {
        Arc::new(Connections { started: Instant::now(), max, open: Mutex::default() })
    }

    fn open(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        lock(&self.open)
    }

    /// Takes a new connection in, and closes another one for it where there are too many; `None` when all are being worked on.
    pub(crate) fn admit(self: &Arc<Self>) -> Option<Admitted> {
        let connection = Arc::new(Connection {
            started: self.started,
            waits_since: AtomicU64::new(millis(self.started)),
            closed: Notify::new(),
        });
        let mut open = self.open();
        if open.len() >= self.max {
            let waiting = open.iter().enumerate().filter(|(_, other)| other.waits_since() != BUSY);
            let (longest, _) = waiting.min_by_key(|(_, other)| other.waits_since())?;
            open.swap_remove(longest).closed.notify_one();
        }
        open.push(Arc::clone(&connection));
        Some(Admitted { connection, connections: Arc::clone(self) })
    }

    /// Closes connections that have waited for longer than `wait_max`.
    pub(crate) fn close_stalled(&self, wait_max: Duration) {
        let now = millis(self.started);
        let is_stalled = |since: u64| since != BUSY && now.saturating_sub(since) > wait_max.as_millis() as u64;
        self.open().retain(|connection| {
            let is_kept = !is_stalled(connection.waits_since());
            if !is_kept {
                connection.closed.notify_one();
            }
            is_kept
        });
    }
}

impl Connection {
    fn waits_since(&self) -> u64 {
        self.waits_since.load(Ordering::Relaxed)
    }

    /// How long it has waited for its client; `None` while its request is being worked on.
    pub(crate) fn waited(&self) -> Option<Duration> {
        let since = self.waits_since();
        (since != BUSY).then(|| Duration::from_millis(millis(self.started).saturating_sub(since)))
    }

    /// Has it closed.
    pub(crate) fn close(&self) {
        self.closed.notify_one();
    }

    /// From here on it waits for its client.
    pub(crate) fn waits(&self) {
        self.waits_since.store(millis(self.started), Ordering::Relaxed);
    }

    /// Its request is being worked on, until the returned value is dropped.
    pub(crate) fn works(self: &Arc<Self>) -> Working {
        self.waits_since.store(BUSY, Ordering::Relaxed);
        Working(Arc::clone(self))
    }

    /// Until it is to be closed.
    pub(crate) async fn closed(&self) {
        self.closed.notified().await;
    }

    /// The client took something: it is slow, and not gone.
    fn moved(&self) {
        let since = self.waits_since();
        if since != BUSY {
            // Where work begins at this moment, its mark stays.
            let _ =
                self.waits_since.compare_exchange(since, millis(self.started), Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

/// A request that is being worked on.
#[derive(Debug)]
pub(crate) struct Working(Arc<Connection>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.waits();
    }
}

impl Admitted {
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.connections.open().retain(|other| !Arc::ptr_eq(other, &self.connection));
    }
}

fn millis(started: Instant) -> u64 {
    started.elapsed().as_millis() as u64
}

/// A stream that says when its client takes something.
pub(crate) struct Watched {
    pub(crate) stream: TcpStream,
    pub(crate) connection: Arc<Connection>,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.connection.moved();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_waiting_connection_is_closed() {
        let connections = Connections::new(2);
        let first = connections.admit().unwrap();
        std::thread::sleep(Duration::from_millis(5));
        let second = connections.admit().unwrap();
        let working = first.connection().works();
        std::thread::sleep(Duration::from_millis(5));
        // The first one is older, but its request is in progress.
        let third = connections.admit().unwrap();
        let is_open = |one: &Admitted| connections.open().iter().any(|other| Arc::ptr_eq(other, &one.connection));
        assert_eq!((is_open(&first), is_open(&second), is_open(&third)), (true, false, true));
        let others = third.connection().works();
        assert!(connections.admit().is_none(), "all have requests in progress");
        drop((working, others));
        std::thread::sleep(Duration::from_millis(5));
        third.connection().waits();
        connections.close_stalled(Duration::from_millis(3));
        assert_eq!((is_open(&first), is_open(&third)), (false, true));
        drop(third);
        assert!(connections.open().is_empty());
    }
}
