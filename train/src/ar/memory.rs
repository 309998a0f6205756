//! How much memory a training run takes, before it starts.
//!
//! Values per position are counted tensor by tensor: for the fused step what its buffers are, for autograd what the
//! graph of [`ArModel`](super::ArModel) keeps until the backward pass. Letters: `d` width, `f` inner width of the
//! feed-forward network, `v` vocabulary.

use super::config::ArConfig;
use super::engine::Method;
use tch::{Device, Kind};
use tokengrid_model::Runtime;
use tokengrid_model::ar::{CHUNK_LOGITS, ModelConfig};

/// Measured: what libtorch takes as soon as it computes on the CPU (code, workspaces).
const LIBTORCH_BYTES: u64 = 150_000_000;

/// Bytes of a run at its peak, by what they hold. What a process has before it begins comes on top, and so does what CUDA
/// takes for itself on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// fp32 weights, their gradients, the optimizer's two moments and the averaged weights.
    pub weights_bytes: u64,
    /// Activations that the backward pass needs, of one micro-batch.
    pub activations_bytes: u64,
    /// Short-lived memory on top: gradients before they are added, moments while they are written, pieces of products, and
    /// libtorch itself.
    pub transient_bytes: u64,
}

impl MemoryEstimate {
    /// The sum of all parts.
    pub fn total_bytes(&self) -> u64 {
        self.weights_bytes + self.activations_bytes + self.transient_bytes
    }
}

/// Memory of a run of `config` on a runtime, in one process.
pub fn estimate(config: &ArConfig, runtime: &Runtime) -> MemoryEstimate {
    estimate_among(config, runtime, 1)
}

/// Memory of a run of `config` in each of `world_size` processes.
pub fn estimate_among(config: &ArConfig, runtime: &Runtime, world_size: usize) -> MemoryEstimate {
    let model = &config.model;
    let positions = (config.train.batch_size as i64 * model.block_size) as u64;
    let copy = 4 * model.num_params() as u64;
    let compute = if runtime.route.own_kernels { Kind::Float } else { runtime.precision.kind() };
    let half = compute != Kind::Float;
    let dropout = model.resid_dropout > 0.0;
    let graph = Graph { model, half, dropout, chunked_loss: runtime.route.chunked_loss };
    let (activations_bytes, transient_bytes) = match Method::of(&config.train, runtime.route, compute) {
        Method::Fused => (4 * positions * fused(model), transient(copy, model)),
        method => {
            let kept = match method {
                Method::Recompute => graph.recomputed(),
                _ => graph.kept(),
            };
            // Matrices are rounded once for all their products in half precision.
            let rounded = if graph.half { copy / 2 } else { 0 };
            let activations = positions * kept + rounded + graph.chunk(positions);
            // Gradients of a backward pass come into being while its activations go, and are then added to the sums. When a
            // checkpoint is written there are no activations; of a GPU, it is the host's memory that takes the moments.
            let backward = match method {
                Method::Recompute => 4 * largest_part(model),
                _ => copy,
            };
            let checkpoint = if runtime.device == Device::Cpu { 2 * copy } else { 0 };
            (activations, backward.max(checkpoint).saturating_sub(activations))
        }
    };
    let libtorch = if runtime.device == Device::Cpu { LIBTORCH_BYTES } else { 0 };
    let averages = if config.train.ema_decay > 0.0 { copy } else { 0 };
    let kept = 2 * copy + averages;
    let (kept, gathered) = match config.train.shard_optimizer {
        // Averages are whole for a moment when they are validated or written.
        true if world_size > 1 => (kept.div_ceil(world_size as u64), averages),
        _ => (kept, 0),
    };
    MemoryEstimate {
        weights_bytes: 2 * copy + kept,
        activations_bytes,
        transient_bytes: transient_bytes + gathered + libtorch,
    }
}

/// The largest `train.batch_size` whose run takes at most `available` bytes; `None` where not even 1 does.
pub fn largest_batch(config: &ArConfig, runtime: &Runtime, available: u64) -> Option<usize> {
    let fits = |batch_size: usize| {
        let mut config = config.clone();
        config.train.batch_size = batch_size;
        estimate(&config, runtime).total_bytes() <= available
    };
    let (mut fitting, mut too_large) = (0usize, 1 << 20);
    while fitting + 1 < too_large {
        let middle = fitting.midpoint(too_large);
        if fits(middle) { fitting = middle } else { too_large = middle }
    }
    (fitting > 0).then_some(fitting)
}

/// Widths of a model.
fn widths(model: &ModelConfig) -> (u64, u64, u64) {
    (model.dim as u64, model.ffn_dim() as u64, model.n_head as u64)
}

/// Values per position in the buffers of the fused step.
fn fused(model: &ModelConfig) -> u64 {
    let (d, f, heads) = widths(model);
    // Norms and their factors, queries, keys and values, attention and its denominators, two sums, inner vectors.
    let spatial = 2 * (d + 1) + 3 * d + (d + heads) + 2 * d + 3 * f;
    // The same for two elements, of which one has queries and keys.
    let intra = 4 * (d + 1) + 2 * d + 8 * d + heads + 6 * f;
    // The embedded sequence, its sub-tokens, their gradient, scratch, the last norm.
    let ends = d + 3 * 2 * d + 2 * (d + 1);
    model.spatial_n_layer as u64 * spatial + model.factorized_n_layer as u64 * intra + ends + vocab(model)
}

/// Bytes that the fused step takes for a moment: a checkpoint the optimizer's two moments, and the second factor of a
/// product, packed, as many rows as are multiplied at once.
fn transient(copy: u64, model: &ModelConfig) -> u64 {
    const DEPTH: u64 = 512;
    let (d, f, _) = widths(model);
    2 * copy + 4 * DEPTH * (3 * d).max(f).max(1 << model.factorized_bits[1])
}

/// Parameters of the largest part that is backpropagated by itself where activations are computed again.
fn largest_part(model: &ModelConfig) -> u64 {
    let (d, f, _) = widths(model);
    let block = 4 * d * d + 3 * d * f + 2 * d;
    let ends = model.num_params() as u64 - model.spatial_n_layer as u64 * block;
    block.max(ends)
}

fn vocab(model: &ModelConfig) -> u64 {
    model.vocab().iter().sum::<i64>() as u64
}

/// What autograd keeps, in bytes per position.
struct Graph<'a> {
    model: &'a ModelConfig,
    /// Whether products are computed in two bytes per number.
    half: bool,
    dropout: bool,
    chunked_loss: bool,
}

impl Graph<'_> {
    fn compute_bytes(&self) -> u64 {
        if self.half { 2 } else { 4 }
    }

    /// Both norms of a block with what comes before and after them, the sums after attention and feed-forward network (in
    /// fp32), the masks of their dropout, the inner vectors: of one element.
    fn frame(&self) -> u64 {
        let (d, f, _) = widths(self.model);
        // As measured on the CPU: a mask of floats and what it made, each. A GPU's masks are bytes.
        let masks = match (self.dropout, self.half) {
            (false, _) => 0,
            (true, false) => 4 * 4 * d,
            (true, true) => 2 * d,
        };
        self.compute_bytes() * (4 * d + 4 * f) + masks + 4 * 2 * d
    }

    /// A block over grid positions: queries, keys and values, the first two rotated, and what attention made of them.
    fn spatial(&self) -> u64 {
        let (d, _, heads) = widths(self.model);
        self.frame() + self.compute_bytes() * (3 * d + 2 * d + d) + 4 * heads
    }

    /// A block over the two sub-tokens: the value of element 0; queries, keys and values of element 1, a difference, a mix.
    fn intra(&self) -> u64 {
        let (d, _, heads) = widths(self.model);
        2 * self.frame() + self.compute_bytes() * (d + 3 * d + 2 * d) + 4 * heads
    }

    /// Embeddings, the intra stack, heads with their norms; logits, and for a moment two gradients of the larger part. Without
    /// logits there are the gradients of what the heads are multiplied with, and for a moment that itself, in fp32.
    fn rest(&self) -> u64 {
        let d = widths(self.model).0;
        let intra = self.model.factorized_n_layer as u64 * self.intra();
        let logits = match self.chunked_loss {
            true => 4 * (2 * d + d),
            false => 4 * (vocab(self.model) + (2 << self.model.factorized_bits[1])),
        };
        intra + 4 * 2 * d + self.compute_bytes() * 4 * d + logits
    }

    /// Bytes of what the chunked loss has beside what grows with the positions: a chunk's logits of the larger part in their own
    /// kind and in fp32, and the gradients of both heads. 0 for the plain form.
    fn chunk(&self, positions: u64) -> u64 {
        if !self.chunked_loss {
            return 0;
        }
        let (d, larger) = (widths(self.model).0, 1 << self.model.factorized_bits[1]);
        let logits = (positions * larger).min(CHUNK_LOGITS as u64);
        // In half precision the logits as they come, and their gradient as it goes.
        let own_kind = if self.half { 2 * 2 } else { 0 };
        logits * (4 + own_kind) + 4 * d * vocab(self.model)
    }

    fn kept(&self) -> u64 {
        self.model.spatial_n_layer as u64 * self.spatial() + self.rest()
    }

    /// Inputs of all spatial blocks, and one part of the model at a time.
    fn recomputed(&self) -> u64 {
        let inputs = 4 * (self.model.spatial_n_layer as u64 + 1) * self.model.dim as u64;
        inputs + self.rest().max(self.spatial())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokengrid_model::{Precision, Route};

    const CPU: Runtime = Runtime::EXACT;

    #[test]
    fn weights_of_b_are_four_copies_of_its_parameters() {
        let gpu = Runtime::new(Device::Cuda(0), Precision::Bf16);
        let b = estimate(&ArConfig::default(), &gpu);
        assert_eq!(b.weights_bytes, 16 * 343_570_432);
        assert!(b.activations_bytes < estimate(&ArConfig::default(), &CPU).activations_bytes);
    }

    #[test]
    fn shared_moments_leave_xl_on_ten_small_cards() {
        let gpu = Runtime::new(Device::Cuda(0), Precision::Bf16);
        let mut xl = ArConfig::default();
        xl.model = tokengrid_model::ar::ModelConfig { dim: 1536, spatial_n_layer: 48, n_head: 24, ..xl.model };
        let whole = estimate_among(&xl, &gpu, 10).weights_bytes;
        xl.train.shard_optimizer = true;
        let part = estimate_among(&xl, &gpu, 10).weights_bytes;
        assert_eq!(part, whole / 2 + (whole / 2).div_ceil(10));
        assert!(whole > 20 << 30 && part < 14 << 30, "{whole} {part}");
    }

    #[test]
    fn averages_are_a_copy_more_and_shared_like_moments() {
        let of = |ema_decay: f64, shard_optimizer: bool| {
            let mut config = ArConfig::default();
            (config.train.ema_decay, config.train.shard_optimizer) = (ema_decay, shard_optimizer);
            estimate_among(&config, &CPU, 4)
        };
        let copy = 4 * 343_570_432;
        assert_eq!(of(0.999, false).weights_bytes, of(0.0, false).weights_bytes + copy);
        assert_eq!(of(0.999, false).transient_bytes, of(0.0, false).transient_bytes);
        assert_eq!(of(0.999, true).weights_bytes, of(0.0, true).weights_bytes + copy / 4);
        assert_eq!(of(0.999, true).transient_bytes, of(0.0, true).transient_bytes + copy);
    }

    #[test]
    fn without_logits_a_position_takes_less_and_a_chunk_is_bounded() {
        let config = ArConfig::default();
        let on_device = Runtime { route: Route::DEVICE, ..CPU };
        let plain = Runtime { route: Route { chunked_loss: false, ..Route::DEVICE }, ..CPU };
        let activations = |batch_size: usize, runtime: &Runtime| {
            let mut config = config.clone();
            config.train.batch_size = batch_size;
            estimate(&config, runtime).activations_bytes
        };
        let positions = 24 * 256;
        // Logits of both parts and two gradients of the larger, 4 bytes each; what is there instead is a quarter of it.
        let saved = activations(24, &plain) - activations(24, &on_device);
        let (logits, instead) = (4 * positions * (64 + 3 * 4096), 4 * (positions * 3 * 1024 + (1 << 23) + 1024 * 4160));
        assert_eq!(saved, logits - instead);
        let more = |runtime: &Runtime| activations(48, runtime) - activations(24, runtime);
        assert_eq!(more(&plain) - more(&on_device), 4 * positions * (64 + 3 * 4096 - 3 * 1024));
    }

    #[test]
    fn recomputing_keeps_a_small_part() {
        let mut config = ArConfig::default();
        config.train.fused = false;
        let all = estimate(&config, &CPU).activations_bytes;
        config.train.recompute = true;
        let few = estimate(&config, &CPU).activations_bytes;
        assert!(few * 3 < all, "{few} of {all}");
    }

    #[test]
    fn the_largest_batch_fits_and_one_more_does_not() {
        for fused in [true, false] {
            let mut config = ArConfig::default();
            config.train.fused = fused;
            let available = 40 << 30;
            config.train.batch_size = largest_batch(&config, &CPU, available).unwrap();
            assert!(estimate(&config, &CPU).total_bytes() <= available);
            config.train.batch_size += 1;
            assert!(estimate(&config, &CPU).total_bytes() > available);
        }
        assert_eq!(largest_batch(&ArConfig::default(), &CPU, 1 << 30), None, "the weights alone take more");
    }
}
