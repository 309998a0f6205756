//! `tokengrid sample`.

use super::model::{self, pair};
use crate::args::{Global, SampleArgs};
use crate::exit::{CheckFailed, Usage};
use crate::signals;
use crate::terminal::{Meter, print_json, seconds};
use tokengrid_sample::job::model_fingerprint;
use tokengrid_sample::{SampleJob, SamplerConfig, Schedule};

/// Runs the command.
pub fn run(args: &SampleArgs, global: &Global) -> anyhow::Result<()> {
    let config = SamplerConfig {
        cfg_scale: pair("--cfg-scale", &args.cfg_scale)?,
        cfg_schedule: Schedule::Constant,
        temperature: pair("--temperature", &args.temperature)?,
        top_k: pair("--top-k", &args.top_k)?,
        top_p: pair("--top-p", &args.top_p)?,
        seed: args.seed,
    };
    let runtime = model::runtime(&args.device, global)?;
    let (ar, weights) = model::ar_model(&args.checkpoint, args.n_head, &runtime)?;
    let (tokenizer, info) = model::tokenizer(&args.tokenizer, &runtime)?;
    config.validate(ar.config.vocab())?;
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
        classes: classes(&args.classes, ar.config.class_num)?,
        per_class: args.num_per_class as usize,
        batch_size: args.batch_size as usize,
        runtime,
        model_fingerprint: format!("{} {}", model_fingerprint(&weights.params), info.fingerprint),
        overwrite: args.overwrite,
    };
    let mut meter = Meter::new(global, "images");
    let outcome =
        job.run(&args.out, args.npz.as_deref(), args.tokens.as_deref(), signals::flag(), &mut |done, all| {
            meter.update(done as u64, all as u64, "");
        })?;
    drop(meter);
    if global.json {
        return print_json(&outcome);
    }
    println!(
        "{} images ({} now, {:.2} s each, {})",
        outcome.images,
        outcome.images_now,
        outcome.seconds_per_image,
        seconds(outcome.seconds)
    );
    println!("grid: {}", outcome.grid.display());
    Ok(())
}

fn classes(text: &str, class_num: i64) -> anyhow::Result<Vec<i64>> {
    if text == "all" {
        return Ok((0..class_num).collect());
    }
    let classes: Result<Vec<i64>, _> = text.split(',').map(|part| part.trim().parse()).collect();
    Ok(classes.map_err(|_| Usage(format!("--classes {text}: expected `all` or class indices such as 207,88")))?)
}
