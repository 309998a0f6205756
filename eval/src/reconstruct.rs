//! One image through the tokenizer and back.

use crate::EvalError;
use crate::pass_memory::PassMemory;
use std::path::Path;
use tokengrid_ingest::{Limits, Recipe, Views, decode_rgb_if, psnr, views_of_file};
use tokengrid_model::guard::guarded;
use tokengrid_model::tokenizer::pass;
use tokengrid_model::{ModelError, Picture, Runtime, Tokenizer};

/// The pixels of an image that the tokenizer processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The reference's centre crop: the shorter side resized to this many pixels, then a square of that side.
    Square(u32),
    /// All of them as they are, with a margin that [`pass`] adds and cuts off.
    Original,
}

/// An image with its tokens and reconstruction.
#[derive(Debug)]
pub struct Reconstruction {
    /// The image, without margin.
    pub original: Picture,
    /// The reconstruction, of the same size.
    pub reconstruction: Picture,
    /// Rows and columns of tokens.
    pub grid: [usize; 2],
    /// Tokens, in raster order.
    pub tokens: Vec<i64>,
    /// Peak signal-to-noise ratio in dB, between [`tokengrid_model::tokenizer::Pass::originals`] and
    /// [`tokengrid_model::tokenizer::Pass::reconstructions`]; infinite for equal ones.
    pub psnr: f64,
}

/// Reads an image file and takes it through the tokenizer.
///
/// # Errors
/// The file cannot be read or decoded, or the size does not fit the tokenizer.
pub fn reconstruct(
    path: &Path,
    extent: Extent,
    tokenizer: &Tokenizer,
    runtime: &Runtime,
) -> Result<Reconstruction, EvalError> {
    check_extent(extent, tokenizer)?;
    let refuse = |reason: String| EvalError::Picture { path: path.into(), reason };
    let bytes = std::fs::read(path).map_err(EvalError::io("read", path))?;
    let limits = Limits::default();
    let original = match extent {
        Extent::Original => {
            let memory = PassMemory::new(tokenizer, runtime.device);
            let mut accept = |width, height| memory.check(width, height);
            let image = decode_rgb_if(&bytes, &limits, &mut accept).map_err(|e| refuse(e.to_string()))?;
            Picture::new(image.width as usize, image.height as usize, image.pixels)
        }
        Extent::Square(size) => {
            let recipe = Recipe { size, views: Views::Center, ..Recipe::default() };
            let mut views = views_of_file(&bytes, "", &recipe, &limits).map_err(|bad| refuse(bad.reason))?;
            Picture::new(size as usize, size as usize, views.remove(0).pixels)
        }
    };
    through(original, tokenizer, runtime)
}

/// Whether the tokenizer can divide such pictures into a grid.
///
/// # Errors
/// A side that is not a multiple of the downsampling factor.
pub fn check_extent(extent: Extent, tokenizer: &Tokenizer) -> Result<(), EvalError> {
    let factor = tokenizer.architecture.factor();
    match extent {
        Extent::Square(size) if size == 0 || !size.is_multiple_of(factor) => {
            Err(ModelError::Size { size, factor }.into())
        }
        _ => Ok(()),
    }
}

fn through(original: Picture, tokenizer: &Tokenizer, runtime: &Runtime) -> Result<Reconstruction, EvalError> {
    let pass = guarded(|| pass(&[&original], tokenizer, *runtime))?;
    let reconstruction = pass.reconstructions().remove(0);
    let psnr = psnr(&pass.originals()[0].rgb, &reconstruction.rgb);
    let grid = pass.tokens_bhw.size();
    let grid = [grid[1] as usize, grid[2] as usize];
    Ok(Reconstruction { original, reconstruction, grid, tokens: pass.tokens()?, psnr })
}
