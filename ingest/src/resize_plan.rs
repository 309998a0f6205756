//! The sizes that an image goes through on its way to the views of a recipe.

use crate::crop::ViewError;
use crate::recipe::{Recipe, Resize, Views};
use crate::resample::{Filter, Region, Resizing, source_region, target_size};

/// What happens to an image before crops are cut out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResizePlan {
    /// ADM's halvings, in order; empty for most pictures and for all of another recipe.
    pub halvings: Vec<Resizing>,
    /// The resize after them, to the size that crops are cut from.
    pub last: Resizing,
    /// The part of the resized image that crops lie in.
    pub frame: Region,
}

impl Default for ResizePlan {
    fn default() -> Self {
        let last = Resizing { from: (0, 0), to: (0, 0), filter: Filter::Bilinear };
        ResizePlan { halvings: Vec::new(), last, frame: Region::default() }
    }
}

impl ResizePlan {
    /// Plans for an image of `whole` columns and rows.
    ///
    /// # Errors
    /// A side that is not addressable after the resize.
    pub(crate) fn new(recipe: &Recipe, whole: (u32, u32)) -> Result<ResizePlan, ViewError> {
        let shorter = recipe.shorter_side();
        let too_long = || ViewError::TooLong { width: whole.0, height: whole.1, shorter };
        match recipe.resize {
            Resize::PillowBilinear => {
                let to = target_size(whole.0, whole.1, shorter).ok_or_else(too_long)?;
                let last = Resizing { from: whole, to, filter: Filter::Bilinear };
                let frame = Region { left: 0, top: 0, width: to.0, height: to.1 };
                Ok(ResizePlan { halvings: Vec::new(), last, frame })
            }
            Resize::Adm => adm(recipe, whole, shorter).ok_or_else(too_long),
        }
    }

    /// Columns and rows of the image that crops are cut from.
    pub(crate) fn resized(&self) -> (u32, u32) {
        self.last.to
    }

    /// The part of the image before the last resize that `region` of the result is made of.
    pub(crate) fn before_last(&self, region: Region) -> Region {
        source_region(self.last, region)
    }

    /// The part of the original image that `region` of the result is made of.
    pub(crate) fn needed(&self, region: Region) -> Region {
        let halvings = self.halvings.iter().rev();
        halvings.fold(self.before_last(region), |region, halving| source_region(*halving, region))
    }
}

/// ADM's `center_crop_arr`: halves with a box filter while the shorter side is at least twice the wanted one, then BICUBIC,
/// then a square of the wanted side from the centre. Random crops are drawn from all of the resized image instead.
/// (openai/guided-diffusion, guided_diffusion/image_datasets.py)
fn adm(recipe: &Recipe, whole: (u32, u32), shorter: u32) -> Option<ResizePlan> {
    let (mut size, mut halvings) = (whole, Vec::new());
    while u64::from(size.0.min(size.1)) >= 2 * u64::from(shorter) {
        let half = (size.0 / 2, size.1 / 2);
        halvings.push(Resizing { from: size, to: half, filter: Filter::Box });
        size = half;
    }
    // Python's: a factor in 64-bit floats, then `round`, which takes halves to the even number.
    let factor = f64::from(shorter) / f64::from(size.0.min(size.1));
    let scaled = |side: u32| {
        let side = (f64::from(side) * factor).round_ties_even();
        (side <= f64::from(i32::MAX)).then_some(side as u32)
    };
    let to = (scaled(size.0)?, scaled(size.1)?);
    let square = Region { left: (to.0 - shorter) / 2, top: (to.1 - shorter) / 2, width: shorter, height: shorter };
    let frame = match recipe.views {
        Views::RandomCrop(_) => Region { left: 0, top: 0, width: to.0, height: to.1 },
        _ => square,
    };
    Some(ResizePlan { halvings, last: Resizing { from: size, to, filter: Filter::Bicubic }, frame })
}
