//! `tokengrid sample`.

mod cache;
mod names;
mod targets;

use super::model::{self, pair};
use crate::args::{Global, SampleArgs, SamplePresetArg, ScheduleArg};
use crate::exit::{CheckFailed, Usage};
use crate::files::existing_target;
use crate::ranks::ranks;
use crate::signals;
use crate::terminal::{Meter, counted, print_json, seconds};
use cache::TokensToCache;
use names::Names;
use tokengrid_sample::Schedule;
use tokengrid_sample::job::model_fingerprint;
use tokengrid_sample::presets::preset;
use tokengrid_sample::{Outputs, SampleJob, SampleOutcome, SamplerConfig};

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
    let names = Names::of(args.class_names.as_deref(), &weights)?;
    let classes = names.classes(&args.classes, ar.config.class_num)?;
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
        class_names: names.captions(),
        diagnostics: args.diagnostics,
        rank,
        world_size,
    };
    let cache = args
        .cache_out
        .as_deref()
        .map(|dir| TokensToCache::new(&job, names.classes.clone(), info, dir, args.overwrite))
        .transpose()?;
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

impl From<ScheduleArg> for Schedule {
    fn from(typed: ScheduleArg) -> Schedule {
        match typed {
            ScheduleArg::Constant => Schedule::Constant,
            ScheduleArg::Linear => Schedule::Linear,
            ScheduleArg::Cosine => Schedule::Cosine,
        }
    }
}
