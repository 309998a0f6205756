//! Whether a cache is the one that a model needs.

use crate::error::CacheError;
use crate::format::grid::GridSpec;
use crate::read::cache::TokenCache;

/// What a trainer or sampler needs of a cache; what is `None` does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requirement {
    /// Height and width of a grid, in tokens.
    pub grid: Option<(u32, u32)>,
    /// Tokens of a grid of any shape.
    pub num_tokens: Option<usize>,
    /// Bits of a token.
    pub bits: Option<u32>,
    /// The tokenizer's fingerprint.
    pub fingerprint: Option<String>,
    /// Labels are below this.
    pub num_classes: Option<usize>,
    /// The hash over the rows: this very cache.
    pub content_hash: Option<String>,
}

impl TokenCache {
    /// Checks that the cache fits.
    ///
    /// # Errors
    /// [`CacheError::Requirement`] naming the first field that differs, what it is, and what was expected.
    ///
    /// ```
    /// use tokengrid_cache::{Requirement, TokenCache, write_synthetic_cache};
    /// # fn main() -> Result<(), tokengrid_cache::CacheError> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let dir = &folder.path().join("cache");
    /// write_synthetic_cache(dir, 10, 1)?;
    /// let cache = TokenCache::open(dir)?;
    /// cache.require(&Requirement { grid: Some((16, 16)), bits: Some(18), ..Default::default() })?;
    /// let error = cache.require(&Requirement { bits: Some(14), ..Default::default() }).unwrap_err();
    /// assert!(error.to_string().contains("bits is 18, expected 14"));
    /// # Ok(()) }
    /// ```
    pub fn require(&self, wanted: &Requirement) -> Result<(), CacheError> {
        let (manifest, grid) = (self.manifest(), self.grid());
        self.compare(
            "grid",
            wanted.grid.map(|(height, width)| GridSpec { height, width, ..grid }.to_string()),
            || grid.to_string(),
        )?;
        self.compare("num_tokens", wanted.num_tokens.map(|n| n.to_string()), || grid.num_tokens().to_string())?;
        self.compare("bits", wanted.bits.map(|bits| bits.to_string()), || grid.bits.to_string())?;
        self.compare("tokenizer.fingerprint", wanted.fingerprint.clone(), || manifest.tokenizer.fingerprint.clone())?;
        self.compare("content_hash", wanted.content_hash.clone(), || manifest.content_hash.clone())?;
        let Some(num_classes) = wanted.num_classes else {
            return Ok(());
        };
        let largest = (0..self.num_images()).map(|image| self.image_label(image)).max().unwrap_or(-1);
        match usize::try_from(largest) {
            Ok(label) if label >= num_classes => Err(CacheError::Requirement {
                path: self.dir().into(),
                field: "label",
                expected: format!("less than {num_classes} classes"),
                actual: label.to_string(),
            }),
            _ => Ok(()),
        }
    }

    fn compare(
        &self,
        field: &'static str,
        expected: Option<String>,
        actual: impl FnOnce() -> String,
    ) -> Result<(), CacheError> {
        let (Some(expected), actual) = (expected, actual()) else {
            return Ok(());
        };
        if expected == actual {
            return Ok(());
        }
        Err(CacheError::Requirement { path: self.dir().into(), field, expected, actual })
    }
}
