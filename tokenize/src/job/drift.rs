//! Bits that differ from the exact mode: measured on a sample of the views by a thread, while a job in another mode runs.

use super::encode::{Tokens, ViewEncoder};
use crate::TokenizeError;
use crossbeam::channel::{Receiver, Sender, bounded};
use serde::Serialize;
use std::sync::{Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};
use tokengrid_model::tokenizer::Tokenizer;
use tokengrid_model::{ModelError, Runtime};

/// Views from one sample to the next; the first sample begins with the first view.
const EVERY_VIEWS: usize = 1 << 14;

/// Views of a sample, which are encoded again.
const VIEWS: usize = 4;

/// Bits of a job against those of the exact mode: fp32 on the CPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// Views that were encoded in both modes.
    pub views: usize,
    /// Bits of these views.
    pub bits: u64,
    /// Bits that differ.
    pub differing: u64,
    /// Those among them whose exact |h| is above the margin.
    pub outside_margin: u64,
}

/// Hands a sample of the views to a thread that encodes them again. The job waits for it only where the exact mode
/// takes longer for one sample than the job for all views between two samples.
pub(super) struct DriftMeter<'scope> {
    worker: Option<(Sender<Sample>, Worker<'scope>)>,
    /// Bytes of a view.
    view_bytes: usize,
    /// Views until the next sample.
    left: usize,
}

/// The thread, which returns what it found.
type Worker<'scope> = ScopedJoinHandle<'scope, Result<Drift, ModelError>>;

/// Views and the tokens that the job gave them.
struct Sample {
    views: Vec<u8>,
    tokens: Vec<u32>,
}

impl<'scope> DriftMeter<'scope> {
    /// For views of `side` pixels. Without `exact` nothing is measured.
    pub(crate) fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        exact: Option<&'env Mutex<Tokenizer>>,
        side: u32,
    ) -> Self {
        let start = |exact: &'env Mutex<Tokenizer>| {
            let (sender, samples) = bounded(1);
            (sender, scope.spawn(move || measure(exact, side, samples)))
        };
        DriftMeter { worker: exact.map(start), view_bytes: bytes_of_view(side), left: 0 }
    }

    /// Takes a sample of the places `wanted` of `batch`, whose tokens are `tokens`, if one is due.
    pub(crate) fn sample(&mut self, batch: &[u8], wanted: &[usize], tokens: &Tokens) {
        let is_due = self.left <= wanted.len();
        self.left = if is_due { EVERY_VIEWS } else { self.left - wanted.len() };
        let Some((sender, _)) = self.worker.as_ref().filter(|_| is_due && !wanted.is_empty()) else { return };
        let (places, view_bytes) = (&wanted[..VIEWS.min(wanted.len())], self.view_bytes);
        let views = places.iter().flat_map(|place| &batch[place * view_bytes..][..view_bytes]).copied().collect();
        let tokens_per_view = tokens.tokens.len() / wanted.len();
        let tokens = tokens.tokens[..places.len() * tokens_per_view].to_vec();
        // If the thread has ended, `finish` returns its error.
        let _ = sender.send(Sample { views, tokens });
    }

    /// Waits for all samples and returns the result.
    ///
    /// # Errors
    /// The exact mode fails.
    pub(crate) fn finish(self) -> Result<Drift, TokenizeError> {
        let Some((sender, worker)) = self.worker else { return Ok(Drift::default()) };
        drop(sender);
        let drift = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(drift)
    }
}

fn bytes_of_view(side: u32) -> usize {
    side as usize * side as usize * 3
}

/// Encodes samples until there are no more.
fn measure(exact: &Mutex<Tokenizer>, side: u32, samples: Receiver<Sample>) -> Result<Drift, ModelError> {
    let exact = exact.lock().unwrap_or_else(PoisonError::into_inner);
    let (encoder, bits_per_token) = (ViewEncoder::new(&exact, Runtime::EXACT, side), exact.architecture.z_channels);
    let mut drift = Drift::default();
    for Sample { views, tokens } in samples {
        let num_views = views.len() / bytes_of_view(side);
        let exact = encoder.encode(&views, &(0..num_views).collect::<Vec<_>>(), true)?;
        drift.views += num_views;
        drift.bits += exact.tokens.len() as u64 * bits_per_token as u64;
        for ((exact, uncertain), token) in exact.tokens.iter().zip(&exact.uncertain).zip(&tokens) {
            drift.differing += u64::from((exact ^ token).count_ones());
            drift.outside_margin += u64::from(((exact ^ token) & !uncertain).count_ones());
        }
    }
    Ok(drift)
}
