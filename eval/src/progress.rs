//! What the two evaluations share while pictures come in: counts, progress, and the wish to stop.

use crate::EvalError;
use crate::pictures::{Item, Pictures};
use serde::Serialize;
use std::sync::atomic::{AtomicBool, Ordering};
use tokengrid_ingest::{AcceptSize, BadCounter, BadPolicy};
use tokengrid_model::Picture;

/// An image that could not be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BadImage {
    /// Its name in the source.
    pub key: String,
    /// Why.
    pub reason: String,
}

/// How far an evaluation is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Pictures so far, bad ones included.
    pub done: usize,
    /// Pictures in all.
    pub total: usize,
    /// Bad ones so far.
    pub bad: usize,
}

/// The outside of an evaluation.
pub struct Watch<'a> {
    /// Set when the user wants to stop.
    pub cancel: &'a AtomicBool,
    /// Called after every picture.
    pub progress: &'a mut dyn FnMut(&Progress),
}

/// Calls `good` with every picture that can be used, in order, and returns the others, those of sizes that `accept` refuses
/// included.
///
/// # Errors
/// More bad images than the policy allows; what `good` returns; [`EvalError::Stopped`].
pub(super) fn each_good(
    pictures: &Pictures,
    accept: AcceptSize,
    policy: BadPolicy,
    watch: &mut Watch,
    good: &mut dyn FnMut(String, Picture) -> Result<(), EvalError>,
) -> Result<Vec<BadImage>, EvalError> {
    let total = pictures.len();
    let mut counter = BadCounter::new(policy, total);
    let mut bad_images = vec![];
    let mut done = 0;
    pictures.each(accept, &mut |Item { key, outcome }| {
        match outcome {
            Ok(picture) => {
                counter.good();
                good(key, picture)?;
            }
            Err(bad) => {
                counter.bad(&key, &bad)?;
                bad_images.push(BadImage { key, reason: bad.to_string() });
            }
        }
        done += 1;
        (watch.progress)(&Progress { done, total, bad: counter.bad_count() });
        if watch.cancel.load(Ordering::Relaxed) { Err(EvalError::Stopped) } else { Ok(()) }
    })?;
    Ok(bad_images)
}
