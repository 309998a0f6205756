//! A run's folder among several processes: the first one owns it, and sends its state to the others.

use super::{RunFolder, State};
use crate::TrainError;
use crate::config::Config;
use crate::process_group::ProcessGroup;
use std::path::Path;

/// The run's folder: the first process opens it, the others follow.
///
/// # Errors
/// As [`RunFolder::open`]; another process is gone.
pub(crate) fn open_folder<C: Config>(
    config: &C,
    out: &Path,
    free: &[&str],
    processes: &dyn ProcessGroup,
    overwrite: bool,
) -> Result<RunFolder, TrainError> {
    let own = processes.is_first().then(|| RunFolder::open(out, config, free, overwrite)).transpose()?;
    processes.barrier()?;
    own.map_or_else(|| RunFolder::join(out, config), Ok)
}

/// The state of the first process.
///
/// # Errors
/// Another process is gone.
pub(crate) fn share_state(state: &State, processes: &dyn ProcessGroup) -> Result<State, TrainError> {
    let text = serde_json::to_vec(state).expect("numbers and texts are JSON");
    let text = processes.broadcast_bytes(&text)?;
    Ok(serde_json::from_slice(&text).expect("what the first process has just written"))
}
