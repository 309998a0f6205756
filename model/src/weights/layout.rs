//! Classification of a checkpoint's tensors by name, for every layout in which the reference publishes weights, and ours.
//!
//! | layout | names |
//! |---|---|
//! | tokenizer | `encoder.*`, `decoder.*`; in training checkpoints also `model_ema.*` and `loss.*` |
//! | autoregressive training checkpoint | `transformer.*`, and its frozen tokenizer as `first_stage_model.*` |
//! | autoregressive run of this program | `spatial_blocks.*`, `pre_emb.*`, ... without a prefix |

use super::Weights;
use std::collections::BTreeMap;

/// Prefix of the frozen tokenizer inside an autoregressive checkpoint.
pub const FROZEN_PREFIX: &str = "first_stage_model.";
/// Prefix of the autoregressive model in the reference's checkpoints.
pub const AR_PREFIX: &str = "transformer.";
/// Prefix of averaged weights; the rest of the name has no dots.
pub(super) const EMA_PREFIX: &str = "model_ema.";

/// First parts of the autoregressive model's own names.
const AR_NAMES: [&str; 7] =
    ["pre_emb.", "post_emb.", "class_emb.", "spatial_blocks.", "factorized_blocks.", "norm.", "head."];

/// What a tensor of a checkpoint belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Encoder or decoder.
    Tokenizer,
    /// The averaged copy of encoder or decoder.
    TokenizerEma,
    /// The autoregressive model.
    Autoregressive,
    /// Discriminator and perceptual network, which only training needs.
    Loss,
    /// Averages of parts that only training needs, and the average's own settings.
    EmaOfTraining,
    /// No known part.
    Unexplained,
}

impl Part {
    /// Name for messages.
    pub fn name(self) -> &'static str {
        match self {
            Part::Tokenizer => "tokenizer",
            Part::TokenizerEma => "tokenizer, averaged (ema)",
            Part::Autoregressive => "autoregressive model",
            Part::Loss => "discriminator and perceptual network (loss.*)",
            Part::EmaOfTraining => "averages that only training needs (model_ema.*)",
            Part::Unexplained => "unknown",
        }
    }

    /// The part that `name` belongs to.
    pub fn of(name: &str) -> Part {
        let inner = name.strip_prefix(FROZEN_PREFIX).unwrap_or(name);
        let is_model = |name: &str| name.starts_with("encoder") || name.starts_with("decoder");
        if inner.starts_with("encoder.") || inner.starts_with("decoder.") {
            Part::Tokenizer
        } else if let Some(averaged) = inner.strip_prefix(EMA_PREFIX) {
            if is_model(averaged) { Part::TokenizerEma } else { Part::EmaOfTraining }
        } else if inner.starts_with("loss.") {
            Part::Loss
        } else if name.starts_with(AR_PREFIX) || AR_NAMES.iter().any(|start| name.starts_with(start)) {
            Part::Autoregressive
        } else {
            Part::Unexplained
        }
    }
}

impl Weights {
    /// Tensors of each part: how many, and their elements together.
    pub fn parts(&self) -> BTreeMap<Part, (usize, i64)> {
        let mut parts = BTreeMap::new();
        for (name, entry) in self.entries() {
            let (tensors, numel) = parts.entry(Part::of(name)).or_insert((0, 0));
            *tensors += 1;
            *numel += entry.numel();
        }
        parts
    }

    /// Whether there is a tensor of `part`.
    pub fn has(&self, part: Part) -> bool {
        self.names().any(|name| Part::of(name) == part)
    }
}

#[cfg(test)]
mod tests {
    use super::Part;

    #[test]
    fn names_of_every_layout() {
        for (name, part) in [
            ("encoder.conv_in.weight", Part::Tokenizer),
            ("first_stage_model.decoder.conv_out.bias", Part::Tokenizer),
            ("model_ema.encoderconv_inweight", Part::TokenizerEma),
            ("first_stage_model.model_ema.decoderconv_outbias", Part::TokenizerEma),
            ("model_ema.lossdiscriminatormain0weight", Part::EmaOfTraining),
            ("model_ema.decay", Part::EmaOfTraining),
            ("loss.discriminator.main.0.weight", Part::Loss),
            ("first_stage_model.loss.perceptual_loss.lin0.model.1.weight", Part::Loss),
            ("transformer.pre_emb.weight", Part::Autoregressive),
            ("spatial_blocks.0.attention.wo.weight", Part::Autoregressive),
            ("features.0.weight", Part::Unexplained),
            ("first_stage_model.transformer.norm.weight", Part::Unexplained),
            ("encoders.weight", Part::Unexplained),
        ] {
            assert_eq!(Part::of(name), part, "{name}");
        }
    }
}
