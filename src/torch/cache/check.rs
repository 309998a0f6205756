//! `cache check` encodes a sample of the images again and compares.

use super::by_key::no_image;
use super::origin::{Located, Origin, with_origin};
use crate::args::{Global, MadeOfArgs};
use crate::commands::cache::rows::QUARANTINE_ADVICE;
use crate::exit::{CheckFailed, Usage};
use crate::printable;
use crate::terminal::{counted, print_json};
use serde_json::json;
use std::collections::HashMap;
use std::path::Path;
use tokengrid_cache::{
    CacheError, CheckReport, CheckedImage, CheckedView, QuarantineReader, QuarantineRecord, Split, TokenCache,
    check_job,
};
use tokengrid_tokenize::EncodedImage;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

pub(crate) fn check(dir: &Path, made_of: &MadeOfArgs, sample: u32, seed: u64, global: &Global) -> anyhow::Result<()> {
    let cache = TokenCache::open(dir)?;
    with_origin(cache.manifest(), dir, made_of, global, |origin| {
        let images = SourceImages::new(&cache, origin)?;
        // The location of the images does not matter, and a subset has fewer of them.
        let spec = origin.spec(cache.manifest())?;
        let difference = check_job(&cache, &spec).err().map(|error| match error {
            CacheError::JobDiffers { field, found, wanted, .. } => {
                format!("{field} is {found} in the cache, {wanted} by this source and tokenizer")
            }
            other => other.to_string(),
        });
        let mut undecodable = Vec::new();
        let mut encode = |numbers: &[usize]| {
            let mut checked = Vec::with_capacity(numbers.len());
            origin.encode(&images.locate(numbers)?, &mut |_, key, image| {
                if let Err(bad) = &image.outcome {
                    undecodable.push(json!({ "key": key, "stage": bad.stage.to_string(), "reason": bad.reason }));
                }
                checked.push(checked_image(key, image));
                Ok(())
            })?;
            Ok::<_, AnyError>(checked)
        };
        let report = tokengrid_cache::check(&cache, sample as usize, seed, &mut encode)?;
        if global.json {
            let mut object = serde_json::to_value(&report)?;
            object["ok"] = json!(report.is_ok() && difference.is_none());
            object["difference"] = json!(difference);
            object["undecodable"] = json!(undecodable);
            print_json(&object)?;
        } else {
            for bad in &undecodable {
                let [key, stage, reason] =
                    ["key", "stage", "reason"].map(|name| bad[name].as_str().unwrap_or_default());
                println!("{} cannot be decoded now: {stage}: {}", printable::line(key), printable::line(reason));
            }
            print_check(&report, difference.as_deref());
        }
        if report.is_ok() && difference.is_none() {
            return Ok(());
        }
        let what = format!("{} is not what these images give with this tokenizer", dir.display());
        Err(CheckFailed(what).into())
    })
}

/// Maps images of the cache's job to images of the sources: by number, or, for a subset, by key and split.
enum SourceImages<'a> {
    Same(&'a Origin<'a>),
    ByKey { cache: &'a TokenCache, places: HashMap<(String, String), Located>, quarantined: Vec<usize> },
}

impl<'a> SourceImages<'a> {
    fn new(cache: &'a TokenCache, origin: &'a Origin<'a>) -> anyhow::Result<SourceImages<'a>> {
        let manifest = cache.manifest();
        if origin.is_same {
            return Ok(SourceImages::Same(origin));
        }
        let places: HashMap<_, _> =
            origin.images().map(|(split, key, place)| ((split.to_owned(), key.to_owned()), place)).collect();
        let mut quarantined = Vec::with_capacity(manifest.quarantine.images);
        let mut in_source = Vec::new();
        for record in QuarantineReader::open(cache.local_dir(), manifest)? {
            let record = record?;
            quarantined.push(record.index);
            if places.contains_key(&(Split::name_of(&manifest.splits, record.index).to_owned(), record.key.clone())) {
                in_source.push(record);
            }
        }
        // Nothing can be compared with images that have no rows.
        if !in_source.is_empty() && in_source.len() == places.len() {
            return Err(all_in_quarantine(&in_source).into());
        }
        Ok(SourceImages::ByKey { cache, places, quarantined })
    }

    fn locate(&self, numbers: &[usize]) -> Result<Vec<Located>, AnyError> {
        let place = |number: &usize| match self {
            SourceImages::Same(origin) => origin.locate(*number).ok_or_else(|| "the source has fewer images".into()),
            SourceImages::ByKey { cache, places, quarantined } => {
                // Images in quarantine have numbers and no rows.
                let image = number - quarantined.partition_point(|index| index < number);
                let key = cache.meta(cache.image_rows(image).start)?.key;
                let split = Split::name_of(&cache.manifest().splits, *number);
                let found = places.get(&(split.to_owned(), key.clone())).copied();
                found.ok_or_else(|| AnyError::from(no_image(split, &key)))
            }
        };
        numbers.iter().map(place).collect()
    }
}

/// Every image of the sources is one that could not be decoded when the cache was made.
fn all_in_quarantine(records: &[QuarantineRecord]) -> Usage {
    const LISTED: usize = 5;
    let listed = records.iter().take(LISTED);
    let mut texts: Vec<String> = listed
        .map(|QuarantineRecord { key, stage, reason, .. }| {
            format!("`{}` ({stage}: {})", printable::line(key), printable::line(reason))
        })
        .collect();
    if records.len() > LISTED {
        texts.push(format!("and {} more", records.len() - LISTED));
    }
    Usage(format!(
        "nothing to compare: the cache has no rows of {}, in quarantine since it was made; {QUARANTINE_ADVICE}",
        texts.join(", ")
    ))
}

fn checked_image(key: &str, image: EncodedImage) -> CheckedImage {
    let views = image.outcome.unwrap_or_default().into_iter().map(|view| CheckedView {
        tokens: view.tokens,
        uncertain: view.uncertain,
        crop_x: view.crop_x,
        crop_y: view.crop_y,
        flip: view.flip,
    });
    CheckedImage { key: key.to_owned(), label: image.label, views: views.collect() }
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
    let (images, rows, wrong) = (counted(*images, "image"), counted(*rows, "row"), counted(*rows_wrong, "row"));
    println!("{images}, {rows} compared: {wrong} wrong");
    println!(
        "{bits_wrong} of {bits} bits are wrong; {bits_within_margin} more differ within 1e-3 of 0, which is within the tolerance"
    );
    if report.is_ok() && difference.is_none() {
        println!("ok: keys, labels, crops and tokens are what the images give");
    }
}
