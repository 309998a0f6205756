//! Is a cache right, and can it be made so: `cache check` and `cache repair`. Both encode images anew.

use crate::args::{Global, MadeOfArgs};
use crate::commands::{ingest, model};
use crate::exit::{CheckFailed, Usage};
use crate::terminal::print_json;
use serde_json::json;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use tokengrid_cache::{
    CacheError, CheckReport, CheckedImage, CheckedView, Encoded, JobSpec, Manifest, QuarantineRecord, RepairReport,
    TokenCache, check_job,
};
use tokengrid_ingest::{BadPolicy, Limits, Recipe, Source, SourceOptions};
use tokengrid_tokenize::{EncodedImage, Job, TokenizeError};

/// Views an encoder call on a GPU.
const BATCH_SIZE: usize = 16;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

pub fn check(dir: &Path, made_of: &MadeOfArgs, sample: u32, seed: u64, global: &Global) -> anyhow::Result<()> {
    let cache = TokenCache::open(dir)?;
    with_job(cache.manifest(), dir, made_of, global, |job| {
        let images = SourceImages::new(&cache, &job.source)?;
        // Where the images lie does not matter, and a part of a cache has fewer of them.
        let spec =
            JobSpec { source: cache.manifest().source.clone(), splits: cache.manifest().splits.clone(), ..job.spec()? };
        let difference = check_job(&cache, &spec).err().map(|error| match error {
            CacheError::JobDiffers { field, found, wanted, .. } => {
                format!("{field} is {found} in the cache, {wanted} by this source and tokenizer")
            }
            other => other.to_string(),
        });
        let mut encode = |numbers: &[usize]| {
            let mut checked = Vec::with_capacity(numbers.len());
            job.encode_images(&images.positions(numbers)?, &mut |image| {
                checked.push(checked_image(&job.source, image));
                Ok(())
            })?;
            Ok::<_, AnyError>(checked)
        };
        let report = tokengrid_cache::check(&cache, sample as usize, seed, &mut encode)?;
        if global.json {
            let mut object = serde_json::to_value(&report)?;
            object["ok"] = json!(report.is_ok() && difference.is_none());
            object["difference"] = json!(difference);
            print_json(&object)?;
        } else {
            print_check(&report, difference.as_deref());
        }
        if report.is_ok() && difference.is_none() {
            return Ok(());
        }
        let what = format!("{} is not what these images give with this tokenizer", dir.display());
        Err(CheckFailed(what).into())
    })
}

/// Which image of the source an image of the cache's job is: of the same number, or, in a part of a cache or a merged one,
/// of the same key.
enum SourceImages<'a> {
    Same,
    ByKey { cache: &'a TokenCache, positions: HashMap<String, usize> },
}

impl<'a> SourceImages<'a> {
    fn new(cache: &'a TokenCache, source: &Source) -> anyhow::Result<SourceImages<'a>> {
        let manifest = cache.manifest();
        if source.len() == manifest.source.images {
            return Ok(SourceImages::Same);
        }
        if manifest.quarantine.images > 0 {
            let (has, had) = (source.len(), manifest.source.images);
            let text = format!(
                "the source has {has} images, the cache was made of {had}; give the same source, and the --exclude, --preset \
                 and --labels that were used"
            );
            return Err(Usage(text).into());
        }
        let positions = (0..source.len()).map(|index| (source.key(index).to_string(), index)).collect();
        Ok(SourceImages::ByKey { cache, positions })
    }

    fn positions(&self, numbers: &[usize]) -> Result<Vec<usize>, AnyError> {
        let SourceImages::ByKey { cache, positions } = self else { return Ok(numbers.to_vec()) };
        // Without images in quarantine, an image's number is its place in the cache.
        let position = |number: &usize| {
            let key = cache.meta(cache.image_rows(*number).start)?.key;
            positions.get(&key).copied().ok_or_else(|| format!("the source has no image `{key}`").into())
        };
        numbers.iter().map(position).collect()
    }
}

fn checked_image(source: &Source, image: EncodedImage) -> CheckedImage {
    let views = image.outcome.unwrap_or_default().into_iter().map(|view| CheckedView {
        tokens: view.tokens,
        uncertain: view.uncertain,
        crop_x: view.crop_x,
        crop_y: view.crop_y,
        flip: view.flip,
    });
    CheckedImage { key: source.key(image.index).to_string(), label: image.label, views: views.collect() }
}

fn print_check(report: &CheckReport, difference: Option<&str>) {
    if let Some(difference) = difference {
        println!("{difference}");
    }
    for mismatch in &report.mismatches {
        println!("row {}  {}: {}", mismatch.row, mismatch.key, mismatch.what);
    }
    if let Some(explanation) = &report.explanation {
        println!("{explanation}");
    }
    let CheckReport { images, rows, rows_wrong, bits, bits_wrong, bits_within_margin, .. } = report;
    println!("{images} images, {rows} rows compared: {rows_wrong} rows disagree");
    println!(
        "{bits_wrong} of {bits} bits are wrong; {bits_within_margin} more differ within 1e-3 of 0, which is no fault"
    );
    if report.is_ok() && difference.is_none() {
        println!("ok: keys, labels, crops and tokens are what the images give");
    }
}

pub fn repair(dir: &Path, made_of: &MadeOfArgs, global: &Global) -> anyhow::Result<()> {
    let (manifest, first) = manifest_of(dir)?;
    with_job(&manifest, dir, made_of, global, |job| {
        if job.source.len() != manifest.source.images {
            let (has, had) = (job.source.len(), manifest.source.images);
            let text = format!(
                "the source has {has} images, the cache was made of {had}; give the same source, and the --exclude, --preset \
                 and --labels that were used (a part of a cache, or a merged one, is made again from its inputs)"
            );
            return Err(Usage(text).into());
        }
        let spec = JobSpec { source: manifest.source.clone(), splits: manifest.splits.clone(), ..job.spec()? };
        let mut report = tokengrid_cache::repair(dir, Some(&spec), &mut |images, deliver| {
            let mut failed = None;
            let encoded = job.encode_images(images, &mut |image| {
                let key = job.source.key(image.index);
                let result = match &image.outcome {
                    Ok(views) => deliver(image.index, Encoded::Rows(&image.rows(key, views))),
                    Err(bad) => deliver(image.index, Encoded::Quarantined(record(key, &image, bad))),
                };
                // Whatever is wrong is the cache's to say; here it only ends the work.
                result.map_err(|error| {
                    failed = Some(error);
                    TokenizeError::Cancelled
                })
            });
            match failed {
                Some(error) => Err(error.into()),
                None => Ok(encoded?),
            }
        })?;
        if let Some(first) = first {
            report.found.splice(0..0, first.found);
            report.manifest_rebuilt |= first.manifest_rebuilt;
            report.quarantine_rebuilt |= first.quarantine_rebuilt;
        }
        if global.json {
            print_json(&report)?;
        } else if report.found.is_empty() {
            println!("{} is whole: nothing to repair", dir.display());
        } else {
            report.found.iter().for_each(|problem| println!("found: {problem}"));
            let (groups, images, shards) = (report.row_groups_encoded, report.images_encoded, report.shards.len());
            println!("{images} images of {groups} row groups encoded anew, {shards} shards restored to the same bytes");
            if report.manifest_rebuilt {
                println!("manifest.json was made again from the shards");
            }
            report.remaining.iter().for_each(|problem| println!("left: {problem}"));
        }
        if report.is_ok() {
            return Ok(());
        }
        Err(CheckFailed(format!("{}: {} problems are left", dir.display(), report.remaining.len())).into())
    })
}

fn record(key: &str, image: &EncodedImage, bad: &tokengrid_ingest::Bad) -> QuarantineRecord {
    let (stage, reason) = (bad.stage.to_string(), bad.reason.clone());
    QuarantineRecord { index: image.index, key: key.to_string(), stage, reason }
}

/// The manifest. A damaged or lost one is made again from the shards first; then there is a report of that.
fn manifest_of(dir: &Path) -> anyhow::Result<(Manifest, Option<RepairReport>)> {
    if let Ok(manifest) = Manifest::read(dir) {
        return Ok((manifest, None));
    }
    let no_images = &mut |_: &[usize], _: &mut tokengrid_cache::Deliver<'_>| Err::<(), AnyError>("not now".into());
    let report = tokengrid_cache::repair(dir, None, no_images)?;
    Ok((Manifest::read(dir)?, Some(report)))
}

/// Runs `work` with the job that made a cache: its recipe from the manifest, source and tokenizer as typed.
pub fn with_job(
    manifest: &Manifest,
    dir: &Path,
    made_of: &MadeOfArgs,
    global: &Global,
    work: impl FnOnce(&Job) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let text = manifest.recipe.to_string();
    let recipe: Recipe = text.parse().map_err(|_| {
        CheckFailed(format!("{} does not say how its images were cut: it was not made by `tokenize`", dir.display()))
    })?;
    let exclude = ingest::excluded(made_of.preset, &made_of.exclude);
    let limit = made_of.limit;
    let options = SourceOptions {
        exclude,
        limit,
        labels: made_of.labels.clone(),
        image_column: made_of.image_column.clone(),
        label_column: made_of.label_column.clone(),
    };
    let source = ingest::open_source(&made_of.source, &options)?;
    let runtime = model::runtime(&made_of.device, global)?;
    let (tokenizer, info) = model::tokenizer(&made_of.tokenizer, &runtime)?;
    let job = Job {
        source: Arc::new(source),
        recipe,
        first_view: manifest.first_view,
        split: None,
        tokenizer: &tokenizer,
        exact: None,
        info,
        runtime,
        batch_size: BATCH_SIZE,
        threads: global.threads.unwrap_or(0).into(),
        rank: 0,
        world_size: 1,
        limits: Limits::default(),
        bad_policy: BadPolicy::unlimited(),
        rows_per_group: tokengrid_cache::DEFAULT_ROWS_PER_GROUP,
        overwrite: false,
    };
    job.grid()?;
    work(&job)
}
