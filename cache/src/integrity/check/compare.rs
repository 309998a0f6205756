//! A sample of the images of a cache, encoded again and compared.

use crate::error::CacheError;
use crate::format::grid::GridSpec;
use crate::format::job::JobSpec;
use crate::format::quarantine::QuarantineReader;
use crate::format::row::RowMeta;
use crate::integrity::check::agreement::Agreement;
use crate::integrity::check::report::{CheckReport, CheckedImage, CheckedView, Disagreement, Mismatch};
use crate::permutation::{Permutation, derive_key};
use crate::read::cache::TokenCache;

/// What the key of the sample's permutation is derived for.
const SAMPLE: u64 = 3;

/// Disagreements that a report lists.
const LISTED: usize = 20;

/// Encodes images again: called with their numbers in the source, in the order in which they are to be returned.
pub type EncodeSample<'a> =
    dyn FnMut(&[usize]) -> Result<Vec<CheckedImage>, Box<dyn std::error::Error + Send + Sync>> + 'a;

/// Encodes `sample` images of a cache again (all of them, if it has fewer), chosen by `seed`, and compares keys, labels,
/// crops and tokens. A bit may differ only where `encode` says that its value lay within the margin.
///
/// # Errors
/// [`CacheError::Encoder`] with what `encode` returned; [`CacheError::NotEncoded`] when it returned too few images;
/// as [`TokenCache::meta`]. Disagreement is not an error: it is in the report.
///
/// ```
/// use tokengrid_cache::{CheckedImage, CheckedView, TokenCache, check, write_synthetic_cache};
/// # fn main() -> Result<(), tokengrid_cache::CacheError> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let dir = &folder.path().join("cache");
/// write_synthetic_cache(dir, 50, 1)?;
/// let cache = TokenCache::open(dir)?;
/// let report = check(&cache, 10, 1, &mut |images| {
///     // A tokenizer would encode these images of the source; here they come from the cache itself.
///     images.iter().map(|image| {
///         let meta = cache.meta(*image)?;
///         let mut tokens = vec![0; cache.grid().num_tokens()];
///         cache.tokens_into(*image, &mut tokens);
///         let view = CheckedView { tokens, uncertain: vec![], crop_x: 0, crop_y: 0, flip: false };
///         Ok(CheckedImage { key: meta.key, label: meta.label, views: vec![view] })
///     }).collect()
/// })?;
/// assert!(report.is_ok());
/// # Ok(()) }
/// ```
pub fn check(
    cache: &TokenCache,
    sample: usize,
    seed: u64,
    encode: &mut EncodeSample<'_>,
) -> Result<CheckReport, CacheError> {
    let images = sample_images(cache, sample, seed);
    let numbers = source_numbers(cache, &images)?;
    let encoded = encode(&numbers).map_err(|source| CacheError::Encoder { source })?;
    if encoded.len() != images.len() {
        let image = numbers.get(encoded.len()).copied().unwrap_or_default();
        return Err(CacheError::NotEncoded { image });
    }
    let mut comparison = Comparison {
        cache,
        grid: cache.grid(),
        report: CheckReport::default(),
        agreement: Agreement::new(cache.grid()),
    };
    let mut labels = Vec::new();
    for (image, encoded) in images.iter().zip(&encoded) {
        let metas = cache.metas(cache.image_rows(*image))?;
        labels.push((metas[0].label, encoded.label));
        comparison.image(*image, &metas, encoded);
    }
    Ok(comparison.finish(&labels))
}

/// The numbers of the sampled images in the cache, ascending.
fn sample_images(cache: &TokenCache, sample: usize, seed: u64) -> Vec<usize> {
    let total = cache.num_images();
    if total == 0 {
        return Vec::new();
    }
    let order = Permutation::new(derive_key(seed, SAMPLE, 0), total as u64);
    let mut images: Vec<_> = (0..sample.min(total) as u64).map(|place| order.apply(place) as usize).collect();
    images.sort_unstable();
    images
}

/// Their numbers in the source, in which images in quarantine count too.
fn source_numbers(cache: &TokenCache, images: &[usize]) -> Result<Vec<usize>, CacheError> {
    let mut records = QuarantineReader::open(cache.local_dir(), cache.manifest())?;
    let mut next = records.next().transpose()?;
    let mut skipped = 0;
    let mut numbers = Vec::with_capacity(images.len());
    for image in images {
        while next.as_ref().is_some_and(|record| record.index <= image + skipped) {
            skipped += 1;
            next = records.next().transpose()?;
        }
        numbers.push(image + skipped);
    }
    // Whether the list is the cache's is only known at its end.
    records.try_for_each(|record| record.map(drop))?;
    Ok(numbers)
}

struct Comparison<'a> {
    cache: &'a TokenCache,
    grid: GridSpec,
    report: CheckReport,
    agreement: Agreement,
}

impl Comparison<'_> {
    fn image(&mut self, image: usize, metas: &[RowMeta], encoded: &CheckedImage) {
        self.report.images += 1;
        for (view, (row, meta)) in self.cache.image_rows(image).zip(metas).enumerate() {
            self.report.rows += 1;
            let before = self.report.mismatches.len();
            let mut found = Vec::new();
            let mut note = |kind, what: String| found.push((kind, what));
            if meta.key != encoded.key {
                note(Disagreement::Key, format!("key {} in the source", encoded.key));
            }
            if meta.label != encoded.label {
                note(Disagreement::Label, format!("label {}, in the source {}", meta.label, encoded.label));
            }
            match encoded.views.get(view) {
                None => note(Disagreement::Tokens, format!("view {view} was not encoded")),
                Some(again) => {
                    if (meta.crop_x, meta.crop_y) != (again.crop_x, again.crop_y) {
                        let (there, here) = ((meta.crop_x, meta.crop_y), (again.crop_x, again.crop_y));
                        note(Disagreement::Crop, format!("crop at {there:?}, by the recipe at {here:?}"));
                    }
                    if meta.flip != again.flip {
                        note(Disagreement::Flip, format!("flip {}, by the recipe {}", meta.flip, again.flip));
                    }
                    if let Some((kind, what)) = self.tokens(row, again) {
                        note(kind, what);
                    }
                }
            }
            self.report.rows_wrong += usize::from(!found.is_empty());
            for (kind, what) in found {
                if !self.report.kinds.contains(&kind) {
                    self.report.kinds.push(kind);
                }
                if before < LISTED {
                    self.report.mismatches.push(Mismatch { row, key: meta.key.clone(), kind, what });
                }
            }
        }
    }

    /// Compares a grid.
    fn tokens(&mut self, row: usize, again: &CheckedView) -> Option<(Disagreement, String)> {
        let mut there = vec![0; self.grid.num_tokens()];
        self.cache.tokens_into(row, &mut there);
        if again.tokens.len() != there.len() {
            return Some((Disagreement::Tokens, format!("{} tokens instead of {}", again.tokens.len(), there.len())));
        }
        let uncertain = |i: usize| again.uncertain.get(i).copied().unwrap_or(0);
        let (mut wrong_bits, mut wrong_tokens) = (0, 0);
        for (i, (a, b)) in there.iter().zip(&again.tokens).enumerate() {
            let differing = a ^ b;
            self.report.bits_within_margin += u64::from((differing & uncertain(i)).count_ones());
            let wrong = (differing & !uncertain(i)).count_ones();
            wrong_bits += u64::from(wrong);
            wrong_tokens += u64::from(wrong > 0);
        }
        self.report.tokens += there.len() as u64;
        self.report.bits += there.len() as u64 * u64::from(self.grid.bits);
        self.report.bits_wrong += wrong_bits;
        self.report.tokens_wrong += wrong_tokens;
        if wrong_tokens == 0 {
            return None;
        }
        self.agreement.add(&there, &again.tokens);
        let total = there.len();
        let share = 100.0 * wrong_bits as f64 / (total as f64 * f64::from(self.grid.bits));
        let what = format!("{wrong_tokens} of {total} tokens differ, {share:.2} % of all bits beyond the margin");
        Some((Disagreement::Tokens, what))
    }

    fn finish(mut self, labels: &[(i32, i32)]) -> CheckReport {
        let report = &mut self.report;
        if let Some((kind, how)) = self.agreement.explain() {
            report.kinds.retain(|kind| *kind != Disagreement::Tokens);
            report.kinds.push(kind);
            for mismatch in report.mismatches.iter_mut().filter(|mismatch| mismatch.kind == Disagreement::Tokens) {
                mismatch.kind = kind;
            }
            report.explanation = Some(how);
        }
        report.share_of_bits_wrong = report.bits_wrong as f64 / report.bits.max(1) as f64;
        // One and the same difference everywhere is an offset of the numbering, not a mix-up of images.
        if let Some((there, here)) = labels.first()
            && there != here
            && labels.iter().all(|(a, b)| a - b == there - here)
            && labels.iter().any(|(a, _)| a != there)
        {
            report.kinds.retain(|kind| *kind != Disagreement::Label);
            report.kinds.push(Disagreement::LabelShift);
            let shifted = report.mismatches.iter_mut().filter(|mismatch| mismatch.kind == Disagreement::Label);
            shifted.for_each(|mismatch| mismatch.kind = Disagreement::LabelShift);
        }
        report.kinds.sort_unstable();
        self.report
    }
}

/// The job that a source and tokenizer must have for [`check()`] and [`crate::repair()`] to make sense.
///
/// # Errors
/// [`CacheError::JobDiffers`] naming the first field in which `job` differs from the cache's.
pub fn check_job(cache: &TokenCache, job: &JobSpec) -> Result<(), CacheError> {
    match cache.manifest().identity().first_difference(&job.identity()) {
        None => Ok(()),
        Some((field, found, wanted)) => Err(CacheError::JobDiffers { path: cache.dir().into(), field, found, wanted }),
    }
}
