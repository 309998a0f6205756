//! `tokenize --add`: encodes what a cache lacks beside it, merges the two and replaces the cache.
//!
//! The cache itself is not changed until the new one is complete. Stopped at any point, the same command continues:
//!
//! ```text
//! CACHE.adding         the missing views or the new split, an ordinary job
//! CACHE.merged         the new cache; after the exchange, the old one
//! CACHE.before         the old cache, if the file system cannot exchange two folders atomically
//! CACHE.adding.json    the caches to exchange, from before the exchange until the old one is removed
//! ```
//!
//! Without the last file, or if it names another cache, nothing is moved or removed.

use super::exchange::Folders;
use crate::args::{Global, TokenizeArgs};
use crate::exit::{CheckFailed, Usage};
use crate::terminal::{counted, print_json};
use serde_json::json;
use std::path::{Path, PathBuf};
use tokengrid_cache::{JobPlan, Manifest, MergeInput, OpenMode, TokenCache, inspect, merge, views_extend};
use tokengrid_tokenize::Job;

/// Runs the command.
pub(super) fn run(job: Job, args: &TokenizeArgs, global: &Global) -> anyhow::Result<()> {
    let folders = Folders::of(&args.out)?;
    folders.finish_exchange()?;
    let manifest = Manifest::read(&folders.cache)?;
    let Some(job) = missing(job, &manifest, &args.out)? else {
        return report(&folders.cache, 0, global);
    };
    let outcome = super::encode(&job, &folders.adding, global)?;
    if !outcome.published {
        println!("rank {} of {} is done; the last one merges", job.rank, job.world_size);
        return Ok(());
    }
    let inputs = [MergeInput::new(&folders.cache), MergeInput::new(&folders.adding)];
    merge(&folders.merged, &inputs, OpenMode::Resume)?;
    // Only a readable cache may replace the old one.
    let rows = TokenCache::open(&folders.merged)?.num_rows();
    folders.exchange()?;
    report(&folders.cache, rows - manifest.rows, global)
}

/// The plan of `--add`.
pub(super) struct Plan<'a> {
    /// The job of the missing images or views.
    pub job: Job<'a>,
    /// Output folder of the job.
    pub adding: PathBuf,
    /// Bytes of the new cache, which needs space beside the old one and the added part until the exchange.
    pub merged_bytes: u64,
}

/// The plan, for a dry run; `None` if the cache lacks nothing.
pub(super) fn plan<'a>(job: Job<'a>, out: &Path) -> anyhow::Result<Option<Plan<'a>>> {
    let folders = Folders::of(out)?;
    let info = inspect(&folders.cache)?;
    let job = missing(job, &Manifest::read(&folders.cache)?, out)?;
    let bytes_of = |job: &Job| -> anyhow::Result<u64> {
        let keys = (0..job.source.len().min(1000)).map(|index| job.source.key(index));
        Ok(JobPlan::new(&job.spec()?, keys)?.bytes)
    };
    job.map(|job| Ok(Plan { merged_bytes: info.bytes + bytes_of(&job)?, adding: folders.adding, job })).transpose()
}

/// The job of the missing images or views; `None` if the cache lacks nothing.
fn missing<'a>(job: Job<'a>, manifest: &Manifest, out: &Path) -> anyhow::Result<Option<Job<'a>>> {
    let out = out.display();
    if let Some(name) = &job.split {
        let split = manifest.splits.iter().find(|split| split.name == *name);
        return match split.map(|split| split.images[1] - split.images[0]) {
            None if manifest.splits.is_empty() => Err(CheckFailed(format!(
                "{out} was made without --split: its images have no name to tell them from `{name}`; tokenize into a new \
                 folder, then `tokengrid cache merge NEW OLDNAME={out} {name}=FOLDER`"
            ))
            .into()),
            None => Ok(Some(job)),
            Some(images) if images == job.source.len() => Ok(None),
            Some(images) => {
                let text = format!("{out} has a split `{name}` of {}, the source has {}", counted(images, "image"), job.source.len());
                Err(CheckFailed(text).into())
            }
        };
    }
    let recipe = job.recipe.to_string().parse::<serde_json::Value>().unwrap_or_default();
    if !views_extend(&manifest.recipe, &recipe) {
        let views = |recipe: &serde_json::Value| recipe["views"].to_string();
        let text = format!(
            "{out} has views {}, which are not the first of {}: what is added must be of the same kind",
            views(&manifest.recipe),
            views(&recipe)
        );
        return Err(Usage(text).into());
    }
    let has = manifest.first_view + manifest.views;
    if job.recipe.num_views() < has {
        let text =
            format!("{out} has {has} views per image, which is more than the {} asked for", job.recipe.num_views());
        return Err(Usage(text).into());
    }
    Ok((job.recipe.num_views() > has).then_some(Job { first_view: has, ..job }))
}

pub(super) fn report(cache: &Path, added: usize, global: &Global) -> anyhow::Result<()> {
    let info = inspect(cache)?;
    if global.json {
        return print_json(&json!({
            "rows": info.rows, "images": info.images, "views": info.views, "rows_added": added,
            "content_hash": info.content_hash,
        }));
    }
    let cache = cache.display();
    match added {
        0 => println!("{cache} lacks nothing: {}, content hash {}", counted(info.rows, "row"), info.content_hash),
        _ => println!(
            "{} added; {cache} has {} now, content hash {}",
            counted(added, "row"),
            counted(info.rows, "row"),
            info.content_hash
        ),
    }
    Ok(())
}
