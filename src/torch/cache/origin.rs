//! The origin of a cache: the sources given on the command line in place of those it was made from, and the job that encodes
//! their images again.

use crate::args::{DeviceArgs, Global, MadeOfArgs, TokenizerArgs};
use crate::commands::ingest;
use crate::exit::CheckFailed;
use crate::torch::model;
use std::path::Path;
use std::sync::Arc;
use tokengrid_cache::{JobSpec, Manifest, Split, TokenCache, TokenizerInfo};
use tokengrid_ingest::{BadPolicy, Limits, Recipe, RecipeError, Source, SourceOptions};
use tokengrid_model::{Runtime, Tokenizer};
use tokengrid_tokenize::{EncodedImage, Job, TokenizeError};

/// Views per encoder call on a GPU.
const BATCH_SIZE: usize = 16;

/// The sources of a cache, in the order of its images.
pub(super) struct Origin<'a> {
    parts: Vec<Part<'a>>,
    /// Whether every image of the cache has the number that it has in the sources, one after the other.
    pub is_same: bool,
}

/// One source.
struct Part<'a> {
    job: Job<'a>,
    split: String,
    /// The cache's label for each of the source's labels: merged caches have united class lists.
    labels: Option<Vec<i32>>,
}

/// An image of one of the sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Located {
    part: usize,
    index: usize,
}

impl Origin<'_> {
    /// Location of image `number` of the cache's source, if [`Origin::is_same`].
    pub(super) fn locate(&self, number: usize) -> Option<Located> {
        let mut start = 0;
        for (part, Part { job, .. }) in self.parts.iter().enumerate() {
            if number < start + job.source.len() {
                return Some(Located { part, index: number - start });
            }
            start += job.source.len();
        }
        None
    }

    /// Images of all sources.
    pub(super) fn num_images(&self) -> usize {
        self.parts.iter().map(|part| part.job.source.len()).sum()
    }

    /// The split and the key of image `number` of all sources, one after the other; `None` where there is none.
    pub(super) fn image(&self, number: usize) -> Option<(&str, &str)> {
        let Located { part, index } = self.locate(number)?;
        let Part { job, split, .. } = &self.parts[part];
        Some((split, job.source.key(index)))
    }

    /// All images: the split that each belongs to, its key, and where it is.
    pub(super) fn images(&self) -> impl Iterator<Item = (&str, &str, Located)> {
        self.parts.iter().enumerate().flat_map(|(part, Part { job, split, .. })| {
            (0..job.source.len()).map(move |index| (split.as_str(), job.source.key(index), Located { part, index }))
        })
    }

    /// The job that would have made the cache from these sources; only tokenizer, recipe and classes are taken from them.
    ///
    /// # Errors
    /// As [`Job::spec`].
    pub(super) fn spec(&self, manifest: &Manifest) -> Result<JobSpec, TokenizeError> {
        let mut spec = self.parts[0].job.spec()?;
        spec.source = manifest.source.clone();
        spec.splits = manifest.splits.clone();
        if self.parts.iter().all(|part| part.labels.is_some()) {
            spec.classes = manifest.classes.clone();
        }
        Ok(spec)
    }

    /// Encodes images again and calls `each` with them in order: index in `images`, key, and the image with the cache's label.
    ///
    /// # Errors
    /// The device fails, or `each` returns an error.
    pub(super) fn encode(
        &self,
        images: &[Located],
        each: &mut dyn FnMut(usize, &str, EncodedImage) -> Result<(), TokenizeError>,
    ) -> Result<(), TokenizeError> {
        let mut place = 0;
        for run in images.chunk_by(|a, b| a.part == b.part) {
            let Part { job, labels, .. } = &self.parts[run[0].part];
            let indices: Vec<usize> = run.iter().map(|image| image.index).collect();
            job.encode_images(&indices, &mut |mut image| {
                let label = usize::try_from(image.label).ok();
                let known = label.and_then(|label| labels.as_ref()?.get(label));
                image.label = known.copied().unwrap_or(image.label);
                let key = job.source.key(image.index);
                place += 1;
                each(place - 1, key, image)
            })?;
        }
        Ok(())
    }
}

/// Runs `work` with the origin of a cache: the recipe from its manifest, sources and tokenizer from the command line.
pub(super) fn with_origin(
    manifest: &Manifest,
    dir: &Path,
    made_of: &MadeOfArgs,
    global: &Global,
    work: impl FnOnce(&Origin) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let recipe = recipe_of(manifest, dir)?;
    let named = ingest::named_sources(&manifest.splits, &made_of.source)?;
    let runtime = model::runtime(&made_of.device, global)?;
    let (tokenizer, info) = model::tokenizer(&made_of.tokenizer, &runtime)?;
    let options = SourceOptions {
        exclude: ingest::excluded(made_of.preset, &made_of.exclude)?,
        limit: made_of.limit,
        labels: made_of.labels.clone(),
        image_column: made_of.image_column.clone(),
        label_column: made_of.label_column.clone(),
        // A check needs a sample of the images, a repair the damaged ones.
        is_shared: true,
        ..SourceOptions::default()
    };
    let mut parts = Vec::with_capacity(named.len());
    for (split, path) in named {
        let source = ingest::open_source(&path, &options)?;
        let labels = labels_of(&source, manifest);
        let job = job_of(source, recipe, manifest, (&tokenizer, &info), runtime, global)?;
        parts.push(Part { job, split, labels });
    }
    let is_same = is_same(&parts, manifest);
    work(&Origin { parts, is_same })
}

fn recipe_of(manifest: &Manifest, dir: &Path) -> anyhow::Result<Recipe> {
    let text = manifest.recipe.to_string();
    let recipe = text.parse().map_err(|error| {
        let why = match error {
            RecipeError::RemovedResize { .. } => format!(": {error}"),
            _ => " does not say how its images were cut: it was not made by `tokenize`".to_owned(),
        };
        CheckFailed(format!("{}{why}", dir.display()))
    })?;
    Ok(recipe)
}

/// The job that encodes images of `source` as those of the cache were.
fn job_of<'a>(
    source: Source,
    recipe: Recipe,
    manifest: &Manifest,
    (tokenizer, info): (&'a Tokenizer, &TokenizerInfo),
    runtime: Runtime,
    global: &Global,
) -> anyhow::Result<Job<'a>> {
    let job = Job {
        source: Arc::new(source),
        recipe,
        first_view: manifest.first_view,
        split: None,
        tokenizer,
        exact: None,
        info: info.clone(),
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
    Ok(job)
}

/// Runs `work` with the job that encodes one image as those of the cache were.
pub(super) fn with_image(
    cache: &TokenCache,
    image: &Path,
    (tokenizer, device): (&TokenizerArgs, &DeviceArgs),
    global: &Global,
    work: impl FnOnce(&Job) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let recipe = recipe_of(cache.manifest(), cache.dir())?;
    let runtime = model::runtime(device, global)?;
    let (tokenizer, info) = model::tokenizer(tokenizer, &runtime)?;
    work(&job_of(Source::of_image(image), recipe, cache.manifest(), (&tokenizer, &info), runtime, global)?)
}

/// As [`with_origin`], for a cache that was made from one source.
pub(crate) fn with_job(
    manifest: &Manifest,
    dir: &Path,
    made_of: &MadeOfArgs,
    global: &Global,
    work: impl FnOnce(&Job) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    with_origin(manifest, dir, made_of, global, |origin| work(&origin.parts[0].job))
}

/// For each label of the source, the cache's label of the class of that name. `None` if the source has a class that the
/// cache does not have, or has no classes although the cache has.
fn labels_of(source: &Source, manifest: &Manifest) -> Option<Vec<i32>> {
    if source.classes().is_empty() != manifest.classes.is_empty() {
        return None;
    }
    let label_of = |name: &String| Some(manifest.classes.iter().position(|class| class == name)? as i32);
    source.classes().iter().map(label_of).collect()
}

/// Whether each split has as many images as in the cache's job.
fn is_same(parts: &[Part], manifest: &Manifest) -> bool {
    let images = |is_of: &dyn Fn(&Part) -> bool| -> usize {
        parts.iter().filter(|part| is_of(part)).map(|part| part.job.source.len()).sum()
    };
    let fits = |split: &Split| images(&|part| part.split == split.name) == split.images[1] - split.images[0];
    images(&|_| true) == manifest.source.images && manifest.splits.iter().all(fits)
}
