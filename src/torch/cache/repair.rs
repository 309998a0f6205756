//! `cache repair` encodes damaged row groups again.

use super::by_key::ImagesByKey;
use super::origin::{Located, with_origin};
use crate::args::{Global, MadeOfArgs};
use crate::exit::CheckFailed;
use crate::terminal::counted;
use crate::terminal::print_json;
use std::path::Path;
use tokengrid_cache::{Encoded, Manifest, QuarantineRecord, RepairReport};
use tokengrid_tokenize::TokenizeError;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

pub(crate) fn repair(dir: &Path, made_of: &MadeOfArgs, global: &Global) -> anyhow::Result<()> {
    let (manifest, first) = manifest_of(dir)?;
    with_origin(&manifest, dir, made_of, global, |origin| {
        let by_key = if origin.is_same { None } else { Some(ImagesByKey::find(dir, &manifest, origin)?) };
        let locate = |number: usize| match &by_key {
            Some(images) => images.locate(number),
            None => origin.locate(number).ok_or_else(|| format!("the source has no image {number}")),
        };
        let mut spec = origin.spec(&manifest)?;
        // A subset may have only the first views.
        spec.num_views = spec.num_views.min(manifest.views);
        let num_views = spec.num_views as usize;
        let mut report = tokengrid_cache::repair(dir, Some(&spec), &mut |numbers, deliver| {
            let mut failed = None;
            let images: Vec<Located> = numbers.iter().map(|number| locate(*number)).collect::<Result<_, _>>()?;
            let encoded = origin.encode(&images, &mut |place, key, image| {
                let number = numbers[place];
                let result = match &image.outcome {
                    Ok(views) => deliver(number, Encoded::Rows(&image.rows(key, &views[..num_views.min(views.len())]))),
                    Err(bad) => deliver(number, Encoded::Quarantined(record(number, key, bad))),
                };
                // The error is kept and returned below; `Cancelled` only stops the encoding.
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
            let [images, groups, shards] =
                [(images, "image"), (groups, "row group"), (shards, "shard")].map(|(count, what)| counted(count, what));
            println!("{images} of {groups} encoded again, {shards} restored to the same bytes");
            if report.manifest_rebuilt {
                println!("manifest.json was made again from the shards");
            }
            report.remaining.iter().for_each(|problem| println!("left: {problem}"));
        }
        if report.is_ok() {
            return Ok(());
        }
        let left = counted(report.remaining.len(), "problem");
        Err(CheckFailed(format!("{}: {left} left", dir.display())).into())
    })
}

fn record(index: usize, key: &str, bad: &tokengrid_ingest::Bad) -> QuarantineRecord {
    let (stage, reason) = (bad.stage.to_string(), bad.reason.clone());
    QuarantineRecord { index, key: key.to_string(), stage, reason }
}

/// The manifest. A damaged or missing one is rebuilt from the shards first, and the report of that returned.
fn manifest_of(dir: &Path) -> anyhow::Result<(Manifest, Option<RepairReport>)> {
    if let Ok(manifest) = Manifest::read(dir) {
        return Ok((manifest, None));
    }
    let no_images = &mut |_: &[usize], _: &mut tokengrid_cache::Deliver<'_>| Err::<(), AnyError>("not now".into());
    let report = tokengrid_cache::repair(dir, None, no_images)?;
    Ok((Manifest::read(dir)?, Some(report)))
}
