//! What all requests share: the cache, the work that goes on in the background, the pictures.

use crate::background::{Background, State};
use crate::beside::BesideCache;
use crate::config::ViewConfig;
use crate::error::ViewError;
use crate::lock::lock;
use crate::log::Log;
use crate::pictures::{Decoding, SourceImages};
use crate::remembered::Remembered;
use crate::reply::{Refusal, with_causes};
use crate::search::{By, Found, Listed, Order, Wanted};
use crate::shards::Shards;
use crate::text::printable;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokengrid_cache::{
    CacheInfo, ClassIndex, ClassNames, Finished, FoundRows, Inspection, Manifest, NearRow, RowFilter, RowMeta,
    ShardEntry, Survey, TokenCache, VerifyReport, find_rows, inspect, near_rows, rows_with_code, verify,
};
use tokengrid_ingest::trim_heaps;

/// How long a request waits for something that is being opened.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Searches that are remembered, and the memory of their lists of images.
const SEARCHES: usize = 8;
const SEARCH_BYTES: usize = 32 << 20;

/// Lists of rows that are remembered, four bytes per row each, and the memory of all of them.
const LISTS: usize = 2;
const LIST_BYTES: usize = 32 << 20;

/// Margins that are near 0: up to 1e-3.
const NEAR_ZERO: usize = 4;

/// Rows that are named as similar to one.
const SIMILAR_ROWS: usize = 500;

/// Neighbouring rows are read together, also where some of those between them were not asked for.
const SPAN_ROWS: usize = 64;

/// Everything that requests are answered from.
pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) manifest: Manifest,
    pub(crate) info: CacheInfo,
    /// Differs where pictures may differ: of the cache, of the weights that decode it, and with every start, since the
    /// decoder may have run on another device before, shards may have been repaired, and the source may have changed.
    pub(crate) id: String,
    pub(crate) tokenizer: Option<String>,
    /// The second cache.
    pub(crate) beside: Option<BesideCache>,
    /// What classes are called, where that is known.
    pub(crate) class_names: ClassNames,
    pub(crate) shards: Shards,
    pub(crate) cache: Arc<Background<TokenCache>>,
    pub(crate) inspection: Background<Inspected>,
    pub(crate) survey: Background<Survey>,
    pub(crate) health: Background<VerifyReport>,
    pub(crate) source: Option<Background<SourceImages>>,
    decoding: Option<Decoding>,
    /// Made where no index of keys and labels lies beside the cache.
    index: OnceLock<ClassIndex>,
    /// One more than the largest label that an image has.
    labels_end: OnceLock<usize>,
    searches: Remembered<RowFilter, Arc<FoundRows>>,
    lists: Remembered<Wanted, Found>,
    similar: Remembered<usize, Arc<Vec<NearRow>>>,
    /// Where caches of selections are written, where that was allowed.
    pub(crate) export_dir: Option<PathBuf>,
    /// The cache of a selection that is being written, or was written last.
    pub(crate) subset: Background<Subset>,
    /// Held by work that reads all rows.
    alone: Mutex<()>,
    logged: Mutex<Log>,
    inspection_folder: Option<PathBuf>,
    threads: Option<usize>,
    cancel: Arc<AtomicBool>,
}

/// A cache of a selection.
pub(crate) struct Subset {
    pub(crate) dir: PathBuf,
    pub(crate) finished: Finished,
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
        let ViewConfig { dir, source, decoder, inspection_folder, threads, class_names, export_dir, beside, .. } =
            config;
        let failed = |source| ViewError::Cache { path: dir.clone(), source };
        let manifest = Manifest::read(&dir).map_err(failed)?;
        let info = inspect(&dir).map_err(failed)?;
        let cache = Arc::new(Background::default());
        let path = dir.clone();
        cache.start(false, move |_| {
            let opened = TokenCache::open(&path).map_err(|error| with_causes(&error));
            opened.inspect_err(|error| tracing::error!("the cache cannot be opened: {}", printable(error, 1000)))
        });
        let source = source.map(|open| {
            let (source, manifest, cache) = (Background::default(), manifest.clone(), Arc::clone(&cache));
            let dir = dir.clone();
            source.start(false, move |_| {
                let opened = open().and_then(|sources| SourceImages::new(sources, &manifest, &dir));
                let images = opened
                    .inspect_err(|error| tracing::error!("there are no originals: {}", printable(error, 1000)))?;
                if let State::Done(cache) = cache.wait(Duration::MAX) {
                    images.compare_keys(&cache);
                }
                Ok(images)
            });
            source
        });
        let weights = decoder.as_ref().map_or("none", |decoder| &decoder.fingerprint);
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let id = format!("{}-{weights}-{:x}", &manifest.checksum[..16], started.as_nanos());
        let (tokenizer, decoding) = match decoder {
            Some(decoder) => (Some(decoder.name), Some(Decoding::start(move || decoder.decode))),
            None => (None, None),
        };
        let cancel: Arc<AtomicBool> = Arc::default();
        let open = |beside| BesideCache::open(beside, inspection_folder.clone(), threads, Arc::clone(&cancel));
        let beside = beside.map(open).transpose()?;
        let kept = || ClassNames::load(&dir, &manifest.classes).unwrap_or_default();
        let class_names = class_names.unwrap_or_else(kept);
        Ok(Shared {
            shards: Shards::new(&manifest),
            dir,
            manifest,
            info,
            id,
            tokenizer,
            beside,
            class_names,
            cache,
            inspection: Background::default(),
            survey: Background::default(),
            health: Background::default(),
            source,
            decoding,
            index: OnceLock::new(),
            labels_end: OnceLock::new(),
            searches: Remembered::new(SEARCHES, SEARCH_BYTES),
            lists: Remembered::new(LISTS, LIST_BYTES),
            similar: Remembered::new(SEARCHES, usize::MAX),
            export_dir,
            subset: Background::default(),
            alone: Mutex::default(),
            logged: Mutex::default(),
            inspection_folder,
            threads,
            cancel,
        })
    }

    /// Ends all that goes on, and waits for it, but for reads that leave nothing behind.
    pub(crate) fn end(&self) {
        self.cancel.store(true, Ordering::SeqCst);
        self.inspection.join();
        self.survey.join();
        self.subset.join();
        if let Some(beside) = &self.beside {
            beside.end();
        }
        if let Some(decoding) = &self.decoding {
            decoding.end();
        }
    }

    /// The cache, opened.
    pub(crate) fn cache(&self) -> Result<Arc<TokenCache>, Refusal> {
        match self.cache.wait(PATIENCE) {
            State::Done(cache) => Ok(cache),
            State::Failed(why) => Err(Refusal::Unavailable(why)),
            State::Idle | State::Running { .. } => Err(Refusal::NotYet("the cache is still being opened".into())),
        }
    }

    /// The source, opened.
    pub(crate) fn source(&self) -> Result<Arc<SourceImages>, Refusal> {
        let none = || Refusal::Missing("there are no originals: start with --source SOURCE".into());
        match self.source.as_ref().ok_or_else(none)?.wait(PATIENCE) {
            State::Done(source) => Ok(source),
            State::Failed(why) => Err(Refusal::Unavailable(why)),
            State::Idle | State::Running { .. } => Err(Refusal::NotYet("the source is still being read".into())),
        }
    }

    /// The decoder.
    pub(crate) fn decoding(&self) -> Result<&Decoding, Refusal> {
        let none = || Refusal::Missing("pictures need a tokenizer: start with --tokenizer WEIGHTS".into());
        self.decoding.as_ref().ok_or_else(none)
    }

    /// Begins to count, where that was not done. After a failure, begins again.
    pub(crate) fn count(self: &Arc<Self>) -> Result<(), Refusal> {
        let cache = self.cache()?;
        let shared = Arc::clone(self);
        let is_again = matches!(self.inspection.state(), State::Failed(_));
        self.inspection.start(is_again, move |progress| {
            shared.shards.check_all_lengths(&cache).map_err(|refusal| refusal.text().to_owned())?;
            let (folder, threads) = (shared.inspection_folder.as_deref(), shared.threads);
            let count = || Inspection::load_or_compute(&cache, folder, threads, &shared.cancel, progress);
            let found = shared.alone(&cache, count);
            // What was read of a lost shard looks altered: that is not what happened to it.
            shared.shards.check_all_lost(&cache).map_err(|refusal| refusal.text().to_owned())?;
            Ok(Inspected::new(found.map_err(|error| with_causes(&error))?))
        });
        Ok(())
    }

    /// The counts; refused with the reason while there are none.
    pub(crate) fn counted(&self) -> Result<Arc<Inspected>, Refusal> {
        let not_yet = |text: &str| Err(Refusal::NotYet(text.to_owned()));
        match self.inspection.state() {
            State::Done(inspected) => Ok(inspected),
            State::Failed(why) => Err(Refusal::Unavailable(why)),
            State::Running { .. } => not_yet("the rows are being counted: GET /api/statistics has the progress"),
            State::Idle => not_yet("the rows were not counted yet: POST /api/statistics begins to"),
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

    /// The rows that are wanted; what was found is remembered for the next request. `is_unwanted` ends the search.
    pub(crate) fn find(&self, wanted: &Wanted, is_unwanted: &AtomicBool) -> Result<Found, Refusal> {
        if let Some(found) = self.lists.get(wanted) {
            return Ok(found);
        }
        let cache = self.cache()?;
        let rows = self.find_rows(&cache, &wanted.filter, is_unwanted)?;
        let found = Found::of(rows, wanted.split.as_deref(), &cache).ok_or_else(|| {
            let names: Vec<&str> = self.manifest.splits.iter().map(|split| split.name.as_str()).collect();
            let there_are = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            let split = printable(wanted.split.as_deref().unwrap_or_default(), 64);
            Refusal::Bad(format!("`split` is `{split}`; the cache's splits: {}", printable(&there_are, 500)))
        })?;
        if wanted.listed.is_empty() {
            return Ok(found);
        }
        self.lists.make_room(found.len() * size_of::<u32>());
        let found = self.listed(&cache, found, &wanted.listed, is_unwanted)?;
        self.lists.insert(wanted.clone(), found.clone(), found.bytes());
        Ok(found)
    }

    /// Those of the rows in `found` that have what it takes a list to find.
    fn listed(
        &self,
        cache: &TokenCache,
        mut found: Found,
        Listed { labels, code, rows, order }: &Listed,
        is_unwanted: &AtomicBool,
    ) -> Result<Found, Refusal> {
        if let Some(rows) = rows {
            found = found.among(rows);
        }
        if let Some(labels) = labels {
            found = found.filtered(|row| labels.binary_search(&cache.label(row)).is_ok());
        }
        if let Some(code) = code {
            self.shards.check_all_lengths(cache)?;
            let with_code = rows_with_code(cache, *code, is_unwanted);
            self.shards.check_all_lost(cache)?;
            let with_code = with_code?;
            found = found.among_sorted(with_code);
        }
        match order {
            Some(order) => self.ordered(found, *order),
            None => Ok(found),
        }
    }

    fn ordered(&self, found: Found, Order { by, is_descending }: Order) -> Result<Found, Refusal> {
        Ok(match by {
            By::Row if is_descending => found.reversed(),
            By::Row => found,
            By::Margin => {
                let ranks = self.shards_by_margin();
                found.ordered(|row| ranks[self.shards.place(row).shard], is_descending)
            }
            By::Entropy => {
                let survey = self.surveyed()?;
                found.ordered(|row| survey.entropy[row], is_descending)
            }
            By::Distance => {
                let survey = self.surveyed()?;
                found.ordered(|row| survey.class_distance[row], is_descending)
            }
        })
    }

    /// For each shard its share of bits near 0, in steps from 0 to 65535 of the largest one; 0 where nobody counted them.
    fn shards_by_margin(&self) -> Vec<u16> {
        let share = |shard: &ShardEntry| {
            let counts = &shard.margins.counts;
            let (near, all): (u64, u64) = (counts[..NEAR_ZERO].iter().sum(), counts.iter().sum());
            near as f64 / all.max(1) as f64
        };
        let shares: Vec<f64> = self.manifest.shards.iter().map(share).collect();
        let most = shares.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        shares.iter().map(|share| (share / most * f64::from(u16::MAX)).round() as u16).collect()
    }

    /// Begins to survey the rows, where that was not done. After a failure, begins again.
    pub(crate) fn survey(self: &Arc<Self>) -> Result<(), Refusal> {
        let cache = self.cache()?;
        let shared = Arc::clone(self);
        let is_again = matches!(self.survey.state(), State::Failed(_));
        self.survey.start(is_again, move |progress| {
            shared.shards.check_all_lengths(&cache).map_err(|refusal| refusal.text().to_owned())?;
            let (folder, threads) = (shared.inspection_folder.as_deref(), shared.threads);
            let survey = || Survey::load_or_compute(&cache, folder, threads, &shared.cancel, progress);
            let found = shared.alone(&cache, survey);
            shared.shards.check_all_lost(&cache).map_err(|refusal| refusal.text().to_owned())?;
            found.map_err(|error| with_causes(&error))
        });
        Ok(())
    }

    /// The survey; where it is not there yet, says so.
    pub(crate) fn surveyed(&self) -> Result<Arc<Survey>, Refusal> {
        let not_yet = |text: &str| Err(Refusal::NotYet(text.to_owned()));
        match self.survey.state() {
            State::Done(survey) => Ok(survey),
            State::Failed(why) => Err(Refusal::Unavailable(why)),
            State::Running { .. } => not_yet("the rows are being surveyed: GET /api/map tells how far that is"),
            State::Idle => not_yet("the rows were not surveyed yet: POST /api/map begins to"),
        }
    }

    fn find_rows(
        &self,
        cache: &TokenCache,
        filter: &RowFilter,
        is_unwanted: &AtomicBool,
    ) -> Result<Arc<FoundRows>, Refusal> {
        if let Some(found) = self.searches.get(filter) {
            return Ok(found);
        }
        if filter.key.is_some() {
            self.shards.check_all_lengths(cache)?;
        }
        let found = match cache.find_in_index(filter, is_unwanted) {
            Ok(None) => find_rows(cache, self.index(cache), filter, is_unwanted),
            Ok(Some(found)) => Ok(found),
            Err(error) => Err(error),
        };
        if filter.key.is_some() {
            self.shards.check_all_lost(cache)?;
        }
        let found = Arc::new(found?);
        let has_list = filter.key.is_some() || filter.label.is_some();
        let bytes = if has_list { found.len() * size_of::<u32>() } else { 0 };
        self.searches.insert(filter.clone(), Arc::clone(&found), bytes);
        Ok(found)
    }

    /// The rows that are nearest to a row, the nearest first, without the row itself.
    pub(crate) fn similar(&self, row: usize) -> Result<Arc<Vec<NearRow>>, Refusal> {
        if let Some(found) = self.similar.get(&row) {
            return Ok(found);
        }
        let cache = self.cache()?;
        self.shards.check_all_lengths(&cache)?;
        let query = cache.packed_row(row).to_vec();
        let found = near_rows(&cache, &[&query], u32::MAX, SIMILAR_ROWS + 1, self.threads, &mut |_, _| {});
        self.shards.check_all_lost(&cache)?;
        let mut found = found?.rows;
        found.retain(|near| near.row != row);
        // There may be more rows of the same grid than are named, so that the row itself is not among them.
        found.truncate(SIMILAR_ROWS);
        let found = Arc::new(found);
        self.similar.insert(row, Arc::clone(&found), 0);
        Ok(found)
    }

    /// What is known of rows, in ascending order: those that lie near each other are read together.
    pub(crate) fn metas(&self, rows: &[usize]) -> Result<Vec<RowMeta>, Refusal> {
        let cache = self.cache()?;
        let mut metas = Vec::with_capacity(rows.len());
        for span in rows.chunk_by(|a, b| b.saturating_sub(*a) <= SPAN_ROWS && b > a) {
            self.shards.check_lengths_of(&cache, span)?;
            let start = span[0];
            let read = cache.metas(start..span[span.len() - 1] + 1);
            // What was read of a lost shard looks altered: that is not what happened to it.
            self.shards.check_lost(&cache, span)?;
            let read = read?;
            metas.extend(span.iter().map(|row| read[row - start].clone()));
        }
        Ok(metas)
    }

    /// What is known of one row.
    pub(crate) fn meta(&self, row: usize) -> Result<RowMeta, Refusal> {
        let none = || Refusal::Missing(format!("row {row} does not exist"));
        self.metas(&[row])?.pop().ok_or_else(none)
    }

    /// The tokens of a row.
    pub(crate) fn tokens(&self, row: usize) -> Result<Vec<u32>, Refusal> {
        let cache = self.cache()?;
        self.shards.check_lengths_of(&cache, &[row])?;
        let mut tokens = vec![0; cache.grid().num_tokens()];
        cache.tokens_into(row, &mut tokens);
        self.shards.check_lost(&cache, &[row])?;
        Ok(tokens)
    }

    /// What the last check of every byte found, where there was one.
    pub(crate) fn last_report(&self) -> Option<Arc<VerifyReport>> {
        match self.health.state() {
            State::Done(report) => Some(report),
            _ => None,
        }
    }

    /// Says something in the terminal, once, with the path of the first request that it was about.
    pub(crate) fn log_once(&self, text: &str, path: &str) {
        let lines = lock(&self.logged).lines(&printable(text, 1000), &printable(path, 100), Instant::now());
        lines.iter().for_each(|line| tracing::warn!("{line}"));
    }

    fn index(&self, cache: &TokenCache) -> &ClassIndex {
        self.index.get_or_init(|| ClassIndex::of(cache))
    }

    /// How many classes there are: those of the list, and labels without a name that images have.
    pub(crate) fn num_classes(&self, cache: &TokenCache) -> usize {
        let end = || (0..cache.num_images()).map(|image| cache.image_label(image) + 1).max().unwrap_or(0) as usize;
        self.manifest.classes.len().max(*self.labels_end.get_or_init(end))
    }

    /// The rows of a class.
    pub(crate) fn rows_of_class(&self, label: i32) -> Result<Arc<FoundRows>, Refusal> {
        let filter = RowFilter { label: Some(label), ..RowFilter::default() };
        self.find_rows(&*self.cache()?, &filter, &AtomicBool::new(false))
    }

    /// Does work that reads all rows and needs memory for it: one at a time, and without what can be found or read again. The
    /// survey is there again when the work is done.
    pub(crate) fn alone<T>(&self, cache: &TokenCache, work: impl FnOnce() -> T) -> T {
        let _alone = lock(&self.alone);
        self.searches.clear();
        self.lists.clear();
        let folder = self.inspection_folder.as_deref();
        let is_forgotten = Survey::is_kept(cache, folder) && self.survey.forget();
        trim_heaps();
        let made = work();
        trim_heaps();
        if is_forgotten && let Some(survey) = Survey::load(cache, folder) {
            self.survey.put_back(survey);
        }
        made
    }

    /// The name of a class, as its folder is called.
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
