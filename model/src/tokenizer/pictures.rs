//! Pictures through the tokenizer and back.

use super::Tokenizer;
use crate::{ModelError, Picture, Runtime, pixels};
use tch::{Device, Kind, Tensor};

/// Pictures of one size on their way through the tokenizer and back, as the reference evaluates them.
#[derive(Debug)]
pub struct Pass {
    /// The pictures as the tokenizer's input, f32 `[B, 3, H, W]` in [-1, 1], without margin.
    pub original_bchw: Tensor,
    /// What came back, f32 of the same shape, clamped to [-1, 1].
    pub reconstruction_bchw: Tensor,
    /// Tokens, `[B, h, w]`, those of the margin included.
    pub tokens_bhw: Tensor,
}

/// Takes pictures of one size through the tokenizer. Sides that are not multiples of the downsampling factor get a margin of
/// mid-grey (0 in the tokenizer's input): half of it, rounded down, above and at the left, the rest below and at the right.
///
/// # Panics
/// When there is no picture, or the pictures have different sizes.
pub fn pass(pictures: &[&Picture], tokenizer: &Tokenizer, runtime: Runtime) -> Pass {
    let _no_grad = tch::no_grad_guard();
    let factor = i64::from(tokenizer.architecture.factor());
    let (width, height) = (pictures[0].width as i64, pictures[0].height as i64);
    let bytes: Vec<u8> = pictures.iter().flat_map(|picture| &picture.rgb).copied().collect();
    let original_bchw = pixels::to_input(&bytes, pictures.len() as i64, height, width, runtime);
    let ([left, right], [top, bottom]) = (margins(width, factor), margins(height, factor));
    let padded_bchw = match [left, right, top, bottom] {
        [0, 0, 0, 0] => original_bchw.shallow_clone(),
        margins => original_bchw.constant_pad_nd(margins),
    };
    let tokens_bhw = tokenizer.encode(&padded_bchw);
    let decoded_bchw = tokenizer.decode(&tokens_bhw).to_kind(Kind::Float).clamp(-1.0, 1.0);
    let reconstruction_bchw = decoded_bchw.narrow(2, top, height).narrow(3, left, width).contiguous();
    Pass { original_bchw, reconstruction_bchw, tokens_bhw }
}

/// Pixels before and after a side of `size` that make it a multiple of `factor`.
fn margins(size: i64, factor: i64) -> [i64; 2] {
    let margin = (factor - size % factor) % factor;
    [margin / 2, margin - margin / 2]
}

impl Pass {
    /// The originals with 8 bits per value, truncated as the reconstructions are: 95 of the 256 levels lose one. PSNR and SSIM
    /// are measured between these.
    pub fn originals(&self) -> Vec<Picture> {
        truncated(&self.original_bchw)
    }

    /// The reconstructions with 8 bits per value.
    pub fn reconstructions(&self) -> Vec<Picture> {
        truncated(&self.reconstruction_bchw)
    }

    /// All tokens, in raster order.
    ///
    /// # Errors
    /// The device fails.
    pub fn tokens(&self) -> Result<Vec<i64>, ModelError> {
        let host = self.tokens_bhw.to_device(Device::Cpu).to_kind(Kind::Int64).contiguous().view([-1]);
        Vec::<i64>::try_from(&host).map_err(ModelError::torch("copying tokens"))
    }
}

fn truncated(images_bchw: &Tensor) -> Vec<Picture> {
    let size = images_bchw.size();
    let (height, width) = (size[2] as usize, size[3] as usize);
    let bytes = pixels::to_bytes(images_bchw);
    bytes.chunks_exact(width * height * 3).map(|rgb| Picture::new(width, height, rgb.to_vec())).collect()
}

/// Grids of tokens, row-major, as [`decode`] takes them: int64 `[B, side, side]` on `device`.
pub fn tokens_tensor(tokens: &[u32], side: i64, device: Device) -> Tensor {
    let tokens: Vec<i64> = tokens.iter().map(|&token| i64::from(token)).collect();
    Tensor::from_slice(&tokens).view([-1, side, side]).to_device(device)
}

/// Pictures that a device decodes at a time: enough to use it fully, and a bound on memory.
const DEVICE_CHUNK: i64 = 16;

/// Decodes tokens int64 `[B, h, w]` to pictures. On the CPU one by one, which is as fast there, so that a picture is the
/// same to the bit in any batch.
pub fn decode(tokenizer: &Tokenizer, tokens_bhw: &Tensor, runtime: Runtime) -> Vec<Picture> {
    let _no_grad = tch::no_grad_guard();
    let chunk = if runtime.route.whole_batches { DEVICE_CHUNK } else { 1 };
    let pictures = |tokens_bhw: &Tensor| {
        let output = tokenizer.decode(tokens_bhw);
        Picture::batch(&pixels::to_bytes(&output), output.size()[2] as usize)
    };
    tokens_bhw.split(chunk, 0).iter().flat_map(pictures).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Variant, tiny};

    #[test]
    fn margins_pad_to_multiples_with_the_larger_half_at_the_end() {
        for (size, want) in [(16, [0, 0]), (15, [0, 1]), (13, [1, 2]), (17, [7, 8]), (257, [7, 8]), (259, [6, 7])] {
            assert_eq!(margins(size, 16), want, "{size}");
        }
    }

    #[test]
    fn the_margin_is_mid_grey_on_all_sides_and_is_cut_off_again() {
        let tiny = tiny::open_tokenizer("tiny".as_ref()).unwrap();
        let tokenizer = Tokenizer::load(&tiny, Variant::Raw, Device::Cpu, Kind::Float).unwrap();
        let picture = Picture::new(19, 13, (0..19 * 13 * 3).map(|i| (i * 7 % 256) as u8).collect());
        let small = pass(&[&picture], &tokenizer, Runtime::EXACT);
        let input_bchw = pixels::to_input(&picture.rgb, 1, 13, 19, Runtime::EXACT);
        let grey_bchw = Tensor::zeros([1, 3, 16, 24], (Kind::Float, Device::Cpu));
        grey_bchw.narrow(2, 1, 13).narrow(3, 2, 19).copy_(&input_bchw);
        assert!(small.tokens_bhw.equal(&tokenizer.encode(&grey_bchw)));
        let decoded_bchw = tokenizer.decode(&small.tokens_bhw).clamp(-1.0, 1.0);
        assert!(small.reconstruction_bchw.equal(&decoded_bchw.narrow(2, 1, 13).narrow(3, 2, 19)));
        assert_eq!(small.reconstructions()[0].rgb.len(), picture.rgb.len());
    }

    #[test]
    fn originals_are_truncated_as_reconstructions_are() {
        let tiny = tiny::open_tokenizer("tiny".as_ref()).unwrap();
        let tokenizer = Tokenizer::load(&tiny, Variant::Raw, Device::Cpu, Kind::Float).unwrap();
        let all: Vec<u8> = (0..=255).flat_map(|value| [value; 3]).collect();
        let picture = Picture::new(16, 16, all.clone());
        let truncated = pass(&[&picture], &tokenizer, Runtime::EXACT).originals().remove(0);
        let lowered = all.iter().zip(&truncated.rgb).filter(|(was, is)| **was != **is).count();
        assert_eq!(lowered, 95 * 3);
        assert!(all.iter().zip(&truncated.rgb).all(|(was, is)| was - is <= 1));
    }
}
