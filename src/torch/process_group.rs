//! Process groups for the commands that run in several processes.

use crate::args::Global;
use crate::ranks::local_rank;
use std::time::Duration;
use tokengrid_train::process_group::{Endpoint, Fact, GlooProcessGroup, Join, OneProcess, ProcessGroup};

/// Connects to the other processes of the run at the address in the environment; `facts` must be equal in all of them.
pub(super) fn join(
    (rank, world_size): (u32, u32),
    facts: impl FnOnce() -> anyhow::Result<Vec<Fact>>,
    timeout_secs: f64,
) -> anyhow::Result<Box<dyn ProcessGroup>> {
    if world_size == 1 {
        return Ok(Box::new(OneProcess));
    }
    let endpoint = Endpoint::from_environment(&|name| std::env::var(name).ok())?;
    let mut facts = facts()?;
    facts.insert(0, Fact::new("the program", env!("TOKENGRID_VERSION")));
    let (rank, world_size) = (rank as usize, world_size as usize);
    let timeout = Duration::from_secs_f64(timeout_secs);
    Ok(Box::new(GlooProcessGroup::join(&Join { rank, world_size, endpoint, facts, timeout })?))
}

/// The device of this process: if a launcher started several on a machine, each has its own GPU.
pub(super) fn device(typed: Option<&str>) -> Option<String> {
    device_of(typed, local_rank(), tokengrid_model::num_gpus)
}

/// `num_gpus` returns the number of GPUs that this process sees. It loads libtorch's CUDA library, so it is called only if
/// the number matters.
fn device_of(typed: Option<&str>, local_rank: Option<usize>, num_gpus: impl Fn() -> usize) -> Option<String> {
    let is_open = typed.is_none_or(|device| device == "cuda");
    match local_rank {
        // If only one GPU is visible, the launcher has chosen it.
        Some(local) if is_open && num_gpus() > 1 => Some(format!("cuda:{local}")),
        _ => typed.map(str::to_owned),
    }
}

/// Whether this process prints for the run: rank 0 does.
pub(super) fn speaker(global: &Global, is_first: bool) -> Global {
    let Global { json, quiet, verbose, threads, memory, ref stage_dir, stage_size, requests } = *global;
    let stage_dir = stage_dir.clone();
    Global {
        json: json && is_first,
        quiet: quiet || !is_first,
        verbose,
        threads,
        memory,
        stage_dir,
        stage_size,
        requests,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuda_is_the_gpu_of_the_local_rank() {
        let device = |typed, local_rank, gpus| device_of(typed, local_rank, || gpus);
        assert_eq!(device(Some("cuda"), Some(3), 8).as_deref(), Some("cuda:3"));
        assert_eq!(device(None, Some(0), 2).as_deref(), Some("cuda:0"));
        // A device with an index is used unchanged; so is a GPU that the launcher has made the only one.
        assert_eq!(device(Some("cuda:1"), Some(3), 8).as_deref(), Some("cuda:1"));
        assert_eq!(device(Some("cuda"), Some(3), 1).as_deref(), Some("cuda"));
        assert_eq!(device(Some("cuda"), None, 8).as_deref(), Some("cuda"));
        assert_eq!(device(None, Some(3), 0), None);
        // A rank without a GPU does not get that of another rank: the requested device does not exist.
        assert_eq!(device(Some("cuda"), Some(8), 8).as_deref(), Some("cuda:8"));
    }

    #[test]
    fn a_cpu_is_not_asked_for_its_gpus() {
        let ask = || -> usize { panic!("it would load libtorch's CUDA library") };
        assert_eq!(device_of(Some("cpu"), Some(3), ask).as_deref(), Some("cpu"));
        assert_eq!(device_of(None, None, ask), None);
    }
}
