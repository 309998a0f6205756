//! One image from its file to its crops, with buffers that are used again for the next.

use crate::crop::{Cutter, View, ViewError};
use crate::decode::{DecodeError, Limits, Picture, decode_window_into, exif_orientation, panic_text};
use crate::error::{Bad, Stage};
use crate::memory::{self, kept_bytes};
use crate::orient::make_upright;
use crate::recipe::{Orientation, Recipe};
use crate::resample::Plane;
use crate::source::Source;
use crate::stages::StageCounters;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A file of more bytes claims memory before it is read: for itself, and for any picture that may be in it. Others claim when
/// the size of the picture is known, so that no thread that waits for memory holds more than this.
pub(super) const LARGE_FILE_BYTES: u64 = 16 << 20;

/// The views of an image file, decoded only as far as they need it: what a stream does with each of its images.
///
/// # Errors
/// [`Bad`] with the stage, for a file that is rejected or has no such views.
pub fn views_of_file(bytes: &[u8], key: &str, recipe: &Recipe, limits: &Limits) -> Result<Vec<View>, Bad> {
    let mut stage = Stage::Decode;
    let views = || {
        let Buffers { mut picture, mut cutter, mut spare, .. } = Buffers::default();
        decode_needed(bytes, key, recipe, limits, &mut picture, &mut cutter, &mut spare)?;
        stage = Stage::Resize;
        cutter.plan(recipe, key, picture.whole).map_err(|e| Bad::new(Stage::Resize, &e))?;
        Ok(cutter.views(picture.plane()))
    };
    catch_unwind(AssertUnwindSafe(views)).unwrap_or_else(|panic| Err(internal_error(stage, &*panic)))
}

pub(super) fn internal_error(stage: Stage, panic: &(dyn std::any::Any + Send)) -> Bad {
    Bad { stage, reason: format!("internal error: {}", panic_text(panic)) }
}

/// What became of an image.
pub(super) struct Loaded<T> {
    pub warnings: u32,
    pub outcome: Result<T, Bad>,
}

/// Reads, decodes and cuts one image after the other.
pub(super) struct Loader {
    pub source: Arc<Source>,
    recipe: Recipe,
    limits: Limits,
    counters: Arc<StageCounters>,
    buffers: Buffers,
}

#[derive(Default)]
struct Buffers {
    file: Vec<u8>,
    picture: Picture,
    cutter: Cutter,
    /// For turning pictures.
    spare: Vec<u8>,
}

impl Loader {
    pub(super) fn new(source: Arc<Source>, recipe: Recipe, limits: Limits, counters: Arc<StageCounters>) -> Loader {
        Loader { source, recipe, limits, counters, buffers: Buffers::default() }
    }

    /// Loads image `index` and has `cut` make its views.
    pub(super) fn load<T>(&mut self, index: usize, cut: impl FnOnce(&mut Cutter, Plane<'_>) -> T) -> Loaded<T> {
        let mut stage = Stage::Read;
        let outcome = catch_unwind(AssertUnwindSafe(|| self.try_load(index, &mut stage, cut)));
        let outcome = outcome.unwrap_or_else(|panic| {
            // The panic may have left them in any state.
            self.buffers = Buffers::default();
            Err(internal_error(stage, &*panic))
        });
        self.buffers.shrink();
        self.counters.add_image(outcome.is_ok());
        let warnings = if outcome.is_ok() { self.buffers.picture.image.warnings } else { 0 };
        Loaded { warnings, outcome }
    }

    fn try_load<T>(
        &mut self,
        index: usize,
        stage: &mut Stage,
        cut: impl FnOnce(&mut Cutter, Plane<'_>) -> T,
    ) -> Result<T, Bad> {
        if index >= self.source.len() {
            let reason = format!("no image {index} in a source of {}", self.source.len());
            return Err(Bad { stage: Stage::Read, reason });
        }
        let Loader { source, recipe, limits, counters, buffers } = self;
        let mut before = |bytes: u64| {
            if bytes > LARGE_FILE_BYTES {
                buffers.picture.claim = Some(memory::claim(bytes + limits.max_decode_bytes));
            }
        };
        counters
            .timed(Stage::Read, || source.read_after(index, &mut buffers.file, &mut before))
            .map_err(|e| Bad::new(Stage::Read, &e))?;
        counters.add_bytes(buffers.file.len());
        *stage = Stage::Decode;
        let key = source.key(index);
        counters.timed(Stage::Decode, || {
            let Buffers { file, picture, cutter, spare } = buffers;
            decode_needed(file, key, recipe, limits, picture, cutter, spare)
        })?;
        *stage = Stage::Resize;
        let Buffers { picture, cutter, .. } = buffers;
        counters
            .timed(Stage::Resize, || {
                cutter.plan(recipe, key, picture.whole)?;
                Ok(cut(cutter, picture.plane()))
            })
            .map_err(|e: ViewError| Bad::new(Stage::Resize, &e))
    }
}

impl Buffers {
    /// After an image: frees large buffers, so that one huge image does not enlarge every worker permanently, and its share of
    /// the budget.
    fn shrink(&mut self) {
        let kept_bytes = kept_bytes() as usize;
        for buffer in [&mut self.file, &mut self.picture.image.pixels, &mut self.spare] {
            if buffer.capacity() > kept_bytes {
                *buffer = Vec::new();
            }
        }
        self.cutter.shrink(kept_bytes);
        self.picture.claim = None;
    }
}

/// Decodes the part of a file that the recipe needs, upright if the recipe requires it.
fn decode_needed(
    file: &[u8],
    key: &str,
    recipe: &Recipe,
    limits: &Limits,
    picture: &mut Picture,
    cutter: &mut Cutter,
    spare: &mut Vec<u8>,
) -> Result<(), Bad> {
    let orientation = match recipe.orientation {
        Orientation::Ignore => 1,
        Orientation::Apply => exif_orientation(file),
    };
    let is_upright = orientation <= 1;
    // A size that the recipe cannot use is refused before its pixels are decoded; turning the picture changes nothing in that.
    let mut needed = |width, height| {
        cutter.plan(recipe, key, (width, height)).map_err(|e: ViewError| e.to_string())?;
        Ok(is_upright.then(|| cutter.needed()))
    };
    decode_window_into(file, limits, &mut needed, u64::from(!is_upright), picture).map_err(|error| {
        let stage = if matches!(error, DecodeError::NoUse { .. }) { Stage::Resize } else { Stage::Decode };
        Bad::new(stage, &error)
    })?;
    if !is_upright {
        make_upright(&mut picture.image, orientation, spare);
        picture.whole = (picture.image.width, picture.image.height);
    }
    Ok(())
}
