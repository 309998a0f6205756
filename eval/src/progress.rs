//! Progress and cancellation of an evaluation.

use serde::Serialize;
use std::sync::atomic::AtomicBool;

/// An image that could not be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BadImage {
    /// Its name in the source.
    pub key: String,
    /// Why.
    pub reason: String,
}

/// Progress of an evaluation.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Pictures so far, bad ones included.
    pub done: usize,
    /// Pictures in all.
    pub total: usize,
    /// Bad ones so far.
    pub bad: usize,
}

/// How the caller follows an evaluation.
pub struct Watch<'a> {
    /// Set when the user wants to stop.
    pub cancel: &'a AtomicBool,
    /// Called after every picture.
    pub progress: &'a mut dyn FnMut(&Progress),
}
