//! Is a cache right, and can it be made so: `cache check` and `cache repair`. Both encode images anew.

use crate::args::{Global, MadeOfArgs};
use crate::commands::{ingest, model};
use crate::exit::{CheckFailed, Usage};
use crate::terminal::print_json;
use anyhow::Context;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use tokengrid_cache::{
    CacheError, CheckReport, CheckedImage, CheckedView, Encoded, Manifest, QuarantineRecord, TokenCache, check_job,
};
use tokengrid_ingest::{BadPolicy, Limits, Recipe, Source, SourceOptions};
use tokengrid_tokenize::{EncodedImage, Job, TokenizeError};

/// Views an encoder call on a GPU.
const BATCH_SIZE: usize = 16;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

pub fn check(dir: &Path, made_of: &MadeOfArgs, sample: u32, seed: u64, global: &Global) -> anyhow::Result<()> {
    let cache = TokenCache::open(dir)?;
    with_job(cache.manifest(), dir, made_of, global, |job| {
        let difference = check_job(&cache, &job.spec()?).err().map(|error| match error {
            CacheError::JobDiffers { field, found, wanted, .. } => {
                format!("{field} is {found} in the cache, {wanted} by this source and tokenizer")
            }
            other => other.to_string(),
        });
        let mut encode = |images: &[usize]| {
            let mut checked = Vec::with_capacity(images.len());
            job.encode_images(images, &mut |image| {
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
    let manifest = manifest_of(dir)?;
    with_job(&manifest, dir, made_of, global, |job| {
        let spec = job.spec()?;
        let report = tokengrid_cache::repair(dir, Some(&spec), &mut |images, deliver| {
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

/// The manifest, as far as it can be read; a damaged one is made again from the shards first.
fn manifest_of(dir: &Path) -> anyhow::Result<Manifest> {
    Manifest::read(dir).or_else(|error| {
        let no_images = &mut |_: &[usize], _: &mut tokengrid_cache::Deliver<'_>| Err::<(), AnyError>("not now".into());
        // Fails where shards are damaged, too; the manifest comes first.
        let _ = tokengrid_cache::repair(dir, None, no_images);
        Manifest::read(dir).map_err(|_| error.into())
    })
}

/// Runs `work` with the job that made a cache: its recipe from the manifest, source and tokenizer as typed.
fn with_job(
    manifest: &Manifest,
    dir: &Path,
    made_of: &MadeOfArgs,
    global: &Global,
    work: impl FnOnce(&Job) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let text = manifest.recipe.to_string();
    let recipe: Recipe = text.parse().with_context(|| {
        format!("{} does not say how its images were cut: it was not made by `tokenize`", dir.display())
    })?;
    let exclude = ingest::excluded(made_of.preset, &made_of.exclude);
    // A job that took the first images only took so many.
    let limit = Some(manifest.source.images);
    let source = Source::open(&made_of.source, &SourceOptions { exclude, limit, labels: made_of.labels.clone() })?;
    if source.len() < manifest.source.images {
        let (has, had) = (source.len(), manifest.source.images);
        let text = format!(
            "--source {}: it has {has} images, the cache was made of {had}; give the same source, and the --exclude, \
             --preset and --labels that were used",
            made_of.source.display()
        );
        return Err(Usage(text).into());
    }
    let runtime = model::runtime(&made_of.device, global)?;
    let (tokenizer, info) = model::tokenizer(&made_of.tokenizer, &runtime)?;
    let job = Job {
        source: Arc::new(source),
        recipe,
        first_view: manifest.first_view,
        tokenizer: &tokenizer,
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
