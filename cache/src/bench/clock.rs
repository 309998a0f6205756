//! Time for benchmarks.

use std::time::Instant;

/// Time that this thread was on a core, so that a busy machine does not count; on the wall where the kernel does not
/// say (elsewhere than on Linux).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    wall: Instant,
    on_core_ns: Option<u64>,
}

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock { on_core_ns: Self::on_core_ns(), wall: Instant::now() }
    }

    /// Seconds on a core, and on the wall.
    pub(crate) fn secs(&self) -> (f64, f64) {
        let wall = self.wall.elapsed().as_secs_f64();
        match (self.on_core_ns, Self::on_core_ns()) {
            (Some(before), Some(after)) if after > before => ((after - before) as f64 / 1e9, wall),
            _ => (wall, wall),
        }
    }

    fn on_core_ns() -> Option<u64> {
        std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split(' ').next()?.parse().ok()
    }
}
