//! Views through the encoder.

use crate::model::Tokenizer;
use crate::{Runtime, TokenizeError, lfq, pixels};
use tch::{Device, Kind, Tensor};

/// The encoder as a function from pixels to tokens.
///
/// On the CPU every view is a call of its own, so that its tokens depend on its pixels and on nothing else: libraries choose
/// their algorithms by the size of a batch, and their roundings differ. On a GPU a call is a whole batch.
#[derive(Clone, Copy)]
pub struct ViewEncoder<'a> {
    tokenizer: &'a Tokenizer,
    runtime: &'a Runtime,
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
    /// Bits within the margin, over all views.
    pub bits_in_margin: u64,
    /// Bits in all.
    pub bits: u64,
}

impl<'a> ViewEncoder<'a> {
    /// For views of `side` pixels.
    pub fn new(tokenizer: &'a Tokenizer, runtime: &'a Runtime, side: u32) -> ViewEncoder<'a> {
        ViewEncoder { tokenizer, runtime, side }
    }

    /// Encodes the views at the places `wanted` of `batch`, bytes `[n][side][side][3]`, in that order.
    ///
    /// # Errors
    /// [`TokenizeError::Torch`] when the device fails.
    ///
    /// # Panics
    /// When a place is not in the batch.
    pub fn encode(&self, batch: &[u8], wanted: &[usize], want_uncertain: bool) -> Result<Tokens, TokenizeError> {
        let mut done = Tokens::default();
        if self.runtime.device == Device::Cpu {
            let views: Vec<&[u8]> = batch.chunks_exact(self.view_bytes()).collect();
            for &place in wanted {
                done.add(&self.forward(views[place]), want_uncertain)?;
            }
        } else if !wanted.is_empty() {
            let places: Vec<i64> = wanted.iter().map(|&place| place as i64).collect();
            let h_bzhw = self.forward(batch);
            let places = Tensor::from_slice(&places).to_device(h_bzhw.device());
            done.add(&h_bzhw.index_select(0, &places), want_uncertain)?;
        }
        Ok(done)
    }

    /// `[n][side][side][3]` bytes to `h [n, z, H, W]`.
    fn forward(&self, bytes: &[u8]) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let (count, side) = (bytes.len() / self.view_bytes(), i64::from(self.side));
        let images_bchw = pixels::to_input(bytes, count as i64, side, side, self.runtime.device);
        self.tokenizer.encoder.forward(&images_bchw)
    }

    fn view_bytes(&self) -> usize {
        self.side as usize * self.side as usize * 3
    }
}

impl Tokens {
    fn add(&mut self, h_bzhw: &Tensor, want_uncertain: bool) -> Result<(), TokenizeError> {
        self.bits_in_margin += lfq::bits_in_margin(h_bzhw) as u64;
        self.bits += h_bzhw.numel() as u64;
        append(&mut self.tokens, &lfq::tokens_of(h_bzhw))?;
        if want_uncertain {
            append(&mut self.uncertain, &lfq::uncertain_of(h_bzhw))?;
        }
        Ok(())
    }
}

/// Copies an int32 tensor's values to the end of `out`.
fn append(out: &mut Vec<u32>, values: &Tensor) -> Result<(), TokenizeError> {
    let values = values.to_device(Device::Cpu).to_kind(Kind::Int).contiguous().view([-1]);
    let values = Vec::<i32>::try_from(&values).map_err(TokenizeError::torch("copying tokens"))?;
    out.extend(values.into_iter().map(|value| value as u32));
    Ok(())
}
