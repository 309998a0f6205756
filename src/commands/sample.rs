//! `tokengrid sample`.

use super::model::{self, pair};
use crate::args::{Global, SampleArgs, SamplePresetArg};
use crate::exit::{CheckFailed, Usage};
use crate::ranks::ranks;
use crate::signals;
use crate::terminal::{Meter, print_json, seconds};
use anyhow::Context;
use std::path::{Path, PathBuf};
use tokengrid_cache::{ImportOptions, OpenMode, TokenCache, TokenizerInfo, import_npy};
use tokengrid_sample::arrays::{Dtype, write_npy};
use tokengrid_sample::job::model_fingerprint;
use tokengrid_sample::presets::preset;
use tokengrid_sample::{Outputs, SampleJob, SampleOutcome, SamplerConfig};
use tokengrid_train::ar::ArConfig;
use tokengrid_train::config::{Typed, resolve};

/// Runs the command.
pub fn run(args: &SampleArgs, global: &Global) -> anyhow::Result<()> {
    let config = settings(args)?;
    let (rank, world_size) = ranks(args.rank, args.world_size)?;
    if args.overwrite && world_size > 1 {
        let text =
            "--overwrite with several processes: one would remove what another just made; remove the folder first";
        return Err(Usage(text.into()).into());
    }
    let runtime = model::runtime(&args.device, global)?;
    let (ar, weights) = model::ar_model(&args.checkpoint, &args.model, &runtime)?;
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
        class_names: class_names(args.class_names.as_deref(), &weights.path)?,
        diagnostics: args.diagnostics,
        rank,
        world_size,
    };
    let outcome = sample(&job, args, info, global)?;
    if global.json {
        return print_json(&outcome);
    }
    print(&outcome, &job);
    Ok(())
}

/// Samples, and makes the cache once all tokens are there.
fn sample(job: &SampleJob, args: &SampleArgs, info: TokenizerInfo, global: &Global) -> anyhow::Result<SampleOutcome> {
    // A cache is made of the array of all tokens, and records where that was: not in a temporary folder.
    let of_cache = args.cache_out.as_ref().map(|_| args.out.join("tokens.npy"));
    let outputs = Outputs { out: args.out.clone(), npz: args.npz.clone(), tokens: args.tokens.clone().or(of_cache) };
    let mut meter = Meter::new(global, "images");
    let outcome = job.run(&outputs, signals::flag(), &mut |done, all| meter.update(done as u64, all as u64, ""))?;
    drop(meter);
    if let (Some(dir), Some(tokens), true) = (&args.cache_out, &outputs.tokens, outcome.complete) {
        make_cache(job, info, tokens, dir, args.overwrite)?;
    }
    Ok(outcome)
}

/// A cache of sampled tokens: labels are the classes, keys the images' names in the folder.
fn make_cache(
    job: &SampleJob,
    tokenizer: TokenizerInfo,
    tokens: &Path,
    out: &Path,
    overwrite: bool,
) -> anyhow::Result<()> {
    let images = job.classes.iter().flat_map(|&class| (0..job.per_class).map(move |index| (class, index)));
    let labels: Vec<u8> = images.clone().flat_map(|(class, _)| (class as i32).to_le_bytes()).collect();
    let keys: String = images.map(|(class, index)| format!("{class:04}/{index:05}\n")).collect();
    let scratch = tempfile::tempdir().context("no temporary folder")?;
    let (labels_file, keys_file) = (scratch.path().join("labels.npy"), scratch.path().join("keys.txt"));
    write_npy(&labels_file, Dtype::I32, &[labels.len() / 4], &labels)?;
    std::fs::write(&keys_file, keys).with_context(|| format!("cannot write {}", keys_file.display()))?;
    let side = job.model.config.side() as u32;
    let options = ImportOptions {
        grid: (side, side),
        bits: Some(job.model.config.bits()),
        views: 1,
        tokenizer,
        classes: job.class_names.clone(),
    };
    let mode = if overwrite { OpenMode::Overwrite } else { OpenMode::Resume };
    import_npy(tokens, Some(&labels_file), Some(&keys_file), &options, out, mode)?;
    Ok(())
}

fn print(outcome: &SampleOutcome, job: &SampleJob) {
    let SampleOutcome { images, images_now, waiting_for, seconds_per_image, .. } = outcome;
    println!("{images} images ({images_now} now, {seconds_per_image:.2} s each, {})", seconds(outcome.seconds));
    match &outcome.grid {
        Some(grid) => println!("grid: {}", grid.display()),
        None => println!(
            "rank {} of {} is done; the other ranks have {waiting_for} images to make, and the last one joins them",
            job.rank, job.world_size
        ),
    }
}

/// The settings: typed, else of the preset, else off.
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

/// Names of classes by index: of the file, else of the cache that the checkpoint's run was trained on.
fn class_names(file: Option<&Path>, checkpoint: &Path) -> anyhow::Result<Vec<String>> {
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        return Ok(text.lines().map(str::to_string).collect());
    }
    // Names are a nicety: a cache that has moved is no error.
    Ok(training_cache(checkpoint)
        .and_then(|cache| TokenCache::open(&cache).ok())
        .map(|cache| cache.manifest().classes.clone())
        .unwrap_or_default())
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
        return Err(
            Usage(format!("--classes {text}: class {twice} stands there twice; --num-per-class makes more")).into()
        );
    }
    Ok(classes)
}
