//! `tokenize --add`: what a cache lacks, encoded beside it, merged with it, and put in its place.
//!
//! The cache itself is not touched until the new one is whole. Whenever this is stopped, the same command goes on:
//!
//! ```text
//! CACHE.adding    the missing views or the new split, a job like any other
//! CACHE.merged    the new cache
//! CACHE.before    the old one, between the two renames that exchange them
//! ```

use crate::args::{Global, TokenizeArgs};
use crate::exit::{CheckFailed, Usage};
use crate::terminal::print_json;
use anyhow::Context;
use serde_json::json;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use tokengrid_cache::{
    JobPlan, MANIFEST_FILE, Manifest, MergeInput, OpenMode, QUARANTINE_FILE, TokenCache, inspect, merge, views_extend,
};
use tokengrid_tokenize::Job;

/// Runs the command.
pub fn run(job: Job, args: &TokenizeArgs, global: &Global) -> anyhow::Result<()> {
    let folders = Folders::of(&args.out)?;
    folders.go_on()?;
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
    // What takes the cache's place can be read, or nothing does.
    let rows = TokenCache::open(&folders.merged)?.num_rows();
    folders.exchange()?;
    report(&folders.cache, rows - manifest.rows, global)
}

/// What `--add` would do.
pub struct Plan<'a> {
    /// The job for what the cache lacks.
    pub job: Job<'a>,
    /// Where it writes.
    pub adding: PathBuf,
    /// Size of the new cache, which lies beside the old one and the new parts before they are exchanged.
    pub merged_bytes: u64,
}

/// What would be done, without doing it; `None` if the cache lacks nothing.
pub fn plan<'a>(job: Job<'a>, out: &Path) -> anyhow::Result<Option<Plan<'a>>> {
    let folders = Folders::of(out)?;
    let info = inspect(&folders.cache)?;
    let job = missing(job, &Manifest::read(&folders.cache)?, out)?;
    let bytes_of = |job: &Job| -> anyhow::Result<u64> {
        let keys = (0..job.source.len().min(1000)).map(|index| job.source.key(index));
        Ok(JobPlan::new(&job.spec()?, keys)?.bytes)
    };
    job.map(|job| Ok(Plan { merged_bytes: info.bytes + bytes_of(&job)?, adding: folders.adding, job })).transpose()
}

/// The job for what the cache lacks; `None` if it lacks nothing.
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
                let text = format!("{out} has a split `{name}` of {images} images, the source has {}", job.source.len());
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
            format!("{out} has {has} views an image, which is more than the {} asked for", job.recipe.num_views());
        return Err(Usage(text).into());
    }
    Ok((job.recipe.num_views() > has).then_some(Job { first_view: has, ..job }))
}

pub fn report(cache: &Path, added: usize, global: &Global) -> anyhow::Result<()> {
    let info = inspect(cache)?;
    if global.json {
        return print_json(&json!({
            "rows": info.rows, "images": info.images, "views": info.views, "rows_added": added,
            "content_hash": info.content_hash,
        }));
    }
    let cache = cache.display();
    match added {
        0 => println!("{cache} lacks nothing: {} rows, content hash {}", info.rows, info.content_hash),
        _ => println!("{added} rows added; {cache} has {} rows now, content hash {}", info.rows, info.content_hash),
    }
    Ok(())
}

/// The cache, and what lies beside it while something is added.
struct Folders {
    cache: PathBuf,
    adding: PathBuf,
    merged: PathBuf,
    before: PathBuf,
}

impl Folders {
    fn of(cache: &Path) -> anyhow::Result<Folders> {
        // Through links and dots: the folder itself changes places.
        let cache = fs::canonicalize(cache).or_else(|_| std::path::absolute(cache))?;
        let beside = |ending: &str| {
            let mut path = cache.as_os_str().to_owned();
            path.push(ending);
            PathBuf::from(path)
        };
        let (adding, merged, before) = (beside(".adding"), beside(".merged"), beside(".before"));
        Ok(Folders { cache, adding, merged, before })
    }

    /// Finishes an exchange that was cut short.
    fn go_on(&self) -> anyhow::Result<()> {
        if !self.before.exists() {
            return Ok(());
        }
        if !self.cache.exists() {
            rename(&self.merged, &self.cache)?;
        }
        self.clear()
    }

    /// Puts the merged cache in the old one's place.
    fn exchange(&self) -> anyhow::Result<()> {
        rename(&self.cache, &self.before)?;
        rename(&self.merged, &self.cache)?;
        self.clear()
    }

    /// Removes the parts. What somebody put beside the old cache's files moves to the new one.
    fn clear(&self) -> anyhow::Result<()> {
        for folder in [&self.before, &self.adding].into_iter().filter(|folder| folder.exists()) {
            take_apart(folder, &self.cache).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        Ok(())
    }
}

/// Renames a folder, durably.
fn rename(from: &Path, to: &Path) -> anyhow::Result<()> {
    let sync = || File::open(to.parent().unwrap_or(Path::new("/")))?.sync_all();
    fs::rename(from, to)
        .and_then(|()| sync())
        .with_context(|| format!("cannot move {} to {}", from.display(), to.display()))
}

/// Removes a cache's folder; what is no part of a cache goes to `rest`.
fn take_apart(folder: &Path, rest: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let text = name.to_string_lossy();
        let is_shard = text.starts_with("shard-") && text.ends_with(".parquet");
        if is_shard || text.starts_with('.') || text == MANIFEST_FILE || text == QUARANTINE_FILE {
            fs::remove_file(&path)?;
        } else {
            fs::rename(&path, rest.join(&name))?;
        }
    }
    fs::remove_dir(folder)
}
