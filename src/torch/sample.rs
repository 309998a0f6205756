//! `tokengrid sample`.

mod cache;
mod targets;

use super::model::{self, pair};
use crate::args::{Global, SampleArgs, SamplePresetArg, ScheduleArg};
use crate::exit::{CheckFailed, Usage};
use crate::files::existing_target;
use crate::ranks::ranks;
use crate::signals;
use crate::terminal::{Meter, counted, print_json, seconds};
use anyhow::Context;
use cache::TokensToCache;
use std::io::Read;
use std::path::{Path, PathBuf};
use tokengrid_cache::TokenCache;
use tokengrid_model::ar::ArWeights;
use tokengrid_sample::Schedule;
use tokengrid_sample::job::model_fingerprint;
use tokengrid_sample::presets::preset;
use tokengrid_sample::{Outputs, SampleJob, SampleOutcome, SamplerConfig};
use tokengrid_train::ar::ArConfig;
use tokengrid_train::config::{Typed, resolve};

/// Runs the command.
pub(super) fn run(args: &SampleArgs, global: &Global) -> anyhow::Result<()> {
    let config = settings(args)?;
    targets::check(args)?;
    for path in [&args.npz, &args.tokens].into_iter().flatten() {
        existing_target(path)?;
    }
    let (rank, world_size) = ranks(args.rank, args.world_size)?;
    if args.overwrite && world_size > 1 {
        let text =
            "--overwrite with several processes: one would remove what another just made; remove the folder first";
        return Err(Usage(text.into()).into());
    }
    let runtime = model::runtime(&args.device, global)?.with_graphs(args.cuda_graph);
    let (ar, weights) = model::ar_model(&args.checkpoint, args.model_variant.as_deref(), &args.model, &runtime)?;
    model::note_averages(&weights, args.model_variant.as_deref(), global);
    config.validate(ar.config.vocab())?;
    let classes = classes(&args.classes, ar.config.class_num)?;
    let (tokenizer, info) = model::tokenizer(&args.tokenizer, &runtime)?;
    if let Some(trained_on) = weights.tokenizer.as_ref().filter(|trained_on| **trained_on != info.fingerprint) {
        let (path, given) = (args.checkpoint.display(), &info.fingerprint);
        let text =
            format!("{path} was trained on tokens of another tokenizer ({trained_on}) than {} ({given})", info.name);
        return Err(CheckFailed(text).into());
    }
    let job = SampleJob {
        model: &ar,
        tokenizer: &tokenizer,
        config,
        classes,
        per_class: args.num_per_class as usize,
        batch_size: args.batch_size as usize,
        runtime,
        model_fingerprint: format!("{} {}", model_fingerprint(&ar.config, &weights.params), info.fingerprint),
        overwrite: args.overwrite,
        preset: args.preset.map(|preset| preset_name(preset).to_string()),
        class_names: class_names(args.class_names.as_deref(), &weights)?,
        diagnostics: args.diagnostics,
        rank,
        world_size,
    };
    let cache = args.cache_out.as_deref().map(|dir| TokensToCache::new(&job, info, dir, args.overwrite)).transpose()?;
    let outcome = sample(&job, args, cache, global)?;
    if global.json {
        return print_json(&outcome);
    }
    print(&outcome, &job);
    Ok(())
}

/// Samples, and makes the cache once all tokens exist.
fn sample(
    job: &SampleJob,
    args: &SampleArgs,
    cache: Option<TokensToCache>,
    global: &Global,
) -> anyhow::Result<SampleOutcome> {
    let outputs = Outputs { out: args.out.clone(), npz: args.npz.clone(), tokens: args.tokens.clone() };
    let mut meter = Meter::new(global, "images");
    let outcome = job.run(&outputs, signals::flag(), &mut |done, all| meter.update(done as u64, all as u64, ""))?;
    drop(meter);
    if let Some(cache) = cache.filter(|_| outcome.complete) {
        cache.write(job, &args.out)?;
    }
    Ok(outcome)
}

fn print(outcome: &SampleOutcome, job: &SampleJob) {
    let SampleOutcome { images, images_now, waiting_for, seconds_per_image, .. } = outcome;
    let images = counted(*images, "image");
    println!("{images} ({images_now} now, {seconds_per_image:.2} s each, {})", seconds(outcome.seconds));
    match &outcome.grid {
        Some(grid) => println!("grid: {}", grid.display()),
        None => println!(
            "rank {} of {} is done; the other ranks have {} to make, and the last one joins them",
            job.rank,
            job.world_size,
            counted(*waiting_for, "image")
        ),
    }
}

/// Sampling settings: from the command line, else of the preset, else off.
fn settings(args: &SampleArgs) -> anyhow::Result<SamplerConfig> {
    let base = args.preset.and_then(|typed| preset(preset_name(typed))).unwrap_or_default();
    Ok(SamplerConfig {
        cfg_scale: pair_or("--cfg-scale", args.cfg_scale.as_deref(), base.cfg_scale)?,
        cfg_schedule: args.cfg_schedule.into(),
        temperature: pair_or("--temperature", args.temperature.as_deref(), base.temperature)?,
        top_k: pair_or("--top-k", args.top_k.as_deref(), base.top_k)?,
        top_p: pair_or("--top-p", args.top_p.as_deref(), base.top_p)?,
        seed: args.seed,
    })
}

fn pair_or<T: std::str::FromStr + Copy>(flag: &str, typed: Option<&str>, otherwise: [T; 2]) -> anyhow::Result<[T; 2]> {
    typed.map_or(Ok(otherwise), |text| pair(flag, text))
}

fn preset_name(typed: SamplePresetArg) -> &'static str {
    match typed {
        SamplePresetArg::B => "B",
        SamplePresetArg::L => "L",
        SamplePresetArg::Xl => "XL",
    }
}

/// Class names by index: of the file, else of the checkpoint, else of the cache that its run was trained on.
fn class_names(file: Option<&Path>, checkpoint: &ArWeights) -> anyhow::Result<Vec<String>> {
    if let Some(path) = file {
        return read_names(path);
    }
    if !checkpoint.classes.is_empty() {
        return Ok(checkpoint.classes.clone());
    }
    // Names are optional: a cache that has moved is not an error.
    Ok(training_cache(&checkpoint.path)
        .and_then(|cache| TokenCache::open(&cache).ok())
        .map(|cache| cache.manifest().classes.clone())
        .unwrap_or_default())
}

/// Longest class name in bytes.
const CLASS_NAME_BYTES_MAX: usize = 4096;
/// Largest file of class names in bytes: the longest names, for more classes than any data set has.
const CLASS_NAMES_BYTES_MAX: u64 = 64 << 20;

/// One name per line.
fn read_names(path: &Path) -> anyhow::Result<Vec<String>> {
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut text = String::new();
    let read = file.take(CLASS_NAMES_BYTES_MAX + 1).read_to_string(&mut text);
    read.with_context(|| format!("cannot read {}", path.display()))?;
    if text.len() as u64 > CLASS_NAMES_BYTES_MAX {
        let most = CLASS_NAMES_BYTES_MAX >> 20;
        return Err(CheckFailed(format!("{} is larger than {most} MiB: not class names", path.display())).into());
    }
    let names = text.trim_start_matches('\u{feff}').lines().map(str::to_string).collect::<Vec<_>>();
    if let Some(line) = names.iter().position(|name| name.len() > CLASS_NAME_BYTES_MAX) {
        let (path, bytes) = (path.display(), names[line].len());
        let text = format!(
            "{path}, line {}: a class name of {bytes} bytes; expected one name per line, of at most {CLASS_NAME_BYTES_MAX} \
             bytes",
            line + 1
        );
        return Err(CheckFailed(text).into());
    }
    Ok(names)
}

/// The cache that the configuration beside a checkpoint names.
fn training_cache(checkpoint: &Path) -> Option<PathBuf> {
    let config = checkpoint.parent()?.join("config.toml");
    let typed = Typed { file: Some(&config), ..Typed::default() };
    let config = config.is_file().then(|| resolve::<ArConfig>(&typed).ok())??;
    (!config.data.cache.is_empty()).then(|| config.data.cache.into())
}

fn classes(text: &str, class_num: i64) -> anyhow::Result<Vec<i64>> {
    if text == "all" {
        return Ok((0..class_num).collect());
    }
    let classes: Result<Vec<i64>, _> = text.split(',').map(|part| part.trim().parse()).collect();
    let classes =
        classes.map_err(|_| Usage(format!("--classes {text}: expected `all` or class indices such as 207,88")))?;
    if let Some(twice) = classes.iter().enumerate().find_map(|(i, class)| classes[..i].contains(class).then_some(class))
    {
        return Err(Usage(format!(
            "--classes {text}: class {twice} is listed twice; --num-per-class gives more images per class"
        ))
        .into());
    }
    Ok(classes)
}

impl From<ScheduleArg> for Schedule {
    fn from(typed: ScheduleArg) -> Schedule {
        match typed {
            ScheduleArg::Constant => Schedule::Constant,
            ScheduleArg::Linear => Schedule::Linear,
            ScheduleArg::Cosine => Schedule::Cosine,
        }
    }
}
