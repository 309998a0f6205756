//! Rank and world size of this process, from the command line or the launcher's environment.

use crate::exit::Usage;
use crate::launcher::{Launched, SLURM};
use crate::log;

/// Rank and world size: from the command line, else from the variables of `torchrun` or a SLURM step, else 0 of 1.
///
/// # Errors
/// A variable is not a number, only one of the two is given, or the rank is not below the world size.
pub(crate) fn ranks(rank: Option<u32>, world_size: Option<u32>) -> anyhow::Result<(u32, u32)> {
    let variable = |name: &str| std::env::var(name).ok();
    let launched = Launched::from(&variable);
    let (rank, world_size) = launched.ranks(rank, world_size)?;
    if let (None, 1, Some(tasks)) = (launched.launcher(), world_size, launched.tasks_outside_steps()) {
        tracing::warn!(
            "SLURM_NTASKS={tasks}, but no step of SLURM is running here: this is one process and does all of the work; \
             `srun tokengrid ...` starts {tasks}"
        );
    }
    // The first call sets it; the rank of a process does not change.
    let _ = log::RANK.set((rank, world_size));
    Ok((rank, world_size))
}

/// Local rank of this process on its machine, if the launcher sets it.
pub(crate) fn local_rank() -> Option<usize> {
    Launched::from(&|name| std::env::var(name).ok()).local_rank()
}

impl Launched<'_> {
    fn number(&self, name: &str) -> anyhow::Result<Option<u32>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Usage(format!("{name}={text} in the environment is not a number")).into()),
        }
    }

    /// Number of tasks of a SLURM allocation that is not a step, if above 1.
    fn tasks_outside_steps(&self) -> Option<u32> {
        let tasks = self.text("SLURM_NTASKS").and_then(|tasks| tasks.parse().ok());
        tasks.filter(|&tasks| tasks > 1 && !self.is_slurm_step())
    }

    fn ranks(&self, rank: Option<u32>, world_size: Option<u32>) -> anyhow::Result<(u32, u32)> {
        let (launched_rank, launched_size) = match self.launcher() {
            Some(SLURM) => (self.number(SLURM.0)?, self.slurm_tasks()?),
            Some((rank, world_size)) => (self.number(rank)?, self.number(world_size)?),
            None => (None, None),
        };
        // A world size of 1 needs no rank.
        let is_alone = world_size == Some(1);
        let rank = if is_alone { rank.or(Some(0)) } else { rank.or(launched_rank) };
        let world_size = world_size.or(launched_size);
        match (rank, world_size) {
            (None, None | Some(1)) => Ok((0, 1)),
            (Some(rank), Some(world_size)) if rank < world_size => Ok((rank, world_size)),
            (Some(rank), Some(world_size)) => {
                Err(refusal(format!("rank {rank} does not exist among {world_size} processes: ranks count from 0")))
            }
            (Some(0), None) => Ok((0, 1)),
            (Some(rank), None) => Err(refusal(format!(
                "rank {rank} does not exist in a job of one process: ranks count from 0; give --world-size as well (or \
                 WORLD_SIZE in the environment)"
            ))),
            (None, Some(world_size)) => Err(refusal(format!(
                "which of the {world_size} processes is this? give --rank (or RANK in the environment)"
            ))),
        }
    }

    fn slurm_tasks(&self) -> anyhow::Result<Option<u32>> {
        let of_step = self.number("SLURM_STEP_NUM_TASKS")?;
        of_step.map_or_else(|| self.number(SLURM.1), |tasks| Ok(Some(tasks)))
    }

    fn local_rank(&self) -> Option<usize> {
        let name = if self.launcher() == Some(SLURM) { "SLURM_LOCALID" } else { "LOCAL_RANK" };
        self.text(name)?.parse().ok()
    }
}

fn refusal(text: String) -> anyhow::Error {
    Usage(text).into()
}

#[cfg(test)]
mod tests {
    use crate::launcher::tests::with;

    fn found(variables: &str) -> (u32, u32) {
        with(variables, |launched| launched.ranks(None, None).unwrap())
    }

    #[test]
    fn launchers_in_their_order() {
        assert_eq!(found(""), (0, 1));
        assert_eq!(found("RANK=2 WORLD_SIZE=4"), (2, 4));
        let step = "SLURM_STEP_ID=0 SLURM_PROCID=3 SLURM_NTASKS=8 SLURM_STEP_NUM_TASKS=4";
        assert_eq!(found(step), (3, 4), "the step's own number of tasks");
        assert_eq!(found(&format!("{step} RANK=0 WORLD_SIZE=2")), (0, 2), "both from one launcher");
        assert_eq!(found(&format!("{step} RANK= WORLD_SIZE=")), (3, 4), "empty is unset");
    }

    #[test]
    fn an_allocation_of_slurm_is_not_a_step() {
        let salloc = "SLURM_JOB_ID=7 SLURM_NTASKS=4";
        let batch = "SLURM_JOB_ID=7 SLURM_NTASKS=4 SLURM_PROCID=0";
        let interactive = "SLURM_NTASKS=4 SLURM_PROCID=0 SLURM_STEP_ID=4294967290 SLURM_STEP_NUM_TASKS=1";
        for variables in [salloc, batch, interactive] {
            assert_eq!(found(variables), (0, 1), "{variables}");
            assert_eq!(with(variables, |launched| launched.tasks_outside_steps()), Some(4), "{variables}");
        }
        let step = "SLURM_NTASKS=4 SLURM_STEP_ID=2 SLURM_PROCID=1";
        assert_eq!(with(step, |launched| launched.tasks_outside_steps()), None);
    }

    #[test]
    fn inconsistent_variables_are_refused() {
        for (variables, word) in [
            ("RANK=a WORLD_SIZE=2", "RANK=a"),
            ("RANK=2 WORLD_SIZE=2", "does not exist"),
            ("RANK=1", "--world-size"),
            ("WORLD_SIZE=2", "--rank"),
        ] {
            let refused = with(variables, |launched| launched.ranks(None, None).unwrap_err().to_string());
            assert!(refused.contains(word), "{variables}: {refused}");
        }
        assert_eq!(with("RANK=3 WORLD_SIZE=4", |launched| launched.ranks(None, Some(1)).unwrap()), (0, 1));
        assert_eq!(with("RANK=3 WORLD_SIZE=4", |launched| launched.ranks(Some(1), None).unwrap()), (1, 4));
    }

    #[test]
    fn the_number_on_this_machine() {
        let local = |variables: &str| with(variables, |launched| launched.local_rank());
        assert_eq!(local("RANK=5 WORLD_SIZE=8 LOCAL_RANK=1"), Some(1));
        assert_eq!(local("RANK=5 WORLD_SIZE=8"), None);
        assert_eq!(local("SLURM_STEP_ID=0 SLURM_PROCID=9 SLURM_LOCALID=3"), Some(3));
    }
}
