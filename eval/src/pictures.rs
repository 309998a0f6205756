//! Sets of pictures, streamed in order: any source of images, or the array of an `.npz` file.

use crate::EvalError;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokengrid_ingest::{
    AcceptSize, Bad, Limits, MAX_PIXELS, Recipe, Source, StreamConfig, ViewStream, Views, WholeImage, WholeStream,
};
use tokengrid_model::Picture;
use tokengrid_sample::arrays::{ArrayError, Element, Npz};

/// The array of pictures in an `.npz` file: bytes `[N, H, W, 3]`.
pub(crate) const NPZ_PICTURES: &str = "arr_0";

/// Which part of a source's images is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The whole image at its original size.
    Whole,
    /// The reference's centre crop, with this side in pixels.
    Center(u32),
}

/// Where pictures come from.
pub enum Pictures {
    /// Images that are decoded while they are needed.
    Source {
        /// The images.
        source: Arc<Source>,
        /// Which part of each is used.
        cut: Cut,
        /// Decoding threads; 0: one per core.
        threads: usize,
        /// Limits on memory and time for one file.
        limits: Limits,
    },
    /// An array of pictures of one size.
    Npz {
        /// The file.
        path: PathBuf,
        /// Number of pictures that are used, from the first on.
        count: usize,
    },
}

/// A picture, or why there is none.
#[derive(Debug)]
pub(crate) struct Item {
    /// Name in the source, or number in the array.
    pub key: String,
    /// The picture.
    pub outcome: Result<Picture, Bad>,
}

/// Called with every picture; an error ends the stream.
pub(crate) type Each<'a> = &'a mut dyn FnMut(Item) -> Result<(), EvalError>;

impl Pictures {
    /// The pictures of an `.npz` file, at most `limit` of them.
    ///
    /// # Errors
    /// The file is unreadable, or has no array `arr_0` of bytes `[N, H, W, 3]`.
    pub(crate) fn of_npz(path: &Path, limit: Option<usize>) -> Result<Pictures, EvalError> {
        let mut npz = Npz::open(path)?;
        if !npz.has(NPZ_PICTURES) {
            let what = format!("it holds {}; expected pictures, `{NPZ_PICTURES}`", npz.names());
            return Err(ArrayError::Content { path: path.into(), what }.into());
        }
        let array = npz.array(NPZ_PICTURES)?;
        let is_pictures = |shape: &[usize]| {
            // No side is 0, and none so long that a picture would not fit into memory.
            matches!(*shape, [_, height, width, 3] if (1..=MAX_PIXELS).contains(&(height as u64 * width as u64)))
        };
        if array.element != Element::U8 || !is_pictures(&array.shape) {
            let what = format!(
                "`{NPZ_PICTURES}` has shape {:?} and type {:?}; expected bytes [N, H, W, 3]",
                array.shape, array.element
            );
            return Err(array.refuse(what).into());
        }
        let count = array.shape[0].min(limit.unwrap_or(usize::MAX));
        Ok(Pictures::Npz { path: path.into(), count })
    }

    /// Number of pictures, bad ones included.
    #[allow(clippy::len_without_is_empty, reason = "an empty set is found out by counting the good ones")]
    pub fn len(&self) -> usize {
        match self {
            Pictures::Source { source, .. } => source.len(),
            Pictures::Npz { count, .. } => *count,
        }
    }

    /// A description, to be compared with those of other processes.
    pub fn describe(&self) -> String {
        match self {
            Pictures::Source { source, cut, .. } => {
                let ends = source.len().checked_sub(1).map(|last| [source.key(0), source.key(last)]);
                let [first, last] = ends.unwrap_or(["none"; 2]);
                format!("{} images, {first} to {last}, {cut:?}", source.len())
            }
            Pictures::Npz { count, .. } => format!("{count} pictures of an .npz file"),
        }
    }

    /// Calls `each` with the pictures in `order`, which rises. A few are decoded ahead by other threads. Whole pictures of a
    /// source whose sizes `accept` refuses are bad ones.
    ///
    /// # Errors
    /// What `each` returns; an array that ends too early.
    pub(crate) fn each(
        &self,
        order: impl Iterator<Item = usize> + Send + 'static,
        accept: AcceptSize,
        each: Each,
    ) -> Result<(), EvalError> {
        match self {
            Pictures::Source { source, cut, threads, limits } => {
                let config = StreamConfig { threads: *threads, limits: *limits, ..StreamConfig::default() };
                match cut {
                    Cut::Whole => each_whole(source, order, accept, config, each),
                    Cut::Center(size) => each_center(source, order, *size, config, each),
                }
            }
            Pictures::Npz { path, .. } => each_of_npz(path, order, each),
        }
    }
}

fn each_center(
    source: &Arc<Source>,
    order: impl Iterator<Item = usize> + Send + 'static,
    size: u32,
    config: StreamConfig,
    each: Each,
) -> Result<(), EvalError> {
    let recipe = Recipe { size, views: Views::Center, ..Recipe::default() };
    for image in ViewStream::spawn(Arc::clone(source), order, recipe, config) {
        let side = size as usize;
        let picture = |mut views: Vec<tokengrid_ingest::View>| Picture::new(side, side, views.remove(0).pixels);
        each(Item { key: image.key, outcome: image.outcome.map(picture) })?;
    }
    Ok(())
}

fn each_whole(
    source: &Arc<Source>,
    order: impl Iterator<Item = usize> + Send + 'static,
    accept: AcceptSize,
    config: StreamConfig,
    each: Each,
) -> Result<(), EvalError> {
    for WholeImage { key, outcome, .. } in WholeStream::spawn(Arc::clone(source), order, accept, config) {
        let picture =
            |image: tokengrid_ingest::RgbImage| Picture::new(image.width as usize, image.height as usize, image.pixels);
        each(Item { key, outcome: outcome.map(picture) })?;
    }
    Ok(())
}

fn each_of_npz(path: &Path, order: impl Iterator<Item = usize>, each: Each) -> Result<(), EvalError> {
    let mut npz = Npz::open(path)?;
    let mut array = npz.array(NPZ_PICTURES)?;
    let [_, height, width, _] = *array.shape.as_slice() else {
        return Err(array.refuse("its shape changed while it was read").into());
    };
    let mut next = 0;
    for index in order {
        let mut rgb = vec![0; height * width * 3];
        // An array is read from its beginning, also past pictures that are others'.
        for _ in next..=index {
            array.read_bytes(&mut rgb)?;
        }
        next = index + 1;
        each(Item { key: format!("#{index}"), outcome: Ok(Picture::new(width, height, rgb)) })?;
    }
    Ok(())
}
