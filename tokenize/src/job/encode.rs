//! Views through the encoder.

use super::margins::{below_edges, margins_of};
use tch::{Device, Kind, Tensor};
use tokengrid_cache::{MARGIN_EDGES, Margins};
use tokengrid_model::{ModelError, Runtime, Tokenizer, lfq, pixels};

/// The encoder as a function from pixels to tokens.
///
/// On the CPU every view is a call of its own, so that its tokens depend on its pixels and on nothing else: libraries choose
/// their algorithms by the size of a batch, and their roundings differ. On a GPU a call is a whole batch.
#[derive(Clone, Copy)]
pub struct ViewEncoder<'a> {
    tokenizer: &'a Tokenizer,
    runtime: Runtime,
    /// Side of a view, pixels.
    side: u32,
}

/// Tokens of some views, and how sure they are.
#[derive(Debug, Default)]
pub struct Tokens {
    /// View by view, in raster order.
    pub tokens: Vec<u32>,
    /// For each token the bits whose |h| lay within [`lfq::MARGIN`] of 0; empty unless asked for.
    pub uncertain: Vec<u32>,
    /// Counts of |h|, a view each.
    pub margins: Vec<Margins>,
}

/// Work that a device may still be doing: tokens are fetched when they are needed, so that the device has the next batch
/// by then.
pub struct Encoding {
    /// A CPU's parts are views, a GPU's a whole batch.
    parts: Vec<Part>,
}

/// Results on the device, of some views.
struct Part {
    tokens_bhw: Tensor,
    uncertain_bhw: Option<Tensor>,
    below_edges: Tensor,
    bits_per_view: u64,
}

impl<'a> ViewEncoder<'a> {
    /// For views of `side` pixels.
    pub fn new(tokenizer: &'a Tokenizer, runtime: Runtime, side: u32) -> ViewEncoder<'a> {
        ViewEncoder { tokenizer, runtime, side }
    }

    /// Encodes the views in the slots `wanted` of `batch`, bytes `[n, side, side, 3]`, in that order.
    ///
    /// # Errors
    /// [`ModelError::Torch`] when the result cannot be copied to the host.
    ///
    /// # Panics
    /// When a slot is not in the batch, and when the device fails, out of memory for one.
    pub fn encode(&self, batch: &[u8], wanted: &[usize], want_uncertain: bool) -> Result<Tokens, ModelError> {
        self.begin(batch, wanted, want_uncertain).finish()
    }

    /// As [`ViewEncoder::encode`], but a GPU is only given its work.
    ///
    /// # Panics
    /// When a slot is not in the batch, and when the device fails, out of memory for one.
    pub fn begin(&self, batch: &[u8], wanted: &[usize], want_uncertain: bool) -> Encoding {
        let _no_grad = tch::no_grad_guard();
        let parts = if self.runtime.device == Device::Cpu {
            let views: Vec<&[u8]> = batch.chunks_exact(self.view_bytes()).collect();
            wanted.iter().map(|&slot| Part::new(&self.forward(views[slot]), want_uncertain)).collect()
        } else if wanted.is_empty() {
            vec![]
        } else {
            // Always the whole batch, so that algorithms are those of its size, also where some slots are not wanted.
            let h_bzhw = self.forward(batch);
            let slots: Vec<i64> = wanted.iter().map(|&slot| slot as i64).collect();
            let slots = Tensor::from_slice(&slots).to_device(h_bzhw.device());
            vec![Part::new(&h_bzhw.index_select(0, &slots), want_uncertain)]
        };
        Encoding { parts }
    }

    /// `[n, side, side, 3]` bytes to `h [n, z, H, W]`.
    fn forward(&self, bytes: &[u8]) -> Tensor {
        let (count, side) = (bytes.len() / self.view_bytes(), i64::from(self.side));
        let images_bchw = pixels::to_input(bytes, count as i64, side, side, self.runtime.device);
        self.tokenizer.encoder.forward(&images_bchw)
    }

    fn view_bytes(&self) -> usize {
        self.side as usize * self.side as usize * 3
    }
}

impl Part {
    fn new(h_bzhw: &Tensor, want_uncertain: bool) -> Part {
        Part {
            tokens_bhw: lfq::tokens_of(h_bzhw),
            uncertain_bhw: want_uncertain.then(|| lfq::uncertain_of(h_bzhw)),
            below_edges: below_edges(h_bzhw),
            bits_per_view: h_bzhw.size()[1..].iter().product::<i64>() as u64,
        }
    }
}

impl Encoding {
    /// Waits for the device and takes the results from it.
    ///
    /// # Errors
    /// [`ModelError::Torch`] when a result cannot be copied to the host.
    ///
    /// # Panics
    /// When the device failed.
    pub fn finish(self) -> Result<Tokens, ModelError> {
        let mut done = Tokens::default();
        for part in self.parts {
            done.tokens.extend(integers(&part.tokens_bhw)?.into_iter().map(|token| token as u32));
            if let Some(uncertain_bhw) = part.uncertain_bhw {
                done.uncertain.extend(integers(&uncertain_bhw)?.into_iter().map(|bits| bits as u32));
            }
            let below = integers(&part.below_edges)?;
            let of_view = |below: &[i64]| margins_of(below, part.bits_per_view);
            done.margins.extend(below.chunks_exact(MARGIN_EDGES.len()).map(of_view));
        }
        Ok(done)
    }
}

/// An integer tensor's values, row-major.
fn integers(tensor: &Tensor) -> Result<Vec<i64>, ModelError> {
    let flat = tensor.to_device(Device::Cpu).to_kind(Kind::Int64).contiguous().view([-1]);
    Vec::<i64>::try_from(&flat).map_err(ModelError::torch("copying tokens"))
}
