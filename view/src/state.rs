//! What all requests share: the cache, the work that goes on in the background, the pictures.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokengrid_cache::{
    CacheInfo, ClassIndex, FoundRows, Inspection, Manifest, RowFilter, RowMeta, TokenCache, VerifyReport, find_rows,
    inspect, verify,
};

use crate::background::{Background, State};
use crate::config::ViewConfig;
use crate::error::ViewError;
use crate::pictures::{Decoding, SourceImages};
use crate::reply::{Refusal, with_causes};

/// How long a request waits for something that is being opened.
const PATIENCE: Duration = Duration::from_secs(20);

/// Searches that are remembered: somebody who scrolls asks for the same one again and again.
const SEARCHES: usize = 8;

/// Neighbouring rows are read together, also where some of those between them were not asked for.
const SPAN_ROWS: usize = 64;

/// Everything that requests are answered from.
pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) manifest: Manifest,
    pub(crate) info: CacheInfo,
    /// Differs where the pictures may differ: of the cache, and of what decodes it.
    pub(crate) id: String,
    pub(crate) tokenizer: Option<String>,
    pub(crate) cache: Background<TokenCache>,
    pub(crate) inspection: Background<Inspected>,
    pub(crate) health: Background<VerifyReport>,
    pub(crate) source: Option<Background<SourceImages>>,
    decoding: Option<Decoding>,
    index: OnceLock<ClassIndex>,
    searches: Mutex<Vec<(RowFilter, Arc<FoundRows>)>>,
    inspection_folder: Option<PathBuf>,
    threads: Option<usize>,
    cancel: Arc<AtomicBool>,
}

/// An inspection, and the codes in the order of their use.
pub(crate) struct Inspected {
    pub(crate) inspection: Inspection,
    /// Codes that occur, the most frequent one first.
    pub(crate) by_use: Vec<u32>,
}

impl Shared {
    /// Reads the manifest and begins to open the rest.
    pub(crate) fn open(config: ViewConfig) -> Result<Shared, ViewError> {
        let ViewConfig { dir, source, decoder, inspection_folder, threads, .. } = config;
        let failed = |source| ViewError::Cache { path: dir.clone(), source };
        let manifest = Manifest::read(&dir).map_err(failed)?;
        let info = inspect(&dir).map_err(failed)?;
        let cache = Background::default();
        let path = dir.clone();
        cache.start(false, move |_| TokenCache::open(&path).map_err(|error| with_causes(&error)));
        let source = source.map(|open| {
            let (source, manifest) = (Background::default(), manifest.clone());
            source.start(false, move |_| SourceImages::new(open()?, &manifest));
            source
        });
        let (tokenizer, decoding) = match decoder {
            Some((name, decoder)) => (Some(name), Some(Decoding::start(move || decoder))),
            None => (None, None),
        };
        let id = format!("{}{}", &manifest.checksum[..12], tokenizer.as_deref().map_or(0, str::len));
        Ok(Shared {
            dir,
            manifest,
            info,
            id,
            tokenizer,
            cache,
            inspection: Background::default(),
            health: Background::default(),
            source,
            decoding,
            index: OnceLock::new(),
            searches: Mutex::default(),
            inspection_folder,
            threads,
            cancel: Arc::default(),
        })
    }

    /// Ends all that goes on, and waits for it, but for reads that leave nothing behind.
    pub(crate) fn end(&self) {
        self.cancel.store(true, Ordering::SeqCst);
        self.inspection.join();
        if let Some(decoding) = &self.decoding {
            decoding.end();
        }
    }

    /// The cache, opened.
    pub(crate) fn cache(&self) -> Result<Arc<TokenCache>, Refusal> {
        match self.cache.wait(PATIENCE) {
            State::Done(cache) => Ok(cache),
            State::Failed(why) => Err(Refusal::Unavailable(why)),
            State::Idle | State::Running { .. } => Err(Refusal::Unavailable("the cache is still being opened".into())),
        }
    }

    /// The source, opened.
    pub(crate) fn source(&self) -> Result<Arc<SourceImages>, Refusal> {
        let none = || Refusal::Missing("there are no originals: start with --source SOURCE".into());
        match self.source.as_ref().ok_or_else(none)?.wait(PATIENCE) {
            State::Done(source) => Ok(source),
            State::Failed(why) => Err(Refusal::Unavailable(why)),
            State::Idle | State::Running { .. } => Err(Refusal::Unavailable("the source is still being read".into())),
        }
    }

    /// The decoder.
    pub(crate) fn decoding(&self) -> Result<&Decoding, Refusal> {
        let none = || Refusal::Missing("pictures need a tokenizer: start with --tokenizer WEIGHTS".into());
        self.decoding.as_ref().ok_or_else(none)
    }

    /// Begins to count, where that was not done, and says how far it is.
    pub(crate) fn inspected(self: &Arc<Self>) -> Result<State<Inspected>, Refusal> {
        let cache = self.cache()?;
        let shared = Arc::clone(self);
        self.inspection.start(false, move |progress| {
            let (folder, threads) = (shared.inspection_folder.as_deref(), shared.threads);
            let found = Inspection::load_or_compute(&cache, folder, threads, &shared.cancel, progress);
            found.map(Inspected::new).map_err(|error| with_causes(&error))
        });
        Ok(self.inspection.state())
    }

    /// The counts; where they are not there yet, says so.
    pub(crate) fn counted(self: &Arc<Self>) -> Result<Arc<Inspected>, Refusal> {
        match self.inspected()? {
            State::Done(inspected) => Ok(inspected),
            State::Failed(why) => Err(Refusal::Unavailable(why)),
            State::Idle | State::Running { .. } => {
                Err(Refusal::Unavailable("the rows are being counted: /api/statistics tells how far that is".into()))
            }
        }
    }

    /// Begins to verify every byte.
    pub(crate) fn verify(&self) {
        let (dir, cancel) = (self.dir.clone(), Arc::clone(&self.cancel));
        self.health.start(true, move |progress| {
            let mut report = |done, total| {
                if !cancel.load(Ordering::Relaxed) {
                    progress(done, total);
                }
            };
            verify(&dir, &mut report).map_err(|error| with_causes(&error))
        });
    }

    /// The rows that a filter lets through; remembered for the next request.
    pub(crate) fn find(&self, cache: &TokenCache, filter: &RowFilter) -> Result<Arc<FoundRows>, Refusal> {
        let searches = || self.searches.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((_, found)) = searches().iter().find(|(known, _)| known == filter) {
            return Ok(Arc::clone(found));
        }
        let found = Arc::new(find_rows(cache, self.index(cache), filter, &self.cancel)?);
        let mut searches = searches();
        searches.truncate(SEARCHES - 1);
        searches.insert(0, (filter.clone(), Arc::clone(&found)));
        Ok(found)
    }

    pub(crate) fn index(&self, cache: &TokenCache) -> &ClassIndex {
        self.index.get_or_init(|| ClassIndex::of(cache))
    }

    /// The name of a class.
    pub(crate) fn class_name(&self, label: i32) -> Option<&str> {
        self.manifest.classes.get(usize::try_from(label).ok()?).map(String::as_str)
    }
}

impl Inspected {
    fn new(inspection: Inspection) -> Inspected {
        let counts = &inspection.code_counts;
        let mut by_use: Vec<u32> =
            (0u32..).zip(counts).filter(|(_, count)| **count > 0).map(|(code, _)| code).collect();
        by_use.sort_by_key(|code| std::cmp::Reverse(counts[*code as usize]));
        Inspected { inspection, by_use }
    }
}

/// What is known of rows, in ascending order: those that lie near each other are read together.
pub(crate) fn metas(cache: &TokenCache, rows: &[usize]) -> Result<Vec<RowMeta>, Refusal> {
    let mut metas = Vec::with_capacity(rows.len());
    for span in rows.chunk_by(|a, b| b.saturating_sub(*a) <= SPAN_ROWS && b > a) {
        let start = span[0];
        let read = cache.metas(start..span[span.len() - 1] + 1)?;
        metas.extend(span.iter().map(|row| read[row - start].clone()));
    }
    Ok(metas)
}

/// The tokens of a row.
pub(crate) fn tokens(cache: &TokenCache, row: usize) -> Vec<u32> {
    let mut tokens = vec![0; cache.grid().num_tokens()];
    cache.tokens_into(row, &mut tokens);
    tokens
}
