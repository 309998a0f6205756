//! Training of the tokenizer itself: reconstruction, entropy and commitment losses, EMA.
//!
//! The adversarial and perceptual terms of the reference's recipe are not here yet; a configuration that asks for them
//! is refused.

mod config;
mod crop;
mod data;
mod init;
mod losses;
mod trainer;
mod validation;

pub use config::{LossSection, ModelSection, TokenizerConfig, TokenizerDataSection, TokenizerTrainSection};
pub use crop::CropConfig;
pub use data::{Crops, PhotoSet};
pub use init::initial_params;
pub use losses::{EntropyLoss, commit_loss, entropy_loss};
pub use trainer::{TokenizerReport, TokenizerSummary, TokenizerTrainer};
pub use validation::{
    Batch, Batches, Perceptual, Validation, ValidationOptions, ValidationSet, reconstructions, validate,
};
