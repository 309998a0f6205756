//! `tokengrid train ...`.

use super::plot;
use crate::args::{ConfigArgs, Global, TrainCommand};
use crate::signals;
use crate::terminal::{Meter, print_json, seconds};
use serde_json::json;
use std::path::Path;
use std::time::Instant;
use tokengrid_tokenize::{Precision, Runtime};
use tokengrid_train::ar::{ArConfig, Trainer};
use tokengrid_train::config::{Config, Typed, resolve};
use tokengrid_train::tokenizer::{TokenizerConfig, TokenizerTrainer};

/// Runs the command.
pub fn run(command: &TrainCommand, global: &Global) -> anyhow::Result<()> {
    match command {
        TrainCommand::Ar { config, cache, val_cache, out } => {
            let flags = [("data.cache", cache), ("data.val_cache", val_cache)];
            ar(&resolved(config, &flags)?, config, out, global)
        }
        TrainCommand::Tokenizer { config, data, val, out } => {
            tokenizer(resolved(config, &[("data.train", data), ("data.val", val)])?, config, out, global)
        }
        TrainCommand::Plot { runs, key, out } => plot::run(runs, key, out, global),
    }
}

/// File, `--set` and flags, resolved.
pub fn resolved<C: Config>(args: &ConfigArgs, flags: &[(&str, &Option<String>)]) -> anyhow::Result<C> {
    let flags = flags.iter().filter_map(|(key, value)| Some((*key, (*value).clone()?))).collect();
    Ok(resolve(&Typed { file: args.config.as_deref(), set: &args.set, flags })?)
}

fn ar(config: &ArConfig, args: &ConfigArgs, out: &Path, global: &Global) -> anyhow::Result<()> {
    let precision: Precision = config.train.precision.parse()?;
    let runtime = Runtime::choose(args.device.as_deref(), precision, global.threads.map(usize::from))?;
    let trainer = Trainer::open(config.clone(), out, runtime, args.overwrite)?;
    let (params, from, steps) = (trainer.num_params(), trainer.resumed_at(), trainer.steps());
    if !global.quiet {
        let resumed = if from > 0 { format!(", resumed at step {from}") } else { String::new() };
        eprintln!("{params} parameters, {steps} steps{resumed}");
    }
    let mut meter = Meter::new(global, "steps");
    let started = Instant::now();
    let mut rates = vec![];
    let summary = trainer.run(signals::flag(), &mut |report| {
        rates.push(report.tokens_per_second);
        let val = report.val_loss.map_or(String::new(), |loss| format!(", val {loss:.4}"));
        let words = format!(
            "loss {:.4}{val}, {:.0} tokens/s, epoch {:.2}",
            report.loss, report.tokens_per_second, report.epoch
        );
        meter.update(report.step, report.steps, &words);
    })?;
    drop(meter);
    rates.sort_by(f64::total_cmp);
    let median = rates.get(rates.len() / 2).copied();
    let elapsed = started.elapsed().as_secs_f64();
    if global.json {
        return print_json(&json!({
            "step": summary.step, "loss": median.map(|_| summary.loss), "parameters": params, "seconds": elapsed,
            "tokens_per_second": median, "checkpoint": summary.checkpoint,
        }));
    }
    match median {
        Some(rate) => {
            println!("step {}: loss {:.4}, {rate:.0} tokens/s, {}", summary.step, summary.loss, seconds(elapsed))
        }
        None => println!("step {}: the run was complete already", summary.step),
    }
    println!("checkpoint: {}", summary.checkpoint.display());
    Ok(())
}

fn tokenizer(config: TokenizerConfig, args: &ConfigArgs, out: &Path, global: &Global) -> anyhow::Result<()> {
    let precision: Precision = config.train.precision.parse()?;
    let runtime = Runtime::choose(args.device.as_deref(), precision, global.threads.map(usize::from))?;
    let trainer = TokenizerTrainer::open(config, out, runtime, args.overwrite)?;
    let mut meter = Meter::new(global, "steps");
    let summary = trainer.run(signals::flag(), &mut |report| {
        let val = report.val_psnr.map_or(String::new(), |psnr| format!(", val {psnr:.2} dB"));
        let words = format!(
            "l1 {:.4}, {:.2} dB{val}, codebook {:.2} nats, {:.1} images/s",
            report.reconstruct_loss, report.psnr, report.codebook_entropy, report.images_per_second
        );
        meter.update(report.step, report.steps, &words);
    })?;
    drop(meter);
    if global.json {
        return print_json(&json!({ "step": summary.step, "photos": summary.photos, "weights": summary.weights }));
    }
    println!("step {}, {} photographs: {}", summary.step, summary.photos, summary.weights.display());
    Ok(())
}
