//! How many bits come out otherwise than in the exact mode: measured while a job in another one runs.

use super::encode::{Tokens, ViewEncoder};
use crate::TokenizeError;
use serde::Serialize;
use tch::Device;
use tokengrid_model::tokenizer::Tokenizer;
use tokengrid_model::{Precision, Runtime};

/// One in this many batches is compared, beginning with the first.
const EVERY_BATCHES: usize = 256;

/// Views of such a batch that are encoded again.
const VIEWS: usize = 4;

/// Bits of a job against those of the exact mode: fp32 on the CPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// Views that were encoded in both.
    pub views: usize,
    /// Their bits.
    pub bits: u64,
    /// Bits that differ.
    pub differing: u64,
    /// Those among them whose exact |h| is above the margin.
    pub outside_margin: u64,
}

/// Encodes a sample of the views again.
pub(super) struct DriftMeter<'a> {
    exact: Option<ViewEncoder<'a>>,
    bits_per_token: u32,
    batches: usize,
    drift: Drift,
}

impl<'a> DriftMeter<'a> {
    /// Without `exact` nothing is measured.
    pub(super) fn new(exact: Option<&'a Tokenizer>, side: u32) -> DriftMeter<'a> {
        let runtime = Runtime { device: Device::Cpu, precision: Precision::Fp32 };
        DriftMeter {
            exact: exact.map(|tokenizer| ViewEncoder::new(tokenizer, runtime, side)),
            bits_per_token: exact.map_or(0, |tokenizer| tokenizer.architecture.z_channels as u32),
            batches: 0,
            drift: Drift::default(),
        }
    }

    /// Compares `tokens`, those of the places `wanted` of `batch`, if it is this batch's turn; returns what was found so far.
    ///
    /// # Errors
    /// As [`ViewEncoder::encode`].
    pub(super) fn look(&mut self, batch: &[u8], wanted: &[usize], tokens: &Tokens) -> Result<Drift, TokenizeError> {
        let turn = self.batches.is_multiple_of(EVERY_BATCHES) && !wanted.is_empty();
        self.batches += usize::from(!wanted.is_empty());
        let Some(exact) = self.exact.filter(|_| turn) else {
            return Ok(self.drift);
        };
        let views = VIEWS.min(wanted.len());
        let exact = exact.encode(batch, &wanted[..views], true)?;
        let drift = &mut self.drift;
        drift.views += views;
        drift.bits += exact.tokens.len() as u64 * u64::from(self.bits_per_token);
        for ((exact, uncertain), token) in exact.tokens.iter().zip(&exact.uncertain).zip(&tokens.tokens) {
            drift.differing += u64::from((exact ^ token).count_ones());
            drift.outside_margin += u64::from(((exact ^ token) & !uncertain).count_ones());
        }
        Ok(*drift)
    }
}
