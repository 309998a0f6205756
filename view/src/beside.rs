//! A second cache of the same images, to look at beside the first one.

use crate::background::{Background, State};
use crate::config::{Beside, ViewConfig};
use crate::error::ViewError;
use crate::reply::{Refusal, with_causes};
use crate::state::{PATIENCE, Shared};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokengrid_cache::{ImagesByKey, RowMeta, TokenCache};

/// The other cache, and where each key is in it.
pub(crate) struct BesideCache {
    pub(crate) shared: Arc<Shared>,
    /// Made once an image is looked for that is not at the same place in both caches.
    keys: Background<ImagesByKey>,
    cancel: Arc<AtomicBool>,
}

impl BesideCache {
    /// Reads the manifest and begins to open the rest.
    pub(crate) fn open(
        Beside { dir, decoder }: Beside,
        inspection_folder: Option<PathBuf>,
        threads: Option<usize>,
        cancel: Arc<AtomicBool>,
    ) -> Result<BesideCache, ViewError> {
        let config = ViewConfig { decoder, inspection_folder, threads, ..ViewConfig::new(dir) };
        Ok(BesideCache { shared: Arc::new(Shared::open(config)?), keys: Background::default(), cancel })
    }

    /// As [`BesideCache::rows`], of one row.
    pub(crate) fn row(&self, meta: &RowMeta, image: usize) -> Result<Option<usize>, Refusal> {
        Ok(self.rows(&[image], std::slice::from_ref(meta))?.pop().flatten())
    }

    /// For rows of the first cache, the rows of the other one that show the same images: of the same view where there is
    /// that, else the image's first. `images` are those of the rows in the first cache.
    pub(crate) fn rows(&self, images: &[usize], metas: &[RowMeta]) -> Result<Vec<Option<usize>>, Refusal> {
        let cache = self.shared.cache()?;
        let at_same_place = self.keys_at(&cache, images)?;
        let row = |(image, meta): (&usize, &RowMeta)| {
            // Splits may have the same key: the image at the same place is the likeliest.
            let is_same = at_same_place.get(image).is_some_and(|key| *key == meta.key);
            let other = if is_same { Some(*image) } else { self.first_image(&cache, &meta.key)? };
            let Some(other) = other else { return Ok(None) };
            let view = meta.view.checked_sub(cache.manifest().first_view).map_or(0, |view| view as usize);
            let rows = cache.image_rows(other);
            Ok(Some(rows.start + if view < rows.len() { view } else { 0 }))
        };
        images.iter().zip(metas).map(row).collect()
    }

    /// The keys of the other cache's images of these numbers, as far as it has so many.
    fn keys_at(&self, cache: &TokenCache, images: &[usize]) -> Result<HashMap<usize, String>, Refusal> {
        let mut images: Vec<usize> = images.iter().copied().filter(|image| *image < cache.num_images()).collect();
        images.dedup();
        let first_rows: Vec<usize> = images.iter().map(|image| cache.image_rows(*image).start).collect();
        let keys = self.shared.metas(&first_rows)?.into_iter().map(|meta| meta.key);
        Ok(images.into_iter().zip(keys).collect())
    }

    /// The first image of a key, wherever it is.
    fn first_image(&self, cache: &Arc<TokenCache>, key: &str) -> Result<Option<usize>, Refusal> {
        let (indexed, cancel) = (Arc::clone(cache), Arc::clone(&self.cancel));
        self.keys.start(false, move |_| ImagesByKey::of(&indexed, &cancel).map_err(|error| with_causes(&error)));
        let keys = match self.keys.wait(PATIENCE) {
            State::Done(keys) => keys,
            State::Failed(why) => return Err(Refusal::Unavailable(why)),
            State::Idle | State::Running { .. } => {
                return Err(Refusal::NotYet("the other cache's keys are still being read".into()));
            }
        };
        let found = keys.images(cache, key);
        self.shared.shards.check_all_lost(cache)?;
        Ok(found?.first().copied())
    }

    /// Ends what goes on in the background.
    pub(crate) fn end(&self) {
        self.keys.join();
        self.shared.end();
    }
}
