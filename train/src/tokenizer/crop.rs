//! One training crop out of an image's file.

use std::panic::{AssertUnwindSafe, catch_unwind};
use tokengrid_ingest::{
    Bad, Limits, Recipe, Region, Resampler, Stage, Views, decode_rgb_if, target_size, views_of_file,
};
use tokengrid_model::rng::CounterRng;

/// Which crops a run trains on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CropConfig {
    /// Crops per batch of this process.
    pub batch_size: usize,
    /// Side of a crop, in pixels.
    pub side: u32,
    /// Whether crops lie at random places; else in the centre.
    pub random: bool,
    /// Crops come from the image resized so that its shorter side is `side` times a number in this range.
    pub scale: [f64; 2],
    /// Whether crops are mirrored at random.
    pub flip: bool,
    /// Seed of the order of images and the places of crops.
    pub seed: u64,
    /// This process, `0..world_size`.
    pub rank: usize,
    /// Processes that share the stream.
    pub world_size: usize,
    /// Decoding threads; 0 for one per processor core. The number does not change the crops.
    pub threads: usize,
}

impl Default for CropConfig {
    /// The reference's crops, in one process: shorter side resized to 256, a random square of it, not mirrored.
    fn default() -> Self {
        CropConfig {
            batch_size: 8,
            side: 256,
            random: true,
            scale: [1.0, 1.0],
            flip: false,
            seed: 42,
            rank: 0,
            world_size: 1,
            threads: 0,
        }
    }
}

/// Purpose of random numbers in their names: see [`CounterRng::new`].
const PLACES: u64 = 2;

/// Cuts one crop after the other; keeps its buffers.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    resampler: Resampler,
}

impl Cutter {
    /// Crop number `n` out of the file of the image `key`: `[side, side, 3]` bytes, a function of the file, the
    /// configuration's seed and n.
    ///
    /// # Errors
    /// The file cannot be decoded, or has no crop of this size.
    pub(super) fn crop(&mut self, file: &[u8], key: &str, n: u64, config: &CropConfig) -> Result<Vec<u8>, Bad> {
        let mut rng = CounterRng::new(&[config.seed, PLACES, n]);
        let cut = AssertUnwindSafe(|| match config.scale {
            [1.0, 1.0] => plain(file, key, &mut rng, config),
            _ => self.scaled(file, &mut rng, config),
        });
        let mut crop = catch_unwind(cut).unwrap_or_else(|_| {
            // A panic of a decoder must not end a long run; the resampler's buffers may be half-written.
            self.resampler = Resampler::default();
            Err(Bad { stage: Stage::Decode, reason: "internal error of the decoder".into() })
        })?;
        if config.flip && rng.below(2) == 1 {
            mirror(&mut crop, config.side as usize);
        }
        Ok(crop)
    }

    fn scaled(&mut self, file: &[u8], rng: &mut CounterRng, config: &CropConfig) -> Result<Vec<u8>, Bad> {
        let bad = |stage, reason: String| Bad { stage, reason };
        let side = config.side;
        // Crops of a larger picture would be longer still.
        let mut accept = |width, height| match target_size(width, height, side) {
            Some(_) => Ok(()),
            None => Err(too_long(width, height)),
        };
        let image =
            decode_rgb_if(file, &Limits::default(), &mut accept).map_err(|e| bad(Stage::Decode, e.to_string()))?;
        let [low, high] = config.scale;
        // Never beyond the image's own resolution, so that no crop is enlarged.
        let largest = (f64::from(image.width.min(image.height)) / f64::from(side)).clamp(low, high.max(low));
        let shorter = (f64::from(side) * (low + (largest - low) * rng.uniform())) as u32;
        let (width, height) = target_size(image.width, image.height, shorter.max(side))
            .ok_or_else(|| bad(Stage::Resize, too_long(image.width, image.height)))?;
        let mut place = |room: u32| if config.random { rng.below(u64::from(room) + 1) as u32 } else { room / 2 };
        let (left, top) = (place(width - side), place(height - side));
        let mut crop = vec![];
        let region = Region { left, top, width: side, height: side };
        self.resampler.resize_region(&image, (width, height), region, &mut crop);
        Ok(crop)
    }
}

fn too_long(width: u32, height: u32) -> String {
    format!("{width} x {height} pixels are too long")
}

/// The reference's crop: only what it needs of the file is decoded.
fn plain(file: &[u8], key: &str, rng: &mut CounterRng, config: &CropConfig) -> Result<Vec<u8>, Bad> {
    let views = if config.random { Views::RandomCrop(1) } else { Views::Center };
    let recipe = Recipe { size: config.side, views, seed: rng.next_u64(), ..Recipe::default() };
    let views = views_of_file(file, key, &recipe, &Limits::default())?;
    Ok(views.into_iter().next().map(|view| view.pixels).unwrap_or_default())
}

fn mirror(rgb: &mut [u8], width: usize) {
    for row in rgb.chunks_exact_mut(width * 3) {
        for x in 0..width / 2 {
            for c in 0..3 {
                row.swap(x * 3 + c, (width - 1 - x) * 3 + c);
            }
        }
    }
}
