//! The interface between sampler and model: one token of a batch of sequences at a time.
//!
//! The sampler knows classes, logits and tokens; a [`Decoder`] knows the model. The loop over a batch is
//!
//! ```text
//! start(classes)
//! for every position: pre_logits() -> draw -> post_logits(pre) -> draw -> accept(pre, post)
//! ```
//!
//! and every sequence's logits depend on nothing but that sequence. With guidance a batch holds every image twice, and
//! both of its sequences are given the same tokens.
//!
//! Shape suffixes: `c` sequences of a batch, `d` width, `v` vocabulary.

use crate::SampleError;
use tch::{Device, Kind, Tensor};
use tokengrid_model::Runtime;
use tokengrid_model::ar::{ArModel, HostDecoder, ModelConfig};
use tokengrid_model::transfer::upload;

/// A model that computes one token of every sequence at a time.
pub(crate) trait Decoder {
    /// Shape of the model.
    fn config(&self) -> &ModelConfig;

    /// Begins a batch of sequences with these classes (`class_num`: none), at position 0.
    ///
    /// # Errors
    /// There is no memory for so many sequences.
    fn start(&mut self, class_c: &[i64]) -> Result<(), SampleError>;

    /// Logits `[C, 2^6]` of the low bits at this position, row-major.
    ///
    /// # Errors
    /// The computation fails.
    fn pre_logits(&mut self) -> Result<&[f32], SampleError>;

    /// Logits `[C, 2^12]` of the high bits at this position, given the low ones.
    ///
    /// # Errors
    /// The computation fails.
    fn post_logits(&mut self, pre_c: &[u32]) -> Result<&[f32], SampleError>;

    /// Takes this position's token of every sequence and advances to the next position. Not called after the last one.
    fn accept(&mut self, pre_c: &[u32], post_c: &[u32]);
}

/// On the CPU, batches are padded to a multiple of this many sequences: libtorch multiplies fewer rows by another algorithm,
/// with other roundings, and an image would depend on the size of its batch.
const CPU_MULTIPLE: usize = 8;

/// [`ArModel`] by libtorch, on any device and in any precision.
pub(crate) struct TorchDecoder<'a> {
    model: &'a ArModel,
    runtime: Runtime,
    /// Keys and values of every spatial block; taken once and used again for batches of the same size.
    caches: Vec<(Tensor, Tensor)>,
    /// Sequences asked for, and with padding.
    sequences: i64,
    filled: i64,
    position: i64,
    /// What enters the spatial stack, `[C, 1, D]`.
    x_c1d: Tensor,
    /// What the high bits attend to, one per factorized block.
    values: Vec<Tensor>,
    /// The last logits, on the host.
    logits_cv: Vec<f32>,
}

impl<'a> TorchDecoder<'a> {
    /// A decoder over `model`, whose parameters lie on the runtime's device.
    pub(crate) fn new(model: &'a ArModel, runtime: Runtime) -> TorchDecoder<'a> {
        let none = Tensor::new();
        TorchDecoder {
            model,
            runtime,
            caches: vec![],
            sequences: 0,
            filled: 0,
            position: 0,
            x_c1d: none,
            values: vec![],
            logits_cv: vec![],
        }
    }

    /// [`Decoder::pre_logits`] where they were computed, fp32 `[C, V]`.
    fn pre_tensor(&mut self) -> Tensor {
        let h_cd = self.model.step(self.x_c1d.shallow_clone(), self.position, &self.caches);
        let (logits_cv, values) = self.model.pre_logits(&h_cd);
        self.values = values;
        logits_cv.narrow(0, 0, self.sequences)
    }

    /// [`Decoder::post_logits`] where they were computed; `pre_c` int64 `[C]`.
    fn post_tensor(&mut self, pre_c: &Tensor) -> Tensor {
        self.model.post_logits(&self.fill(pre_c), &self.values).narrow(0, 0, self.sequences)
    }

    /// [`Decoder::accept`] of tokens int64 `[C]` on the device.
    fn accept_tensors(&mut self, pre_c: &Tensor, post_c: &Tensor) {
        self.x_c1d = self.model.embed(&self.fill(pre_c), &self.fill(post_c)).unsqueeze(1);
        self.position += 1;
    }

    /// Tokens or classes of the padded batch; padding is 0, and its results are dropped.
    fn fill(&self, c: &Tensor) -> Tensor {
        c.constant_pad_nd([0, self.filled - self.sequences])
    }

    fn on_host(&mut self, logits_cv: &Tensor) -> &[f32] {
        let logits_cv = logits_cv.to_device(Device::Cpu).contiguous();
        self.logits_cv.resize(logits_cv.numel(), 0.0);
        logits_cv.copy_data(&mut self.logits_cv, logits_cv.numel());
        &self.logits_cv
    }

    fn to_device(&self, token_c: &[u32]) -> Tensor {
        let token_c: Vec<i64> = token_c.iter().map(|&token| i64::from(token)).collect();
        upload(&Tensor::from_slice(&token_c), self.runtime.device)
    }
}

impl Decoder for TorchDecoder<'_> {
    fn config(&self) -> &ModelConfig {
        &self.model.config
    }

    fn start(&mut self, class_c: &[i64]) -> Result<(), SampleError> {
        let _no_grad = tch::no_grad_guard();
        let multiple = if self.runtime.route.whole_batches { 1 } else { CPU_MULTIPLE };
        let filled = class_c.len().next_multiple_of(multiple) as i64;
        if filled != self.filled {
            // The old ones are freed first: both may not fit.
            self.caches.clear();
            self.caches = self.model.empty_caches(filled);
            self.filled = filled;
        }
        self.sequences = class_c.len() as i64;
        self.x_c1d = self.model.embed_class(&self.fill(&upload(&Tensor::from_slice(class_c), self.runtime.device)));
        self.position = 0;
        Ok(())
    }

    fn pre_logits(&mut self) -> Result<&[f32], SampleError> {
        let _no_grad = tch::no_grad_guard();
        let logits_cv = self.pre_tensor().to_kind(Kind::Float);
        Ok(self.on_host(&logits_cv))
    }

    fn post_logits(&mut self, pre_c: &[u32]) -> Result<&[f32], SampleError> {
        let _no_grad = tch::no_grad_guard();
        let logits_cv = self.post_tensor(&self.to_device(pre_c)).to_kind(Kind::Float);
        Ok(self.on_host(&logits_cv))
    }

    fn accept(&mut self, pre_c: &[u32], post_c: &[u32]) {
        let _no_grad = tch::no_grad_guard();
        self.accept_tensors(&self.to_device(pre_c), &self.to_device(post_c));
    }
}

/// On the CPU in fp32: our own kernels.
impl Decoder for HostDecoder {
    fn config(&self) -> &ModelConfig {
        self.config()
    }

    fn start(&mut self, class_c: &[i64]) -> Result<(), SampleError> {
        self.start(class_c);
        Ok(())
    }

    fn pre_logits(&mut self) -> Result<&[f32], SampleError> {
        Ok(self.pre_logits())
    }

    fn post_logits(&mut self, pre_c: &[u32]) -> Result<&[f32], SampleError> {
        Ok(self.post_logits(pre_c))
    }

    fn accept(&mut self, pre_c: &[u32], post_c: &[u32]) {
        self.accept(pre_c, post_c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokengrid_model::ar::{ArWeights, Known};
    use tokengrid_test_support::golden;

    #[test]
    fn a_sequence_has_the_same_logits_in_every_batch() {
        let mut weights = ArWeights::open(&golden("ar.ckpt"), Known { n_head: Some(4), grid: Some((8, 8)) }).unwrap();
        weights.config.block_size = 16;
        let model = ArModel::new(&weights.config, &weights.params, Device::Cpu, Kind::Float);
        // Logits of the first sequence at three positions; the other sequences have other classes and tokens.
        let first = |sequences: u32| {
            let mut decoder = TorchDecoder::new(&model, Runtime::EXACT);
            decoder.start(&(0..i64::from(sequences)).map(|c| (c + 3) % 10).collect::<Vec<_>>()).unwrap();
            let mut logits = vec![];
            for t in 0..3 {
                let token_c: Vec<u32> = (0..sequences).map(|c| (7 * t + 11 * c) % 64).collect();
                logits.extend_from_slice(&decoder.pre_logits().unwrap()[..64]);
                logits.extend_from_slice(&decoder.post_logits(&token_c).unwrap()[..4096]);
                decoder.accept(&token_c, &token_c);
            }
            logits
        };
        let alone = first(1);
        for sequences in [2, 3, 5, 9, 64] {
            assert!(first(sequences) == alone, "in a batch of {sequences}");
        }
    }
}
