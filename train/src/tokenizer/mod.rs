//! Training of the tokenizer itself (Stage I): a generator and a discriminator in turns, as the reference does it.
//!
//! | module | what it is for |
//! |---|---|
//! | `config` | the configuration and its presets |
//! | `data` | crops of the training images |
//! | `losses` | entropy and commitment losses |
//! | `adversarial`, `discriminator` | the adversarial losses, LeCAM, and the PatchGAN |
//! | `validation`, `validation_set` | how good the tokenizer is on other images |
//! | `learner` | one batch: both steps and the averages |
//! | `schedule` | learning rates |
//! | `init`, `checkpoint` | where weights come from, and the files that they go to |
//! | `trainer`, `start` | the training loop, and what it starts or continues from |
//! | `report`, `publish` | metrics of logged steps; checkpoints |

mod adversarial;
mod checkpoint;
mod config;
mod crop;
mod data;
mod discriminator;
mod follow;
mod init;
mod learner;
mod losses;
mod publish;
mod report;
mod schedule;
mod start;
mod trainer;
mod validation;
mod validation_set;

pub use config::{LossSection, ModelSection, TokenizerConfig, TokenizerDataSection, TokenizerTrainSection};
pub use discriminator::PatchGan;
pub use learner::{InitialWeights, Learner, Losses};
pub use losses::{EntropyLoss, entropy_loss};
pub use report::TokenizerReport;
pub use start::facts;
pub use trainer::{TokenizerSummary, TokenizerTrainer};
