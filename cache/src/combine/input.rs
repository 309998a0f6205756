//! A cache that is merged with others: its images, those in quarantine among them.

use crate::error::CacheError;
use crate::format::identity::JobIdentity;
use crate::format::quarantine::{QuarantineReader, QuarantineRecord};
use crate::read::cache::TokenCache;
use std::ops::Range;
use std::path::PathBuf;

/// One cache to merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeInput {
    /// Its folder.
    pub dir: PathBuf,
    /// The split that its images become; `None` keeps the splits that it has (or that there are none).
    pub split: Option<String>,
}

impl MergeInput {
    /// A cache whose images belong to no split of their own.
    pub fn new(dir: impl Into<PathBuf>) -> MergeInput {
        MergeInput { dir: dir.into(), split: None }
    }
}

/// A cache to merge, open.
pub(crate) struct Input {
    pub(crate) cache: TokenCache,
    pub(crate) identity: JobIdentity,
    pub(crate) split: Option<String>,
}

impl Input {
    pub(super) fn open(input: &MergeInput) -> Result<Input, CacheError> {
        let cache = TokenCache::open(&input.dir)?;
        let input = Input { identity: cache.manifest().identity(), cache, split: input.split.clone() };
        // An altered list is refused before anything is written.
        input.quarantined()?.try_for_each(|record| record.map(drop))?;
        Ok(input)
    }

    pub(super) fn quarantined(&self) -> Result<QuarantineReader, CacheError> {
        QuarantineReader::open(self.cache.local_dir(), self.cache.manifest())
    }

    pub(super) fn images(&self) -> usize {
        self.identity.source.images
    }

    /// Images with rows.
    pub(crate) fn num_encoded(&self) -> usize {
        self.cache.num_images()
    }

    /// The images of the source: runs of encoded ones, by their number in the cache, and quarantined ones.
    pub(crate) fn pieces(&self) -> Result<Pieces, CacheError> {
        let (records, images) = (Some(self.quarantined()?), self.images());
        Ok(Pieces { records, images, next: 0, num_quarantined: 0, held: None })
    }

    pub(super) fn differs(
        &self,
        from: &Input,
        field: impl Into<String>,
        expected: String,
        actual: String,
    ) -> CacheError {
        let (path, other) = (from.cache.dir().to_owned(), self.cache.dir().to_owned());
        CacheError::CachesDiffer { path, other, field: field.into(), expected, actual }
    }
}

pub(crate) enum Piece {
    /// Images by their number in the cache; the first one's number in the source.
    Encoded {
        images: Range<usize>,
        source: usize,
    },
    Quarantined(QuarantineRecord),
}

/// The pieces of an input, in order: see [`Input::pieces`].
pub(crate) struct Pieces {
    /// `None` once all were read.
    records: Option<QuarantineReader>,
    images: usize,
    /// The next image of the source.
    next: usize,
    num_quarantined: usize,
    /// What comes next.
    held: Option<QuarantineRecord>,
}

impl Iterator for Pieces {
    type Item = Result<Piece, CacheError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(record) = self.held.take() {
            self.next = record.index + 1;
            self.num_quarantined += 1;
            return Some(Ok(Piece::Quarantined(record)));
        }
        let end = match self.records.as_mut()?.next() {
            Some(Ok(record)) => self.held.insert(record).index,
            Some(Err(error)) => return Some(Err(error)),
            None => {
                self.records = None;
                self.images
            }
        };
        let (source, before) = (self.next, self.num_quarantined);
        Some(Ok(Piece::Encoded { images: source - before..end - before, source }))
    }
}

/// Whether the same images of two inputs are without rows.
pub(super) fn same_quarantine(a: &Input, b: &Input) -> Result<bool, CacheError> {
    let (mut a, mut b) = (a.quarantined()?, b.quarantined()?);
    loop {
        match (a.next().transpose()?, b.next().transpose()?) {
            (None, None) => return Ok(true),
            (Some(a), Some(b)) if a.index == b.index => {}
            _ => return Ok(false),
        }
    }
}
