//! Training: the autoregressive model from the token cache, and the tokenizer from images.
//!
//! | module | what it is for |
//! |---|---|
//! | [`ar`] | the autoregressive model and its trainer |
//! | [`tokenizer`] | the tokenizer's losses and trainer |
//! | [`optim`] | AdamW over flat buffers, gradient clipping, EMA |
//! | [`schedule`] | learning rates |
//! | [`loss_scale`] | loss scaling for fp16 |
//! | [`config`] | TOML configurations with presets and suggestions |
//! | [`run`] | a run's folder: checkpoints published by rename, metrics |
//! | [`process_group`] | the other processes of a run: rendezvous, exchange, failures |
//! | [`plot`] | loss curves |

pub mod ar;
pub mod config;
pub mod error;
mod files;
pub mod loss_scale;
pub mod optim;
pub mod plot;
pub mod process_group;
pub mod run;
pub mod schedule;
pub mod tokenizer;

pub use error::TrainError;
