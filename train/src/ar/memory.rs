//! How much memory a training run takes, before it starts.

use super::config::{ArConfig, ModelConfig};

/// Bytes of a run, by what they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// fp32 weights, their gradients and the optimizer's two moments.
    pub weights_bytes: u64,
    /// Activations that the backward pass needs, of one micro-batch.
    pub activations_bytes: u64,
}

impl MemoryEstimate {
    /// Everything. libtorch itself, its workspaces and what the allocator wastes come on top.
    pub fn total_bytes(&self) -> u64 {
        self.weights_bytes + self.activations_bytes
    }
}

/// What `config` takes with activations of `activation_bytes` bytes a number (4 for fp32, 2 for fp16 and bf16).
pub fn estimate(config: &ArConfig, activation_bytes: u64) -> MemoryEstimate {
    const WEIGHT_COPIES: u64 = 4;
    let model = &config.model;
    let positions = config.train.batch_size as u64 * model.block_size as u64;
    let numbers = if config.train.recompute { recomputed(model) } else { kept(model) };
    MemoryEstimate {
        weights_bytes: WEIGHT_COPIES * 4 * model.num_params() as u64,
        activations_bytes: positions * (numbers * activation_bytes + logits(model) * 4),
    }
}

/// Numbers a position that a block over `elements` sub-tokens keeps: the input of each norm and its result, queries, keys,
/// values, what attention made of them, and three inner vectors of the feed-forward network.
fn block(model: &ModelConfig, elements: u64) -> u64 {
    elements * (8 * model.dim as u64 + 3 * model.ffn_dim() as u64)
}

fn kept(model: &ModelConfig) -> u64 {
    model.spatial_n_layer as u64 * block(model, 1) + model.factorized_n_layer as u64 * block(model, 2)
}

/// Inputs of all spatial blocks, and one block at a time.
fn recomputed(model: &ModelConfig) -> u64 {
    let inputs = model.spatial_n_layer as u64 * model.dim as u64;
    inputs + block(model, 1) + model.factorized_n_layer as u64 * block(model, 2)
}

/// Logits of a position and their gradient.
fn logits(model: &ModelConfig) -> u64 {
    2 * model.vocab().iter().sum::<i64>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_b_are_four_copies_of_its_parameters() {
        let estimate = estimate(&ArConfig::default(), 2);
        assert_eq!(estimate.weights_bytes, 16 * 343_570_432);
    }

    #[test]
    fn recomputing_keeps_a_small_part() {
        let mut config = ArConfig::default();
        let all = estimate(&config, 2).activations_bytes;
        config.train.recompute = true;
        let few = estimate(&config, 2).activations_bytes;
        assert!(few * 3 < all, "{few} of {all}");
    }
}
