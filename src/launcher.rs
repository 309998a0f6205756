//! The launcher of this process according to the environment: `torchrun`, a step of SLURM, or none.

/// SLURM's reserved step ids start here: the batch script, the interactive shell and similar (`SLURM_BATCH_SCRIPT` and others
/// of slurm.h).
const FIRST_SPECIAL_STEP: u32 = 0xffff_fff0;

/// Number of processes of this job on this machine, at least 1; `None` if no launcher reports it.
pub(crate) fn local_world_size() -> Option<usize> {
    Launched::from(&|name| std::env::var(name).ok()).local_world_size()
}

/// Names of the variables of rank and world size.
pub(crate) type Names = (&'static str, &'static str);

const TORCHRUN: Names = ("RANK", "WORLD_SIZE");
pub(crate) const SLURM: Names = ("SLURM_PROCID", "SLURM_NTASKS");

/// The environment of a process that a launcher may have started.
pub(crate) struct Launched<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
}

impl<'a> Launched<'a> {
    pub(crate) fn from(variable: &'a dyn Fn(&str) -> Option<String>) -> Launched<'a> {
        Launched { variable }
    }

    /// A variable; an empty one counts as unset.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        (self.variable)(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// The launcher whose variables apply.
    pub(crate) fn launcher(&self) -> Option<Names> {
        let is_set = |name| self.text(name).is_some();
        if is_set(TORCHRUN.0) || is_set(TORCHRUN.1) {
            return Some(TORCHRUN);
        }
        (self.is_slurm_step() && is_set(SLURM.0)).then_some(SLURM)
    }

    /// Whether `srun` started this process. An allocation (`salloc`, a batch script) sets the same variables without starting
    /// the tasks: a process that used them would do its part of the work, and no other process the rest.
    pub(crate) fn is_slurm_step(&self) -> bool {
        let step = self.text("SLURM_STEP_ID").and_then(|step| step.parse::<u32>().ok());
        step.is_some_and(|step| step < FIRST_SPECIAL_STEP)
    }

    fn local_world_size(&self) -> Option<usize> {
        let tasks: Option<usize> = if let Some(tasks) = self.text("LOCAL_WORLD_SIZE") {
            tasks.parse().ok()
        } else if self.launcher() == Some(SLURM) {
            self.slurm_tasks_on_node()
        } else {
            None
        };
        tasks.map(|tasks| tasks.max(1))
    }

    /// `SLURM_STEP_TASKS_PER_NODE` is like `4(x2),3`: four tasks on each of two nodes, three on the next.
    fn slurm_tasks_on_node(&self) -> Option<usize> {
        let node: usize = self.text("SLURM_NODEID")?.parse().ok()?;
        let tasks_per_node = self.text("SLURM_STEP_TASKS_PER_NODE")?;
        let mut first_node = 0;
        for part in tasks_per_node.split(',') {
            let (tasks, nodes) = part.split_once("(x").unwrap_or((part, "1)"));
            first_node += nodes.trim_end_matches(')').parse::<usize>().ok()?;
            if node < first_node {
                return tasks.parse().ok();
            }
        }
        None
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The answer under these variables, `NAME=value`, separated by spaces.
    pub(crate) fn with<T>(variables: &str, ask: impl Fn(&Launched) -> T) -> T {
        let variable = |name: &str| {
            let mut pairs = variables.split(' ').filter_map(|pair| pair.split_once('='));
            pairs.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
        };
        ask(&Launched::from(&variable))
    }

    #[test]
    fn processes_on_this_machine() {
        let local = |variables: &str| with(variables, |launched| launched.local_world_size());
        assert_eq!(local(""), None);
        assert_eq!(local("RANK=5 WORLD_SIZE=8 LOCAL_WORLD_SIZE=4"), Some(4));
        let step = "SLURM_STEP_ID=0 SLURM_PROCID=9 SLURM_STEP_NUM_TASKS=11 SLURM_STEP_TASKS_PER_NODE=4(x2),3";
        assert_eq!([0, 1, 2].map(|node| local(&format!("{step} SLURM_NODEID={node}"))), [Some(4), Some(4), Some(3)]);
        assert_eq!(local("SLURM_NTASKS=4 SLURM_STEP_TASKS_PER_NODE=4 SLURM_NODEID=0"), None, "no step");
    }
}
