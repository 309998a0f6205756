//! Images through the tokenizer and back.

use crate::SampleError;
use std::path::Path;
use tch::{Device, Tensor};
use tokengrid_ingest::{Limits, Recipe, Views, decode_rgb, views_of};
use tokengrid_tokenize::{Picture, Runtime, Tokenizer, pixels};

/// An image beside what its tokens say.
#[derive(Debug)]
pub struct Reconstruction {
    /// What the tokenizer saw.
    pub original: Picture,
    /// What came back.
    pub reconstruction: Picture,
    /// Tokens `[H, W]`, raster order.
    pub tokens: Vec<i64>,
    /// Peak signal-to-noise ratio in dB, on 8-bit values.
    pub psnr: f64,
}

/// Reads an image file, crops its centre to `size * size` as the reference does, and takes it through the tokenizer.
///
/// # Errors
/// The file cannot be read or decoded; `size` does not fit the tokenizer.
pub fn reconstruct(
    path: &Path,
    size: u32,
    tokenizer: &Tokenizer,
    runtime: &Runtime,
) -> Result<Reconstruction, SampleError> {
    let factor = tokenizer.architecture.factor();
    if size == 0 || !size.is_multiple_of(factor) {
        return Err(tokengrid_tokenize::TokenizeError::Size { size, factor }.into());
    }
    let refuse = |reason: String| SampleError::Picture { path: path.into(), reason };
    let bytes = std::fs::read(path).map_err(SampleError::io("read", path))?;
    let image = decode_rgb(&bytes, &Limits::default()).map_err(|e| refuse(e.to_string()))?;
    let recipe = Recipe { size, views: Views::Center, ..Recipe::default() };
    let mut views = views_of(&image, "", &recipe).map_err(|e| refuse(e.to_string()))?;
    let original = views.remove(0).pixels;
    Ok(through(original, size, tokenizer, runtime))
}

fn through(original: Vec<u8>, size: u32, tokenizer: &Tokenizer, runtime: &Runtime) -> Reconstruction {
    let _no_grad = tch::no_grad_guard();
    let side = i64::from(size);
    let tokens_bhw = tokenizer.encode(&pixels::to_input(&original, 1, side, side, runtime.device));
    let back = pixels::to_bytes(&tokenizer.decode(&tokens_bhw));
    let tokens = Vec::<i64>::try_from(&tokens_bhw.to_device(Device::Cpu).to_kind(tch::Kind::Int64).view([-1]))
        .expect("tokens copy to the host");
    let psnr = psnr(&original, &back);
    let picture = |rgb| Picture::new(size as usize, size as usize, rgb);
    Reconstruction { original: picture(original), reconstruction: picture(back), tokens, psnr }
}

/// Decodes tokens int64 `[B, h, w]` to pictures. On the CPU one by one: it costs nothing there, and a picture is then the
/// same to the bit whatever else is in the batch.
pub fn decode(tokenizer: &Tokenizer, tokens_bhw: &Tensor) -> Vec<Picture> {
    let _no_grad = tch::no_grad_guard();
    let chunk = if tokens_bhw.device() == Device::Cpu { 1 } else { tokens_bhw.size()[0] };
    let pictures = |tokens_bhw: &Tensor| {
        let output = tokenizer.decode(tokens_bhw);
        Picture::batch(&pixels::to_bytes(&output), output.size()[2] as usize)
    };
    tokens_bhw.split(chunk, 0).iter().flat_map(pictures).collect()
}

/// Peak signal-to-noise ratio of two 8-bit images, in dB.
pub fn psnr(a: &[u8], b: &[u8]) -> f64 {
    let squares: f64 = a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    let mean = squares / a.len().max(1) as f64;
    10.0 * (255.0 * 255.0 / mean.max(1e-12)).log10()
}
