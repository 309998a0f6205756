//! `tokengrid train ...`.

use super::process_group::{device, join, speaker};
use super::{plot, training_fid, training_memory, training_plan, training_samples};
use crate::args::{ConfigArgs, Global, TokenizerArgs, TrainArArgs, TrainCommand};
use crate::commands::ingest::{check_apart, excluded};
use crate::exit::Usage;
use crate::ranks::ranks;
use crate::signals;
use crate::terminal::{Meter, counted, print_json, seconds};
use serde_json::json;
use std::path::Path;
use std::time::Instant;
use tokengrid_model::{Precision, Runtime};
use tokengrid_train::ar::{
    ArConfig, GradAccum, REFERENCE_GLOBAL_BATCH, Sharing, StepReport, Trainer, complete_from_cache, facts,
};
use tokengrid_train::config::{Config, Resolved, Typed, Value, resolve_listing, to_toml};
use tokengrid_train::tokenizer::{self, TokenizerConfig, TokenizerTrainer};

/// Runs the command.
pub(super) fn run(command: &TrainCommand, global: &Global) -> anyhow::Result<()> {
    match command {
        TrainCommand::Ar(args) => {
            let flags = [
                ("data.cache", &args.cache),
                ("data.split", &args.split),
                ("data.val_cache", &args.val_cache),
                ("data.val_split", &args.val_split),
            ];
            let mut flags = texts(&flags);
            flags.extend(args.grad_accum.as_deref().map(|typed| ("train.grad_accum", grad_accum(typed))));
            let run = Some(&*args.out).filter(|_| args.config.print_config.is_none() && !args.config.overwrite);
            match resolved_ar(&args.config, flags, run, global)? {
                Some((config, _)) if args.dry_run => training_plan::print(&config, args, global),
                Some((config, global_batch)) => ar(&config, global_batch, args, global),
                None => Ok(()),
            }
        }
        TrainCommand::Tokenizer { config: args, data, preset, exclude, val, out, rank, world_size } => {
            let mut flags = texts(&[("data.train", data), ("data.val", val)]);
            let exclude = excluded(*preset, exclude)?;
            if !exclude.is_empty() {
                flags.push(("data.exclude", exclude.into()));
            }
            let Some(config) = resolved(args, flags, global)? else { return Ok(()) };
            tokenizer(config, args, (*rank, *world_size), out, global)
        }
        TrainCommand::Plot { runs, key, smooth, out } => plot::run(runs, key, *smooth, out, global),
    }
}

/// A TOML value: a number if the text is one, else a string.
fn grad_accum(typed: &str) -> Value {
    typed.parse::<i64>().map_or_else(|_| typed.into(), Value::from)
}

/// The given flags as configuration keys and values.
pub(super) fn texts<'a>(flags: &[(&'a str, &Option<String>)]) -> Vec<(&'a str, Value)> {
    flags.iter().filter_map(|(key, value)| Some((*key, Value::from(value.as_deref()?)))).collect()
}

/// Resolves file, `--set` and flags; `None` if the configuration was only printed.
pub(super) fn resolved<C: Config>(
    args: &ConfigArgs,
    flags: Vec<(&str, Value)>,
    global: &Global,
) -> anyhow::Result<Option<C>> {
    let resolved = resolve::<C>(args, flags, global)?;
    unless_printed(resolved.config, args, global)
}

/// As [`resolved`]; keys that depend on the cache and were not given are those of the cache, or of the run in the folder `run`.
/// Also returns the samples per step of a configuration file of the reference.
pub(super) fn resolved_ar(
    args: &ConfigArgs,
    flags: Vec<(&str, Value)>,
    run: Option<&Path>,
    global: &Global,
) -> anyhow::Result<Option<(ArConfig, Option<usize>)>> {
    let mut resolved = resolve::<ArConfig>(args, flags, global)?;
    let train = &mut resolved.config.train;
    if train.grad_accum == GradAccum::Auto {
        // The value of the given file takes precedence over that of the reference's presets.
        train.global_batch = train.global_batch.or(resolved.global_batch).or(Some(REFERENCE_GLOBAL_BATCH));
    }
    for line in complete_from_cache(&mut resolved, run)? {
        if !global.quiet {
            eprintln!("{line}");
        }
    }
    let global_batch = resolved.global_batch;
    Ok(unless_printed(resolved.config, args, global)?.map(|config| (config, global_batch)))
}

fn resolve<C: Config>(
    args: &ConfigArgs,
    mut flags: Vec<(&str, Value)>,
    global: &Global,
) -> anyhow::Result<Resolved<C>> {
    let preset = args.print_config.clone().flatten();
    flags.extend(preset.map(|preset| ("model.preset", Value::from(preset))));
    let typed = Typed { file: args.config.as_deref(), set: &args.set, flags };
    let resolved = resolve_listing::<C>(&typed)?;
    let file = args.config.as_deref().unwrap_or(Path::new("")).display();
    for line in &resolved.not_honoured {
        eprintln!("tokengrid: {file}, not honoured: {line}");
    }
    match resolved.elsewhere.len() {
        0 => {}
        _ if global.verbose > 0 => {
            resolved.elsewhere.iter().for_each(|line| eprintln!("tokengrid: {file}, given elsewhere: {line}"));
        }
        _ if global.quiet => {}
        count => eprintln!(
            "tokengrid: {file}: {} given elsewhere (flags, launcher, the run's folder); -v lists them",
            if count == 1 { "1 setting is".into() } else { format!("{count} settings are") }
        ),
    }
    Ok(resolved)
}

fn unless_printed<C: Config>(config: C, args: &ConfigArgs, global: &Global) -> anyhow::Result<Option<C>> {
    if args.print_config.is_none() {
        return Ok(Some(config));
    }
    match global.json {
        true => print_json(&config)?,
        false => print!("{}", to_toml(&config)?),
    }
    Ok(None)
}

/// Prints the first lines of a run's log: device, settings and first step.
fn print_start(out: &Path, what: &str, runtime: &Runtime, (from, steps): (u64, u64), global: &Global) {
    if global.quiet {
        return;
    }
    let (device, precision, threads) = (runtime.device, runtime.precision.name(), tch::get_num_threads());
    eprintln!(
        "{what}; {device:?}, {precision}, {}; settings in {}",
        counted(threads as usize, "thread"),
        out.join("config.toml").display()
    );
    match from {
        0 => eprintln!("{}", counted(steps as usize, "step")),
        _ => eprintln!("resuming at step {from} of {steps}"),
    }
}

fn ar(config: &ArConfig, global_batch: Option<usize>, args: &TrainArArgs, global: &Global) -> anyhow::Result<()> {
    check_weights_for_pictures(config, args)?;
    let (rank, world_size) = ranks(args.rank, args.world_size)?;
    let mut processes = join((rank, world_size), || Ok(facts(config)?), config.train.timeout_secs)?;
    let is_first = processes.is_first();
    let global = &speaker(global, is_first);
    let precision: Precision = config.train.precision.parse()?;
    let device = device(args.config.device.as_deref());
    let runtime = Runtime::choose(device.as_deref(), precision, global.threads.map(usize::from))?;
    let runtime = runtime.with_graphs(config.train.cuda_graph);
    processes.use_device(runtime.device)?;
    let foreseen = training_memory::foresee(config, &runtime, world_size as usize, global)?;
    let mut trainer = Trainer::open(config.clone(), &args.out, runtime, processes, args.config.overwrite)?;
    make_pictures(&mut trainer, config, args, &runtime, is_first)?;
    let params = trainer.num_params();
    let steps = (trainer.resumed_at(), trainer.steps());
    print_start(&args.out, &format!("{params} parameters"), &runtime, steps, global);
    print_global_batch(config, global_batch, &trainer.sharing(), global);
    let mut meter = Meter::new(global, "steps");
    let started = Instant::now();
    let mut rates = vec![];
    signals::keep_work();
    let summary = trainer.run(signals::flag(), &mut |report| {
        rates.push(report.tokens_per_second);
        meter.update(report.step, report.steps, &progress_text(report));
    })?;
    drop(meter);
    if !is_first {
        return Ok(());
    }
    rates.sort_by(f64::total_cmp);
    let median = rates.get(rates.len() / 2).copied();
    let elapsed = started.elapsed().as_secs_f64();
    if global.json {
        return print_json(&json!({
            "step": summary.step, "loss": median.map(|_| summary.loss), "parameters": params, "seconds": elapsed,
            "tokens_per_second": median, "checkpoint": summary.checkpoint, "memory_bytes_foreseen": foreseen,
            "memory_bytes_peak": training_memory::peak_bytes(),
        }));
    }
    match median {
        Some(rate) => println!(
            "step {}: loss {:.4}, {rate:.0} tokens/s (median of the logged steps), {}",
            summary.step,
            summary.loss,
            seconds(elapsed)
        ),
        None => println!("step {}: the run was complete already", summary.step),
    }
    println!("checkpoint: {}", summary.checkpoint.display());
    Ok(())
}

/// Refuses a configuration that makes pictures without the weights that they need.
fn check_weights_for_pictures(config: &ArConfig, args: &TrainArArgs) -> Result<(), Usage> {
    if config.train.sample_every > 0 && args.tokenizer.is_none() {
        let text =
            "train.sample_every makes pictures, which needs the cache's tokenizer: give --tokenizer, or set it to 0";
        return Err(Usage(text.into()));
    }
    if config.train.fid_every > 0 && (args.tokenizer.is_none() || args.inception.is_none()) {
        let text = "train.fid_every samples pictures and compares their features: give --tokenizer, the cache's, and \
                    --inception, the Inception weights of FID, or set it to 0";
        return Err(Usage(text.into()));
    }
    Ok(())
}

/// Lets the trainer make the pictures of `train.sample_every` (in the first process) and the FID of `train.fid_every`.
fn make_pictures(
    trainer: &mut Trainer,
    config: &ArConfig,
    args: &TrainArArgs,
    runtime: &Runtime,
    is_first: bool,
) -> anyhow::Result<()> {
    let Some(tokenizer) = args.tokenizer.clone() else { return Ok(()) };
    let tokenizer = TokenizerArgs { tokenizer, variant: args.variant.clone() };
    if config.train.sample_every > 0 && is_first {
        let sample = training_samples::sampler(&tokenizer, config, trainer.tokenizer_fingerprint(), runtime)?;
        trainer.sample_with(sample);
    }
    if let Some(inception) = args.inception.as_ref().filter(|_| config.train.fid_every > 0) {
        let fid = training_fid::fid(&tokenizer, inception, config, trainer.tokenizer_fingerprint(), runtime)?;
        trainer.fid_with(fid);
    }
    Ok(())
}

fn progress_text(report: &StepReport) -> String {
    let val = report.val_loss.map_or(String::new(), |loss| format!(", val {loss:.4}"));
    let averages = report.val_loss_ema.map_or(String::new(), |loss| format!(" (averages {loss:.4})"));
    let fid = report.fid.map_or(String::new(), |fid| format!(", FID {fid:.2}"));
    let mfu = report.mfu.map_or(String::new(), |mfu| format!(", MFU {:.1} %", 100.0 * mfu));
    let (loss, rate, epoch) = (report.loss, report.tokens_per_second, report.epoch);
    format!("loss {loss:.4}{val}{averages}{fid}, {rate:.0} tokens/s{mfu}, epoch {epoch:.2}")
}

/// Prints the samples per step if the program chose them, or if they differ from those of the reference's file.
fn print_global_batch(config: &ArConfig, of_file: Option<usize>, sharing: &Sharing, global: &Global) {
    if global.quiet {
        return;
    }
    let other = of_file.filter(|of_file| *of_file != sharing.global_batch());
    if config.train.grad_accum == GradAccum::Auto {
        eprintln!("{sharing}");
    } else if let Some(of_file) = other {
        eprintln!("{sharing}; the configuration asks for {of_file} on its devices, which `--grad-accum auto` keeps");
    }
}

fn tokenizer(
    config: TokenizerConfig,
    args: &ConfigArgs,
    (rank, world_size): (Option<u32>, Option<u32>),
    out: &Path,
    global: &Global,
) -> anyhow::Result<()> {
    for source in [Some(&config.data.train), config.data.val.as_ref()].into_iter().flatten() {
        check_apart(out, Path::new(source))?;
    }
    let precision: Precision = config.train.precision.parse()?;
    let (rank, world_size) = ranks(rank, world_size)?;
    let mut processes = join((rank, world_size), || Ok(tokenizer::facts(&config)?), config.train.timeout_secs)?;
    let is_first = processes.is_first();
    let global = &speaker(global, is_first);
    let device = device(args.device.as_deref());
    let runtime = Runtime::choose(device.as_deref(), precision, global.threads.map(usize::from))?;
    processes.use_device(runtime.device)?;
    training_memory::refuse_impossible_tokenizer(&config, &runtime)?;
    let trainer = TokenizerTrainer::open_among(config, out, runtime, args.overwrite, processes)?;
    let (images, excluded) = trainer.num_images();
    let steps = (trainer.resumed_at(), trainer.steps());
    print_start(out, &format!("{}, {excluded} excluded", counted(images, "image")), &runtime, steps, global);
    let mut meter = Meter::new(global, "steps");
    signals::keep_work();
    let summary = trainer.run(signals::flag(), &mut |report| {
        let val = report.val_psnr.map_or(String::new(), |psnr| format!(", val {psnr:.2} dB"));
        let words = format!(
            "l1 {:.4}, {:.2} dB{val}, codebook {:.2} nats, {:.1} images/s",
            report.reconstruct_loss, report.psnr, report.codebook_entropy, report.images_per_second
        );
        meter.update(report.step, report.steps, &words);
    })?;
    drop(meter);
    if !is_first {
        return Ok(());
    }
    if global.json {
        return print_json(&json!({ "step": summary.step, "photos": summary.images, "weights": summary.weights }));
    }
    println!("step {}, {}: {}", summary.step, counted(summary.images, "image"), summary.weights.display());
    Ok(())
}
