//! What commands that run in several processes share.

use crate::args::Global;
use crate::ranks::local_rank;
use std::time::Duration;
use tokengrid_train::processes::{Endpoint, Fact, GlooProcesses, Join, OneProcess, Processes};

/// The other processes of the run, met at the place that the environment names; `facts` must be the same in all of them.
pub fn join(
    (rank, world_size): (u32, u32),
    facts: impl FnOnce() -> anyhow::Result<Vec<Fact>>,
    timeout_secs: f64,
) -> anyhow::Result<Box<dyn Processes>> {
    if world_size == 1 {
        return Ok(Box::new(OneProcess));
    }
    let endpoint = Endpoint::from_environment(&|name| std::env::var(name).ok())?;
    let mut facts = facts()?;
    facts.insert(0, Fact::new("the program", env!("TOKENGRID_VERSION")));
    let (rank, world_size) = (rank as usize, world_size as usize);
    let timeout = Duration::from_secs_f64(timeout_secs);
    Ok(Box::new(GlooProcesses::join(&Join { rank, world_size, endpoint, facts, timeout })?))
}

/// The device of this process: where a launcher has started several on a machine, each has a GPU of its own.
pub fn device(typed: Option<&str>) -> Option<String> {
    let is_open = typed.is_none_or(|device| device == "cuda");
    match local_rank() {
        // With one GPU to see, the launcher has chosen it.
        Some(local) if is_open && tch::Cuda::device_count() > 1 => Some(format!("cuda:{local}")),
        _ => typed.map(str::to_owned),
    }
}

/// One process of a run speaks for all.
pub fn speaker(global: &Global, is_first: bool) -> Global {
    let Global { json, quiet, verbose, threads, memory, ref stage_dir, stage_size } = *global;
    let stage_dir = stage_dir.clone();
    Global { json: json && is_first, quiet: quiet || !is_first, verbose, threads, memory, stage_dir, stage_size }
}
