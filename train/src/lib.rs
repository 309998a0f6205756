//! Training: the autoregressive model from the token cache, and the tokenizer from images.
//!
//! | module | what it is for |
//! |---|---|
//! | [`ar`] | the autoregressive model and its trainer |
//! | [`tokenizer`] | the tokenizer's losses and trainer |
//! | [`perceptual`] | LPIPS, the perceptual distance of images |
//! | [`optim`] | AdamW over flat buffers, gradient clipping, EMA |
//! | [`schedule`] | learning rates |
//! | [`loss_scale`] | loss scaling for fp16 |
//! | [`config`] | TOML configurations with presets and suggestions |
//! | [`run`] | a run's folder: checkpoints published by rename, metrics |
//! | [`processes`] | the other processes of a run: rendezvous, exchange, failures |
//! | [`cpu`] | kernels on the CPU: products of matrices, threads |
//! | [`rng`] | counter-based random numbers |
//! | [`plot`] | loss curves |

pub mod ar;
pub mod config;
pub mod cpu;
pub mod error;
pub mod loss_scale;
pub mod optim;
pub mod perceptual;
pub mod plot;
pub mod processes;
pub mod rng;
pub mod run;
pub mod schedule;
pub mod tokenizer;

pub use error::TrainError;
