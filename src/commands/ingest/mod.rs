//! `tokengrid ingest`: decode and resize everything.

mod listing;
mod names;
mod pngs;
mod report;
mod source;
mod splits;

pub(crate) use source::{check_apart, check_apart_from_linked, open_source};
pub(crate) use splits::named_sources;

use crate::args::{BadArgs, Global, IngestArgs, OnBadArg, OrientationArg, PresetArg, SourceArgs};
use crate::exit::Usage;
use crate::files::{check_target, is_own_json, read_list, write_json};
use crate::signals::{self, Stopped};
use crate::terminal::{Meter, print_json};
use pngs::PngFolder;
use report::Report;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tokengrid_ingest::{
    BadCounter, BadPolicy, ImageViews, Limits, OPEN_MAGVIT2_EXCLUDE, OnBad, Orientation, Recipe, Source,
    SourceOptions, StreamConfig, ViewStream,
};

/// Checks source and recipe from the command line. `is_shared`: other processes, perhaps on other machines, read parts of
/// the same source.
pub(crate) fn open(args: &SourceArgs, is_shared: bool) -> anyhow::Result<(Arc<Source>, Recipe)> {
    let recipe = recipe(args)?;
    if args.preset == Some(PresetArg::OpenMagvit2) && recipe.orientation != Orientation::default() {
        let text = "--preset open-magvit2 means the reference's pixels; leave out --exif-orientation apply";
        return Err(Usage(text.into()).into());
    }
    let exclude = excluded(args.preset, &args.exclude)?;
    let options = SourceOptions {
        exclude,
        limit: args.limit,
        labels: args.labels.clone(),
        image_column: args.image_column.clone(),
        label_column: args.label_column.clone(),
        is_shared,
        ..SourceOptions::default()
    };
    let source = open_source(&args.source, &options)?;
    if source.unlabelled() > 0 {
        tracing::warn!("{} of {} images have no label; they get -1", source.unlabelled(), source.len());
    }
    Ok((Arc::new(source), recipe))
}

/// Names that are left out: those typed, those in the lists that were typed as `@FILE`, and those of the preset.
pub(crate) fn excluded(preset: Option<PresetArg>, typed: &[String]) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for name in typed {
        match name.strip_prefix('@') {
            Some(list) => {
                let of_list = read_list(Path::new(list))?;
                if of_list.is_empty() {
                    tracing::warn!("--exclude {name}: there are no names in it");
                }
                names.extend(of_list);
            }
            None => names.push(name.clone()),
        }
    }
    let of_preset = preset.map(|PresetArg::OpenMagvit2| OPEN_MAGVIT2_EXCLUDE.map(String::from));
    names.extend(of_preset.into_iter().flatten());
    Ok(names)
}

fn recipe(args: &SourceArgs) -> anyhow::Result<Recipe> {
    let views = args.views.parse().map_err(|e| Usage(format!("--views {}: {e}", args.views)))?;
    let orientation = match args.exif_orientation {
        OrientationArg::Ignore => Orientation::Ignore,
        OrientationArg::Apply => Orientation::Apply,
    };
    let recipe = Recipe { size: args.size, views, seed: args.seed, resize: args.resize, orientation };
    recipe.validate().map_err(|e| Usage(e.to_string()))?;
    Ok(recipe)
}

/// Limits of one file, from the command line.
pub(crate) fn limits(args: &SourceArgs) -> Limits {
    Limits { max_pixels: args.max_pixels, ..Limits::default() }
}

/// Policy for bad images, from the command line; `unless_typed` is the policy without `--max-bad-fraction`.
pub(crate) fn bad_policy(args: &BadArgs, unless_typed: BadPolicy) -> BadPolicy {
    let on_bad = match args.on_bad {
        OnBadArg::Quarantine => OnBad::Quarantine,
        OnBadArg::Fail => OnBad::Fail,
    };
    BadPolicy { on_bad, ..args.max_bad_fraction.map_or(unless_typed, BadPolicy::at_most) }
}

/// Runs the command.
pub(crate) fn run(args: &IngestArgs, global: &Global) -> anyhow::Result<()> {
    if let Some(path) = &args.report {
        check_target(path, is_own_json)?;
    }
    if let Some(out) = &args.out {
        check_apart(out, &args.source.source)?;
    }
    let (source, recipe) = open(&args.source, false)?;
    if let Some(out) = &args.out {
        check_apart_from_linked(out, &source)?;
    }
    let folder = args.out.as_deref().map(|out| PngFolder::open(out, &recipe, args.overwrite)).transpose()?;
    let order: Vec<usize> = match &folder {
        Some(folder) => (0..source.len()).filter(|&i| !folder.has(source.key(i))).collect(),
        None => (0..source.len()).collect(),
    };
    let mut report = Report::new(&source, &recipe, source.len() - order.len());
    let policy = bad_policy(&args.bad, BadPolicy::unlimited());
    let mut work =
        Work { counter: BadCounter::new(policy, source.len()), report: &mut report, source: &source, global };
    let config = StreamConfig {
        threads: global.threads.unwrap_or(0).into(),
        limits: limits(&args.source),
        ..StreamConfig::default()
    };
    let started = Instant::now();
    let mut stream = ViewStream::spawn(source.clone(), order.into_iter(), recipe, config);
    let stages = stream.counters();
    match &folder {
        Some(folder) => folder.write_all(&stages, |save| work.run(&mut stream, save))?,
        None => work.run(&mut stream, &mut |_| Ok(()))?,
    }
    report.finish(&stages.times(), started.elapsed());
    if let Some(path) = &args.report {
        write_json(path, &report)?;
    }
    if global.json { print_json(&report) } else { report.print(args.out.as_deref()) }
}

/// State while images are processed.
struct Work<'a> {
    counter: BadCounter,
    report: &'a mut Report,
    source: &'a Source,
    global: &'a Global,
}

impl Work<'_> {
    /// Counts every image and hands the good ones to `save`.
    fn run(
        &mut self,
        stream: &mut ViewStream,
        save: &mut dyn FnMut(ImageViews) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let total = self.source.len() as u64;
        let mut meter = Meter::new(self.global, "images");
        meter.start(0, total);
        for image in stream {
            if image.outcome.is_err() {
                self.source.check_reachable()?;
            }
            self.report.add(&image);
            match &image.outcome {
                Ok(_) => {
                    self.counter.good();
                    save(image)?;
                }
                Err(bad) => self.counter.bad(&image.key, bad)?,
            }
            let words = format!("{} bad", self.counter.bad_count());
            meter.update(self.report.images as u64, total, &words);
            if signals::cancelled() {
                return Err(Stopped.into());
            }
        }
        Ok(())
    }
}
