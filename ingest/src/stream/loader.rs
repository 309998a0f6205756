//! One image from its file to its crops, with buffers that are used again for the next.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::crop::{Cutter, View, ViewError};
use crate::decode::{DecodeError, Limits, Picture, decode_window_into, exif_orientation};
use crate::error::{Bad, Stage};
use crate::orient::make_upright;
use crate::recipe::{Orientation, Recipe};
use crate::resample::Plane;
use crate::source::Source;
use crate::stages::StageCounters;

/// Buffers that grew beyond this for one image are given back before the next, in bytes.
const KEPT_BUFFER_BYTES: usize = 64 << 20;

/// The views of an image file, decoded only as far as they need it: what a stream does with each of its images.
///
/// # Errors
/// [`Bad`] with the stage, for a file that is rejected or has no such views.
pub fn views_of_file(bytes: &[u8], key: &str, recipe: &Recipe, limits: &Limits) -> Result<Vec<View>, Bad> {
    let Buffers { mut picture, mut cutter, mut spare, .. } = Buffers::default();
    decode_needed(bytes, key, recipe, limits, &mut picture, &mut cutter, &mut spare)
        .map_err(|e| Bad::new(Stage::Decode, &e))?;
    cutter.plan(recipe, key, picture.whole).map_err(|e| Bad::new(Stage::Resize, &e))?;
    Ok(cutter.views(picture.plane()))
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
            // Whatever the panic left half-done goes.
            self.buffers = Buffers::default();
            Err(Bad { stage, reason: format!("internal error: {}", panic_text(&*panic)) })
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
        counters.timed(Stage::Read, || source.read(index, &mut buffers.file)).map_err(|e| Bad::new(Stage::Read, &e))?;
        counters.add_bytes(buffers.file.len());
        *stage = Stage::Decode;
        let key = source.key(index);
        counters
            .timed(Stage::Decode, || {
                let Buffers { file, picture, cutter, spare } = buffers;
                decode_needed(file, key, recipe, limits, picture, cutter, spare)
            })
            .map_err(|e| Bad::new(Stage::Decode, &e))?;
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
    /// One huge image must not make every worker huge for good.
    fn shrink(&mut self) {
        for buffer in [&mut self.file, &mut self.picture.image.pixels, &mut self.spare] {
            if buffer.capacity() > KEPT_BUFFER_BYTES {
                *buffer = Vec::new();
            }
        }
        self.cutter.shrink(KEPT_BUFFER_BYTES);
    }
}

/// Decodes what the recipe needs of a file, upright if the recipe says so.
fn decode_needed(
    file: &[u8],
    key: &str,
    recipe: &Recipe,
    limits: &Limits,
    picture: &mut Picture,
    cutter: &mut Cutter,
    spare: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let orientation = match recipe.orientation {
        Orientation::Ignore => 1,
        Orientation::Apply => exif_orientation(file),
    };
    let mut needed = |width, height| {
        let upright = orientation <= 1;
        // A plan that fails will fail again when the crops are cut, and is reported then.
        (upright && cutter.plan(recipe, key, (width, height)).is_ok()).then(|| cutter.needed())
    };
    decode_window_into(file, limits, &mut needed, picture)?;
    if orientation > 1 {
        make_upright(&mut picture.image, orientation, spare);
        picture.whole = (picture.image.width, picture.image.height);
    }
    Ok(())
}

/// A panic's message, if it has one.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without a message")
}
