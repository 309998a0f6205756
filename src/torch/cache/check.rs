//! `cache check` encodes a sample of the images again and compares.

use super::by_key::no_image;
use super::origin::{Located, Origin, with_origin};
use crate::args::{Global, MadeOfArgs};
use crate::exit::{CheckFailed, Usage};
use crate::terminal::print_json;
use serde_json::json;
use std::collections::HashMap;
use std::path::Path;
use tokengrid_cache::{CacheError, CheckReport, CheckedImage, CheckedView, TokenCache, check_job};
use tokengrid_tokenize::EncodedImage;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

pub fn check(dir: &Path, made_of: &MadeOfArgs, sample: u32, seed: u64, global: &Global) -> anyhow::Result<()> {
    let cache = TokenCache::open(dir)?;
    with_origin(cache.manifest(), dir, made_of, global, |origin| {
        let images = SourceImages::new(&cache, origin)?;
        // Where the images lie does not matter, and a part of a cache has fewer of them.
        let spec = origin.spec(cache.manifest())?;
        let difference = check_job(&cache, &spec).err().map(|error| match error {
            CacheError::JobDiffers { field, found, wanted, .. } => {
                format!("{field} is {found} in the cache, {wanted} by this source and tokenizer")
            }
            other => other.to_string(),
        });
        let mut encode = |numbers: &[usize]| {
            let mut checked = Vec::with_capacity(numbers.len());
            origin.encode(&images.locate(numbers)?, &mut |_, key, image| {
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

/// Which image of the sources an image of the cache's job is: of the same number, or, in a part of a cache, of the same key
/// in the same split.
enum SourceImages<'a> {
    Same(&'a Origin<'a>),
    ByKey { cache: &'a TokenCache, places: HashMap<(String, String), Located> },
}

impl<'a> SourceImages<'a> {
    fn new(cache: &'a TokenCache, origin: &'a Origin<'a>) -> anyhow::Result<SourceImages<'a>> {
        let manifest = cache.manifest();
        if origin.is_same {
            return Ok(SourceImages::Same(origin));
        }
        if manifest.quarantine.images > 0 {
            return Err(other_images(origin.num_images(), manifest.source.images).into());
        }
        let places = origin.images().map(|(split, key, place)| ((split.to_owned(), key.to_owned()), place)).collect();
        Ok(SourceImages::ByKey { cache, places })
    }

    fn locate(&self, numbers: &[usize]) -> Result<Vec<Located>, AnyError> {
        let place = |number: &usize| match self {
            SourceImages::Same(origin) => origin.locate(*number).ok_or_else(|| "the source has fewer images".into()),
            // Without images in quarantine, an image's number is its place in the cache.
            SourceImages::ByKey { cache, places } => {
                let key = cache.meta(cache.image_rows(*number).start)?.key;
                let within = |split: &&tokengrid_cache::Split| (split.images[0]..split.images[1]).contains(number);
                let split =
                    cache.manifest().splits.iter().find(within).map_or(String::new(), |split| split.name.clone());
                let found = places.get(&(split.clone(), key.clone())).copied();
                found.ok_or_else(|| AnyError::from(no_image(&split, &key)))
            }
        };
        numbers.iter().map(place).collect()
    }
}

/// The sources are not those that the cache was made of.
fn other_images(has: usize, had: usize) -> Usage {
    Usage(format!(
        "the source has {has} images, the cache was made of {had}; give the same source, and the --exclude, --preset and \
         --labels that were used; for a merged cache, the sources of all parts, in order"
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
    println!("{images} images, {rows} rows compared: {rows_wrong} rows disagree");
    println!(
        "{bits_wrong} of {bits} bits are wrong; {bits_within_margin} more differ within 1e-3 of 0, which is within the tolerance"
    );
    if report.is_ok() && difference.is_none() {
        println!("ok: keys, labels, crops and tokens are what the images give");
    }
}
