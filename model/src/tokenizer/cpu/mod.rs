//! The network on the CPU in fp32, for inference: our own kernels instead of libtorch's.
//!
//! | module | what it is for |
//! |---|---|
//! | [`winograd`] | 3x3 convolutions, with a quarter of the multiplications |
//! | [`patches`] | all other convolutions |
//! | [`norm`] | group norm, its statistics and its application with swish |
//! | [`network`] | encoder and decoder from these |
//!
//! Under every convolution lies one product: rows of activations by a panel of weights ([`crate::kernels::panels`]).
//!
//! Activations are channels last. One image is computed at a time, by all threads together. Sums have a fixed order and every
//! operation is rounded as IEEE 754 says, so an image's tokens depend on its pixels and the weights alone: not on the number of
//! threads, not on the width of the vectors, not on the batch.

mod map;
mod network;
mod norm;
mod patches;
mod winograd;

#[cfg(test)]
mod tests;

pub(super) use network::{CpuDecoder, CpuEncoder};
use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

/// How a convolution stores its results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    /// They replace the output's values.
    Set,
    /// They are added to the output's values.
    Add,
}

/// A thread's memory for intermediate results of a convolution.
#[derive(Debug, Default)]
struct Scratch {
    inputs: Vec<f32>,
    products: Vec<f32>,
}

impl Scratch {
    /// Calls `work` with this thread's memory.
    fn with(work: impl FnOnce(&mut Scratch)) {
        thread_local! {
            static SCRATCH: RefCell<Scratch> = RefCell::default();
        }
        SCRATCH.with_borrow_mut(work);
    }
}

/// The compute threads: the number that libtorch is set to use.
fn threads() -> Arc<rayon::ThreadPool> {
    static POOL: Mutex<Option<Arc<rayon::ThreadPool>>> = Mutex::new(None);
    let wanted = tch::get_num_threads().max(1) as usize;
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    match &*pool {
        Some(pool) if pool.current_num_threads() == wanted => pool.clone(),
        _ => {
            let builder = rayon::ThreadPoolBuilder::new().num_threads(wanted);
            let made = builder.thread_name(|i| format!("model-{i}")).build().expect("threads can be started");
            pool.insert(Arc::new(made)).clone()
        }
    }
}
