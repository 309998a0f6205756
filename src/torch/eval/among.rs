//! Evaluations that several processes share.

use crate::args::{AmongArgs, Global};
use crate::ranks::ranks;
use crate::torch::process_group::{join, speaker};
use tch::{Kind, Tensor};
use tokengrid_eval::{EvalError, Peers};
use tokengrid_train::TrainError;
use tokengrid_train::process_group::{Fact, ProcessGroup};

/// Timeout in seconds of waiting for the other processes, whose shares may take longer.
const TIMEOUT_SECS: f64 = 600.0;

/// The processes of an evaluation; `facts` must be the same in all of them.
pub(super) fn join_all(
    args: &AmongArgs,
    facts: impl FnOnce() -> anyhow::Result<Vec<Fact>>,
) -> anyhow::Result<Box<dyn ProcessGroup>> {
    join(ranks(args.rank, args.world_size)?, facts, TIMEOUT_SECS)
}

/// The processes of an evaluation, as `eval` knows them.
pub(super) struct Among(pub Box<dyn ProcessGroup>);

impl Among {
    /// Connects to the other processes.
    pub(super) fn join(args: &AmongArgs, facts: impl FnOnce() -> anyhow::Result<Vec<Fact>>) -> anyhow::Result<Among> {
        join_all(args, facts).map(Among)
    }

    /// The options of output for this process: only rank 0 prints.
    pub(super) fn speaker(&self, global: &Global) -> Global {
        speaker(global, self.0.is_first())
    }

    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, TrainError> {
        let lengths = self.0.all_gather(&Tensor::from_slice(&[own.len() as i64]))?;
        let lengths: Vec<i64> = Vec::try_from(&lengths.view([-1]))?;
        let longest = lengths.iter().copied().max().unwrap_or(0) as usize;
        let mut padded = own.to_vec();
        // All processes have tensors of the same shape.
        padded.resize(longest.max(1), 0);
        let gathered = self.0.all_gather(&Tensor::from_slice(&padded))?.to_kind(Kind::Uint8);
        let bytes: Vec<u8> = Vec::try_from(&gathered.view([-1]))?;
        let parts = bytes.chunks_exact(padded.len()).zip(lengths);
        Ok(parts.map(|(part, length)| part[..length as usize].to_vec()).collect())
    }
}

impl Peers for Among {
    fn rank(&self) -> usize {
        self.0.rank()
    }

    fn world_size(&self) -> usize {
        self.0.world_size()
    }

    fn all_gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, EvalError> {
        self.gather(own).map_err(|error| EvalError::Peers(error.into()))
    }
}
