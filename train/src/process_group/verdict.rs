//! What the processes of a run agree on when one of them fails.

use super::endpoint::Holder;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Who failed, and how that was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Verdict {
    /// It ended with an error, or was killed.
    Gone { rank: usize, step: u64 },
    /// It neither ends nor shows a sign of life.
    Silent { rank: usize, step: u64, seconds: u64 },
    /// They show signs of life, but have not started an exchange that others wait for.
    Behind { ranks: Vec<(usize, u64)>, exchange: u64, step: u64, seconds: u64 },
    /// The store does not answer.
    StoreSilent { is_agent: bool, seconds: u64 },
    /// The connection to the store is lost.
    StoreGone { is_agent: bool, step: u64 },
    /// All show signs of life, but a connection between two of them is lost.
    Broken { rank: usize, step: u64, text: String },
}

impl Verdict {
    pub(crate) fn store_silent(holder: Holder, seconds: u64) -> Verdict {
        Verdict::StoreSilent { is_agent: holder == Holder::Agent, seconds }
    }

    pub(crate) fn store_gone(holder: Holder, step: u64) -> Verdict {
        Verdict::StoreGone { is_agent: holder == Holder::Agent, step }
    }
}

impl Verdict {
    /// The process that cannot be reached any more.
    pub(super) fn lost(&self) -> Option<usize> {
        match self {
            Verdict::Gone { rank, .. } | Verdict::Silent { rank, .. } => Some(*rank),
            _ => None,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Gone { rank, step } => {
                write!(f, "rank {rank} is gone (after step {step}); its own message, if it could print one, says why")
            }
            Verdict::Silent { rank, step, seconds } => {
                write!(f, "rank {rank} gave no sign of life for {seconds} s (after step {step})")
            }
            Verdict::Behind { ranks, exchange, step, seconds } => {
                let names: Vec<String> =
                    ranks.iter().map(|(rank, at)| format!("rank {rank} (exchange {at} of {exchange})")).collect();
                write!(f, "alive but behind after {seconds} s in step {}: {}", step + 1, names.join(", "))
            }
            Verdict::StoreSilent { is_agent: false, seconds } => {
                write!(f, "rank 0, which holds the store, does not answer (for {seconds} s)")
            }
            Verdict::StoreSilent { is_agent: true, seconds } => {
                write!(f, "torchrun, which holds the store, does not answer (for {seconds} s)")
            }
            Verdict::StoreGone { is_agent: false, step } => {
                write!(f, "rank 0, which holds the store, is gone (after step {step})")
            }
            Verdict::StoreGone { is_agent: true, step } => {
                write!(f, "torchrun, which holds the store, is gone (after step {step})")
            }
            Verdict::Broken { rank, step, text } => {
                write!(
                    f,
                    "rank {rank} lost a connection to another rank after step {step}, though all are alive: {text}"
                )
            }
        }
    }
}
