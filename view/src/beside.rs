//! A second cache of the same images, to look at beside the first one.

use crate::background::{Background, State};
use crate::config::{Beside, ViewConfig};
use crate::error::ViewError;
use crate::reply::{Refusal, with_causes};
use crate::state::{PATIENCE, Shared};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokengrid_cache::{ImagesByKey, RowMeta};

/// The other cache, and where each key is in it.
pub(crate) struct BesideCache {
    pub(crate) shared: Arc<Shared>,
    keys: Background<ImagesByKey>,
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
        let shared = Arc::new(Shared::open(config)?);
        let keys = Background::default();
        let cache = Arc::clone(&shared.cache);
        keys.start(false, move |_| match cache.wait(Duration::MAX) {
            State::Done(cache) => ImagesByKey::of(&cache, &cancel).map_err(|error| with_causes(&error)),
            State::Failed(why) => Err(why),
            State::Idle | State::Running { .. } => Err("the other cache was not opened".to_owned()),
        });
        Ok(BesideCache { shared, keys })
    }

    /// The row of the other cache that shows the same image as a row of the first one: of the same view where there is that,
    /// else the image's first. `image` is the row's in the first cache.
    pub(crate) fn row(&self, meta: &RowMeta, image: usize) -> Result<Option<usize>, Refusal> {
        let keys = match self.keys.wait(PATIENCE) {
            State::Done(keys) => keys,
            State::Failed(why) => return Err(Refusal::Unavailable(why)),
            State::Idle | State::Running { .. } => {
                return Err(Refusal::NotYet("the other cache's keys are still being read".into()));
            }
        };
        let cache = self.shared.cache()?;
        let found = keys.images(&cache, &meta.key);
        self.shared.shards.check_all_lost(&cache)?;
        let found = found?;
        // Splits may have the same key: the image at the same place is the likeliest.
        let Some(other) = found.iter().find(|other| **other == image).or(found.first()) else { return Ok(None) };
        let view = meta.view.checked_sub(cache.manifest().first_view).map_or(0, |view| view as usize);
        let rows = cache.image_rows(*other);
        Ok(Some(rows.start + if view < rows.len() { view } else { 0 }))
    }

    /// Ends what goes on in the background.
    pub(crate) fn end(&self) {
        self.keys.join();
        self.shared.end();
    }
}
