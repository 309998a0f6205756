//! The token cache of `sample --cache-out`: labels are the classes, keys the images' names in the run's folder.

use crate::exit::CheckFailed;
use crate::files::check_takes_files;
use anyhow::Context;
use std::path::{Path, PathBuf};
use tokengrid_cache::{CacheWriter, GridSpec, JobSpec, MANIFEST_FILE, OpenMode, Row, TokenCache, TokenizerInfo};
use tokengrid_sample::SampleJob;

/// Folder of an unfinished cache's shards.
const JOB_FILE: &str = ".job.json";

/// The cache to make from a run's tokens.
pub(super) struct TokensToCache {
    dir: PathBuf,
    spec: JobSpec,
    mode: OpenMode,
}

impl TokensToCache {
    /// `classes`: what the cache's classes are called, by index. Checks what can be checked before the first image: afterwards, hours of work would be lost on a wrong name.
    pub(super) fn new(
        job: &SampleJob,
        classes: Vec<String>,
        tokenizer: TokenizerInfo,
        dir: &Path,
        overwrite: bool,
    ) -> anyhow::Result<TokensToCache> {
        if let Some(class) = job.classes.iter().find(|class| **class >= classes.len() as i64 && !classes.is_empty()) {
            let text =
                format!("there are {} class names; class {class} has none, which --cache-out needs", classes.len());
            return Err(CheckFailed(text).into());
        }
        let side = job.model.config.side() as u32;
        let grid = GridSpec { height: side, width: side, bits: job.model.config.bits() };
        let mut spec = JobSpec::new(grid, job.classes.len() * job.per_class, 1);
        spec.tokenizer = tokenizer;
        spec.classes = classes;
        spec.source.kind = "samples".into();
        // Not the folder, which may later hold images of other settings.
        spec.source.location = format!("run {}", job.identity());
        let mode = if overwrite { OpenMode::Overwrite } else { OpenMode::Resume };
        let cache = TokensToCache { dir: dir.into(), spec, mode };
        cache.check_folder(job.world_size)?;
        Ok(cache)
    }

    fn check_folder(&self, world_size: u32) -> anyhow::Result<()> {
        let dir = self.dir.display();
        let above = std::path::absolute(&self.dir)?;
        let existing = above.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        if !existing.is_dir() {
            return Err(CheckFailed(format!("--cache-out {dir}: {} is not a folder", existing.display())).into());
        }
        check_takes_files(existing).with_context(|| format!("cannot write --cache-out {dir}"))?;
        if existing != above || self.mode == OpenMode::Overwrite {
            return Ok(());
        }
        if self.dir.join(MANIFEST_FILE).exists() {
            let cache = TokenCache::open(&self.dir)?;
            let found = cache.manifest();
            if (&found.source, &found.tokenizer) != (&self.spec.source, &self.spec.tokenizer) {
                let text = format!("--cache-out {dir} is a cache of other tokens; give another folder, or --overwrite");
                return Err(CheckFailed(text).into());
            }
            return Ok(());
        }
        // An unfinished cache must be of these tokens. The writer checks that; with several processes it cannot be asked yet.
        if world_size == 1 && self.dir.join(JOB_FILE).exists() {
            CacheWriter::open(&self.dir, self.spec.clone(), self.mode)?;
            return Ok(());
        }
        let is_hidden = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".");
        if let Some(found) = std::fs::read_dir(&self.dir)?.flatten().find(|entry| !is_hidden(&entry.file_name())) {
            let found = found.file_name();
            // An unfinished cache has shards, which the writer checks.
            if !self.dir.join(JOB_FILE).exists() {
                let text =
                    format!("--cache-out {dir} is not empty (it holds {}); give another folder", found.display());
                return Err(CheckFailed(text).into());
            }
        }
        Ok(())
    }

    /// Writes the tokens of a complete run. An existing cache of them stays.
    pub(super) fn write(self, job: &SampleJob, out: &Path) -> anyhow::Result<()> {
        let mut writer = CacheWriter::open(&self.dir, self.spec, self.mode)?;
        let first = writer.next_image();
        for (index, found) in job.tokens(out).enumerate().skip(first) {
            let (image, tokens) = found?;
            let key = format!("{:04}/{:05}", image.class, image.index);
            let label = i32::try_from(image.class)?;
            let row = Row { tokens: &tokens, label, key: &key, view: 0, crop_x: 0, crop_y: 0, flip: false };
            writer.push_image(index, &[row])?;
        }
        writer.finish()?;
        Ok(())
    }
}
