//! The source's images as the cache saw them.

use super::Picture;
use super::parts::{ImagePosition, Parts};
use crate::config::NamedSource;
use crate::reply::{Refusal, with_causes};
use crate::text::printable;
use std::path::Path;
use std::sync::OnceLock;
use tokengrid_cache::{Manifest, RowMeta, TokenCache};
use tokengrid_ingest::{
    Limits, Orientation, Recipe, RecipeError, RgbImage, View, decode_rgb_if, picture_size, resized, views_of_file,
};

/// A resized image larger than this is not shown as a whole: a panorama may be a hundred times as long as it is high.
const RESIZED_PIXELS_MAX: u64 = 1 << 24;

/// Images that are looked for in a source, to see whether it is the cache's.
const COMPARED_IMAGES: usize = 16;

/// The sources of a cache, opened beside it.
#[derive(Debug)]
pub(crate) struct SourceImages {
    parts: Parts,
    recipe: Recipe,
    /// Why they are not, or not all of them, what the cache was made of.
    doubt: OnceLock<String>,
}

/// What the source says of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Label by the source, among the cache's classes where they have those names.
    pub label: i32,
    /// Width and height of the resized image that the crop was cut from; `None` where it is not known.
    pub resized: Option<(u32, u32)>,
}

impl SourceImages {
    /// The source of a cache in the folder `dir`; the recipe comes from its manifest.
    ///
    /// # Errors
    /// A recipe that `tokenize` did not write: how the images were cut is unknown.
    pub(crate) fn new(sources: Vec<NamedSource>, manifest: &Manifest, dir: &Path) -> Result<SourceImages, String> {
        let recipe = Recipe::from_json(&manifest.recipe.to_string()).map_err(|error| match error {
            RecipeError::RemovedResize { .. } => error.to_string(),
            _ => "the cache does not say how its images were cut: it was not made by `tokenize`".to_owned(),
        })?;
        Ok(SourceImages { parts: Parts::new(sources, manifest, dir), recipe, doubt: OnceLock::new() })
    }

    /// Images of all sources.
    pub(crate) fn len(&self) -> usize {
        self.parts.len()
    }

    /// Looks for some of the cache's images, and says so where the source does not have them: the user may have named another
    /// source than the one that the cache was made of.
    pub(crate) fn compare_keys(&self, cache: &TokenCache) {
        let step = cache.num_images().div_ceil(COMPARED_IMAGES).max(1);
        let images: Vec<usize> = (0..cache.num_images()).step_by(step).collect();
        let key = |image: &usize| cache.meta(image * cache.num_views()).ok().map(|meta| meta.key);
        let is_missing = |image: &&usize| key(image).is_some_and(|key| self.parts.find(&key, **image).is_err());
        let missing: Vec<usize> = images.iter().filter(is_missing).copied().collect();
        let Some(first) = missing.first().and_then(key) else { return };
        let (here, of) = (printable(&self.parts.describe(), 300), images.len());
        let doubt = format!(
            "{} of {of} images of the cache that were looked for are not in the source ({here}), the first: {}; is it the \
             one that the cache was made of?",
            missing.len(),
            printable(&first, 200)
        );
        tracing::warn!("{doubt}");
        // It is set here alone.
        let _ = self.doubt.set(doubt);
    }

    /// Why it may not be what the cache was made of, where there is a reason.
    pub(crate) fn doubt(&self) -> Option<&str> {
        self.doubt.get().map(String::as_str)
    }

    fn read(&self, meta: &RowMeta, image: usize) -> Result<(ImagePosition, Vec<u8>), Refusal> {
        let position = self.parts.find(&meta.key, image)?;
        let mut bytes = Vec::new();
        let read = self.parts.read(position, &mut bytes);
        read.map_err(|error| Refusal::Unavailable(format!("{} cannot be read: {error}", meta.key)))?;
        Ok((position, bytes))
    }

    /// The pixels that a row's tokens were made of.
    ///
    /// # Errors
    /// The source has no such image, or it cannot be decoded.
    pub(crate) fn view(&self, meta: &RowMeta, image: usize) -> Result<Picture, Refusal> {
        let (_, bytes) = self.read(meta, image)?;
        let views = views_of_file(&bytes, &meta.key, &self.recipe, &Limits::default())
            .map_err(|bad| Refusal::Unavailable(format!("{}: {bad}", meta.key)))?;
        let view = views.into_iter().find(|view| view.view == meta.view);
        let View { pixels, .. } =
            view.ok_or_else(|| Refusal::Missing(format!("the recipe has no view {}", meta.view)))?;
        let size = self.recipe.size as usize;
        Ok(Picture { width: size, height: size, rgb: pixels })
    }

    /// The whole resized image that a row's crop was cut from.
    ///
    /// # Errors
    /// As [`SourceImages::view`]; the recipe turns images, so that the crop's place is that in a turned one.
    pub(crate) fn resized(&self, meta: &RowMeta, image: usize) -> Result<Picture, Refusal> {
        let (_, bytes) = self.read(meta, image)?;
        let mut size = None;
        let mut is_shown = |width, height| {
            size = self.resized_size(width, height);
            size.map(drop).ok_or_else(|| format!("{width} x {height} pixels are too long to be shown as a whole"))
        };
        let refuse = |text: String| Refusal::Unavailable(format!("{}: {text}", meta.key));
        let decoded =
            decode_rgb_if(&bytes, &Limits::default(), &mut is_shown).map_err(|error| refuse(with_causes(&error)))?;
        size.ok_or_else(|| refuse("its size is not known".into()))?;
        let RgbImage { width, height, pixels, .. } =
            resized(&decoded, &self.recipe).map_err(|error| refuse(error.to_string()))?;
        Ok(Picture { width: width as usize, height: height as usize, rgb: pixels })
    }

    fn resized_size(&self, width: u32, height: u32) -> Option<(u32, u32)> {
        let (width, height) = self.recipe.resized_size(width, height)?;
        let is_shown = u64::from(width) * u64::from(height) <= RESIZED_PIXELS_MAX;
        (is_shown && self.recipe.orientation == Orientation::Ignore).then_some((width, height))
    }

    /// What the source says of a row.
    ///
    /// # Errors
    /// As [`SourceImages::view`].
    pub(crate) fn origin(&self, meta: &RowMeta, image: usize) -> Result<Origin, Refusal> {
        let (position, bytes) = self.read(meta, image)?;
        let size = picture_size(&bytes, &Limits::default()).ok();
        let resized = size.and_then(|(width, height)| self.resized_size(width, height));
        Ok(Origin { label: self.parts.label(position), resized })
    }

    /// Pixels of a side of a view.
    pub(crate) fn size(&self) -> u32 {
        self.recipe.size
    }
}
