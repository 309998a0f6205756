//! Number of threads of a command.

use crate::launcher;
use std::thread::available_parallelism;

/// Most threads per core. More only wait for each other: a job of one second took half a minute with 512 threads.
const MAX_PER_CORE: usize = 4;

/// Always allowed: tests and benchmarks use a few more threads than a small machine has cores.
const MAX_ANYWHERE: usize = 16;

/// `--threads`, limited to [`MAX_PER_CORE`] threads per core. By default the cores that this process may use, divided among
/// the job's processes on this machine; `None` if `OMP_NUM_THREADS` is set, which then applies.
pub(crate) fn choose(typed: Option<u16>) -> Option<u16> {
    let cores = available_parallelism().map_or(1, |cores| cores.get());
    let Some(typed) = typed else {
        let is_set = std::env::var_os("OMP_NUM_THREADS").is_some_and(|value| !value.is_empty());
        return (!is_set).then(|| share(cores, online(), launcher::local_world_size().unwrap_or(1)));
    };
    let most = most(cores);
    if typed > most {
        tracing::warn!("--threads {typed} would be slower than fewer on {cores} cores: {most} are used");
    }
    Some(typed.min(most))
}

fn most(cores: usize) -> u16 {
    u16::try_from((MAX_PER_CORE * cores).max(MAX_ANYWHERE)).unwrap_or(u16::MAX)
}

/// Cores of one process. A launcher that binds each process to its own cores has divided them already.
fn share(cores: usize, online: usize, processes: usize) -> u16 {
    let own = if cores < online { cores } else { cores / processes };
    u16::try_from(own.max(1)).unwrap_or(u16::MAX)
}

/// Cores of the machine, whether this process may use them or not.
fn online() -> usize {
    // SAFETY: `sysconf` only returns a number.
    let cores = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(cores).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_share_the_cores_unless_they_have_their_own() {
        assert_eq!(share(8, 8, 1), 8);
        assert_eq!(share(8, 8, 4), 2);
        assert_eq!(share(2, 2, 4), 1);
        assert_eq!(share(2, 8, 4), 2, "bound to two of eight cores by the launcher");
    }

    #[test]
    fn absurd_numbers_are_bounded() {
        assert_eq!([1, 2, 64].map(most), [16, 16, 256]);
    }
}
