//! Images through the tokenizer and back.

use crate::SampleError;
use std::path::Path;
use tch::{Device, Tensor};
use tokengrid_ingest::{Limits, Recipe, RgbImage, Views, decode_rgb, views_of};
use tokengrid_tokenize::{Picture, Runtime, TokenizeError, Tokenizer, pixels};

/// Which pixels of an image go through the tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The shorter side resized to so many pixels, then the centre's square, as the reference does.
    Square(u32),
    /// All of them as they are. Where a side is no multiple of the downsampling factor, its last line is repeated for the
    /// tokenizer, and the result cut back.
    Original,
}

/// An image beside what its tokens say.
#[derive(Debug)]
pub struct Reconstruction {
    /// What the tokenizer saw, without padding.
    pub original: Picture,
    /// What came back.
    pub reconstruction: Picture,
    /// Rows and columns of tokens.
    pub grid: [usize; 2],
    /// Tokens, raster order.
    pub tokens: Vec<i64>,
    /// Peak signal-to-noise ratio in dB, on 8-bit values.
    pub psnr: f64,
}

/// Reads an image file and takes it through the tokenizer.
///
/// # Errors
/// The file cannot be read or decoded; a size that does not fit the tokenizer.
pub fn reconstruct(
    path: &Path,
    extent: Extent,
    tokenizer: &Tokenizer,
    runtime: &Runtime,
) -> Result<Reconstruction, SampleError> {
    check_extent(extent, tokenizer)?;
    let refuse = |reason: String| SampleError::Picture { path: path.into(), reason };
    let bytes = std::fs::read(path).map_err(SampleError::io("read", path))?;
    let image = decode_rgb(&bytes, &Limits::default()).map_err(|e| refuse(e.to_string()))?;
    let original = match extent {
        Extent::Original => picture(image),
        Extent::Square(size) => {
            let recipe = Recipe { size, views: Views::Center, ..Recipe::default() };
            let mut views = views_of(&image, "", &recipe).map_err(|e| refuse(e.to_string()))?;
            Picture::new(size as usize, size as usize, views.remove(0).pixels)
        }
    };
    Ok(through(original, tokenizer, runtime))
}

/// Whether the tokenizer can divide such pictures into a grid.
///
/// # Errors
/// A side that is no multiple of the downsampling factor.
pub fn check_extent(extent: Extent, tokenizer: &Tokenizer) -> Result<(), SampleError> {
    let factor = tokenizer.architecture.factor();
    match extent {
        Extent::Square(size) if size == 0 || !size.is_multiple_of(factor) => {
            Err(TokenizeError::Size { size, factor }.into())
        }
        _ => Ok(()),
    }
}

fn picture(image: RgbImage) -> Picture {
    Picture::new(image.width as usize, image.height as usize, image.pixels)
}

fn through(original: Picture, tokenizer: &Tokenizer, runtime: &Runtime) -> Reconstruction {
    let _no_grad = tch::no_grad_guard();
    let factor = tokenizer.architecture.factor() as usize;
    let padded = padded(&original, factor);
    let (height, width) = (padded.height as i64, padded.width as i64);
    let tokens_bhw = tokenizer.encode(&pixels::to_input(&padded.rgb, 1, height, width, runtime.device));
    let back = pixels::to_bytes(&tokenizer.decode(&tokens_bhw));
    let reconstruction = cut(&Picture::new(padded.width, padded.height, back), original.width, original.height);
    let tokens = Vec::<i64>::try_from(&tokens_bhw.to_device(Device::Cpu).to_kind(tch::Kind::Int64).view([-1]))
        .expect("tokens copy to the host");
    let psnr = psnr(&original.rgb, &reconstruction.rgb);
    Reconstruction { original, reconstruction, grid: [padded.height / factor, padded.width / factor], tokens, psnr }
}

/// `picture` with its last column and row repeated up to the next multiple of `factor`.
fn padded(picture: &Picture, factor: usize) -> Picture {
    let (width, height) = (picture.width.next_multiple_of(factor), picture.height.next_multiple_of(factor));
    let mut rgb = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        let y = y.min(picture.height - 1);
        let row = &picture.rgb[y * picture.width * 3..(y + 1) * picture.width * 3];
        rgb.extend_from_slice(row);
        rgb.extend(row[row.len() - 3..].iter().cycle().take((width - picture.width) * 3));
    }
    Picture::new(width, height, rgb)
}

/// The upper left part of `picture`.
fn cut(picture: &Picture, width: usize, height: usize) -> Picture {
    let rows = picture.rgb.chunks_exact(picture.width * 3).take(height);
    Picture::new(width, height, rows.flat_map(|row| &row[..width * 3]).copied().collect())
}

/// Grids of tokens, row-major, as [`decode`] takes them: int64 `[B, side, side]` on `device`.
pub fn tokens_tensor(tokens: &[u32], side: i64, device: Device) -> Tensor {
    let tokens: Vec<i64> = tokens.iter().map(|&token| i64::from(token)).collect();
    Tensor::from_slice(&tokens).view([-1, side, side]).to_device(device)
}

/// Pictures that a GPU decodes at a time: enough to be busy, and no more memory for larger batches.
const GPU_CHUNK: i64 = 16;

/// Decodes tokens int64 `[B, h, w]` to pictures. On the CPU one by one: it costs nothing there, and a picture is then the
/// same to the bit whatever else is in the batch.
pub fn decode(tokenizer: &Tokenizer, tokens_bhw: &Tensor) -> Vec<Picture> {
    let _no_grad = tch::no_grad_guard();
    let chunk = if tokens_bhw.device() == Device::Cpu { 1 } else { GPU_CHUNK };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_repeats_the_last_line_and_cutting_takes_it_away() {
        let picture = Picture::new(3, 2, (0..18).collect());
        let wide = padded(&picture, 4);
        assert_eq!((wide.width, wide.height), (4, 4));
        assert_eq!(&wide.rgb[..12], [0, 1, 2, 3, 4, 5, 6, 7, 8, 6, 7, 8]);
        assert_eq!(wide.rgb[36..], wide.rgb[12..24]);
        assert_eq!(cut(&wide, 3, 2), picture);
        assert_eq!(padded(&wide, 4), wide);
    }
}
