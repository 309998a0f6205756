//! Validation on images that are not trained on: errors of the reconstruction, use of the codebook.

use super::validation_set::ValidationSet;
use crate::TrainError;
use crate::process_group::ProcessGroup;
use tch::{Device, Kind, Tensor};
use tokengrid_ingest::psnr;
use tokengrid_model::Runtime;
use tokengrid_model::guard::guarded;
use tokengrid_model::{Picture, Tokenizer, pixels};

/// Columns of a picture of reconstructions.
const COLUMNS: usize = 8;

/// A distance of two batches of images `[B, 3, H, W]` in [-1, 1], one number per image: `[B]`.
pub(super) type Perceptual<'a> = &'a dyn Fn(&Tensor, &Tensor) -> Tensor;

/// How to validate.
#[derive(Clone, Copy)]
pub(super) struct ValidationOptions<'a> {
    /// Images at a time.
    pub batch_size: usize,
    /// Where the tokenizer's parameters lie.
    pub runtime: Runtime,
    /// The perceptual distance, if there is one.
    pub perceptual: Option<Perceptual<'a>>,
    /// Images shown in [`Validation::samples`], the first ones.
    pub num_samples: usize,
}

/// The result of a validation.
#[derive(Debug, Clone)]
pub(super) struct Validation {
    /// Mean absolute error, on a scale of [-1, 1].
    pub reconstruct_loss: f64,
    /// Mean perceptual distance.
    pub perceptual_loss: Option<f64>,
    /// Mean of the images' peak signal-to-noise ratios, of 8-bit values, in dB; infinite when a reconstruction equals its original.
    pub psnr: f64,
    /// Number of different codes in use.
    pub codes_used: u64,
    /// Share of the codebook in use, 0 to 1.
    pub codebook_utilization: f64,
    /// For each bit of a token, the share of tokens in which it is 1.
    pub bit_balance: Vec<f64>,
    /// Originals above their reconstructions, if samples were asked for.
    pub samples: Option<Picture>,
}

impl Validation {
    /// The numbers under the names that a metrics row has them.
    pub(super) fn metrics(&self) -> Vec<(&'static str, f64)> {
        let constant = self.bit_balance.iter().filter(|share| **share == 0.0 || **share == 1.0).count();
        let skew = self.bit_balance.iter().map(|share| (2.0 * share - 1.0).abs()).fold(0.0, f64::max);
        let mut values = vec![
            ("val/reconstruct_loss", self.reconstruct_loss),
            ("val/codes_used", self.codes_used as f64),
            ("val/codebook_utilization", self.codebook_utilization),
            ("val/constant_bits", constant as f64),
            ("val/largest_bit_skew", skew),
        ];
        // The PSNR of an identical image is infinite, and so is the mean: nothing to plot.
        values.extend(self.psnr.is_finite().then_some(("val/psnr", self.psnr)));
        values.extend(self.perceptual_loss.map(|loss| ("val/perceptual_loss", loss)));
        values
    }
}

/// Encodes and decodes every image of a set. The reference validates the averaged weights. Every process
/// takes its share of the batches, and all return the same result; samples are those of a process's own share.
///
/// # Errors
/// Too many broken images, or not one sound one; another process is gone.
pub(super) fn validate(
    tokenizer: &Tokenizer,
    set: &ValidationSet,
    options: &ValidationOptions,
    processes: &dyn ProcessGroup,
) -> Result<Validation, TrainError> {
    let mut sums = Sums::new(tokenizer.architecture.z_channels);
    let (mut originals, mut reconstructed) = (vec![], vec![]);
    for (number, batch) in set.batches(options.batch_size).enumerate() {
        let batch = batch?;
        if number % processes.world_size() != processes.rank() {
            continue;
        }
        let pass = guarded(|| Pass::new(tokenizer, &batch.pixels, set.image_size(), options.runtime))?;
        sums.add(&pass, &batch.pixels, options.perceptual);
        let missing = options.num_samples.saturating_sub(originals.len());
        originals.extend(Picture::batch(&batch.pixels, set.image_size() as usize).into_iter().take(missing));
        reconstructed.extend(Picture::batch(&pass.bytes, set.image_size() as usize).into_iter().take(missing));
    }
    sums.share(processes)?;
    if sums.images == 0 {
        return Err(set.all_bad());
    }
    let samples = (!originals.is_empty()).then(|| side_by_side(&originals, &reconstructed));
    Ok(sums.finish(options.perceptual.is_some(), samples))
}

/// A picture of images `[B, side, side, 3]` above their reconstructions.
pub(super) fn reconstructions(tokenizer: &Tokenizer, bytes: &[u8], side: u32, runtime: Runtime) -> Picture {
    let pass = Pass::new(tokenizer, bytes, side, runtime);
    side_by_side(&Picture::batch(bytes, side as usize), &Picture::batch(&pass.bytes, side as usize))
}

/// Rows of originals, each above the row of their reconstructions; what does not fill a row is left out.
fn side_by_side(originals: &[Picture], reconstructed: &[Picture]) -> Picture {
    let columns = COLUMNS.min(originals.len());
    let rows = originals.chunks_exact(columns).zip(reconstructed.chunks_exact(columns));
    let pictures: Vec<Picture> = rows.flat_map(|(above, below)| above.iter().chain(below).cloned()).collect();
    Picture::grid(&pictures, columns)
}

/// One batch through the tokenizer.
struct Pass {
    images_bchw: Tensor,
    tokens_bhw: Tensor,
    output_bchw: Tensor,
    /// The output as pictures hold it.
    bytes: Vec<u8>,
}

impl Pass {
    fn new(tokenizer: &Tokenizer, bytes: &[u8], side: u32, runtime: Runtime) -> Pass {
        let _no_grad = tch::no_grad_guard();
        let side = i64::from(side);
        let images_bchw = pixels::to_input(bytes, bytes.len() as i64 / (side * side * 3), side, side, runtime);
        let tokens_bhw = tokenizer.encode(&images_bchw.to_kind(tokenizer.decoder.kind()));
        let output_bchw = tokenizer.decode(&tokens_bhw);
        let bytes = pixels::to_bytes(&output_bchw);
        Pass { images_bchw, tokens_bhw, output_bchw, bytes }
    }
}

/// What is added up over the images.
struct Sums {
    images: usize,
    absolute: f64,
    perceptual: f64,
    psnr: f64,
    seen: Vec<bool>,
    ones: Vec<u64>,
    tokens: u64,
}

impl Sums {
    fn new(bits: i64) -> Sums {
        let (seen, ones) = (vec![false; 1 << bits], vec![0; bits as usize]);
        Sums { images: 0, absolute: 0.0, perceptual: 0.0, psnr: 0.0, seen, ones, tokens: 0 }
    }

    fn add(&mut self, pass: &Pass, bytes: &[u8], perceptual: Option<Perceptual>) {
        let _no_grad = tch::no_grad_guard();
        let images = pass.images_bchw.size()[0] as usize;
        self.images += images;
        let error = (&pass.images_bchw - &pass.output_bchw).abs().mean(Kind::Double).double_value(&[]);
        self.absolute += error * images as f64;
        if let Some(distance) = perceptual {
            let distance_b = distance(&pass.images_bchw, &pass.output_bchw);
            self.perceptual += distance_b.mean(Kind::Double).double_value(&[]) * images as f64;
        }
        let image_bytes = bytes.len() / images;
        let pairs = bytes.chunks_exact(image_bytes).zip(pass.bytes.chunks_exact(image_bytes));
        self.psnr += pairs.map(|(a, b)| psnr(a, b)).sum::<f64>();
        let tokens: Vec<i64> = Vec::try_from(pass.tokens_bhw.to_kind(Kind::Int64).to_device(Device::Cpu).reshape([-1]))
            .expect("integers of the host are readable");
        self.tokens += tokens.len() as u64;
        for token in tokens {
            self.seen[token as usize] = true;
            self.ones.iter_mut().enumerate().for_each(|(bit, ones)| *ones += (token >> bit & 1) as u64);
        }
    }

    /// Adds up what all processes have seen.
    fn share(&mut self, processes: &dyn ProcessGroup) -> Result<(), TrainError> {
        if processes.world_size() == 1 {
            return Ok(());
        }
        let counts = [self.images as f64, self.absolute, self.perceptual, self.psnr, self.tokens as f64];
        let counts = Tensor::from_slice(&counts);
        let ones = Tensor::from_slice(&self.ones.iter().map(|&ones| ones as i64).collect::<Vec<_>>());
        let seen = Tensor::from_slice(&self.seen.iter().map(|&seen| i32::from(seen)).collect::<Vec<_>>());
        [&counts, &ones, &seen].into_iter().try_for_each(|tensor| processes.sum(tensor))?;
        let [images, absolute, perceptual, psnr, tokens] = [0, 1, 2, 3, 4].map(|i| counts.double_value(&[i]));
        (self.images, self.tokens) = (images as usize, tokens as u64);
        (self.absolute, self.perceptual, self.psnr) = (absolute, perceptual, psnr);
        self.ones = Vec::<i64>::try_from(&ones)?.into_iter().map(|ones| ones as u64).collect();
        self.seen = Vec::<i32>::try_from(&seen)?.into_iter().map(|seen| seen > 0).collect();
        Ok(())
    }

    fn finish(self, with_perceptual: bool, samples: Option<Picture>) -> Validation {
        let mean = |sum: f64| sum / self.images as f64;
        let codes_used = self.seen.iter().filter(|seen| **seen).count() as u64;
        Validation {
            reconstruct_loss: mean(self.absolute),
            perceptual_loss: with_perceptual.then(|| mean(self.perceptual)),
            psnr: mean(self.psnr),
            codes_used,
            codebook_utilization: codes_used as f64 / self.seen.len() as f64,
            bit_balance: self.ones.iter().map(|ones| *ones as f64 / self.tokens as f64).collect(),
            samples,
        }
    }
}

#[cfg(test)]
#[path = "validation_tests.rs"]
mod tests;
