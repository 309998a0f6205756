//! `tokengrid eval reconstruction`: reconstruction quality of a tokenizer.

use super::among::Among;
use super::{cut, print_absent, print_bad, show};
use crate::args::{EvalReconstructionArgs, Global, SizeArg, TokenizerArgs};
use crate::commands::ingest;
use crate::files::{self, check_target, is_own_png};
use crate::signals;
use crate::terminal::{Meter, counted, print_json, seconds};
use crate::torch::model;
use anyhow::Context;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use tokengrid_cache::TokenizerInfo;
use tokengrid_eval::Inception;
use tokengrid_eval::perceptual::Net;
use tokengrid_eval::pictures::Pictures;
use tokengrid_eval::progress::Watch;
use tokengrid_eval::reconstruction::{ReconstructionJob, ReconstructionReport};
use tokengrid_ingest::{BadPolicy, Limits, SourceOptions};
use tokengrid_model::perceptual::{Backbone, Lpips};
use tokengrid_model::{ModelError, Runtime, Tokenizer, Variant, tiny};
use tokengrid_train::process_group::Fact;

/// The report: results and their settings.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    report: &'a ReconstructionReport,
    images_per_second: f64,
    tokenizer: &'a str,
    variant: &'a str,
    size: String,
    precision: &'static str,
    device: String,
}

/// Runs the command.
pub(super) fn run(args: &EvalReconstructionArgs, global: &Global) -> anyhow::Result<()> {
    let runtime = model::runtime(&args.device, global)?;
    let weights = weights(args)?;
    let (tokenizer, info) = model::tokenizer(&weights, &runtime)?;
    check_size(args.size, &tokenizer)?;
    if let Some(out) = &args.out {
        check_looks(out, args.pairs)?;
    }
    let inception = args.inception.as_deref().map(|path| Inception::open(path, runtime)).transpose()?;
    let nets = perceptual_nets(args, &runtime)?;
    let pictures = pictures(args, global)?;
    let among = Among::join(&args.among, || Ok(facts(args, &info, &pictures)))?;
    let global = &among.speaker(global);
    let job = ReconstructionJob {
        pictures,
        tokenizer: &tokenizer,
        runtime,
        batch_size: batch_size(args),
        inception: inception.as_ref(),
        lpips: nets.iter().map(|(backbone, lpips)| Net { backbone: *backbone, lpips }).collect(),
        bad_policy: ingest::bad_policy(&args.bad, BadPolicy::default()),
        kept_pairs: if args.out.is_some() { args.pairs as usize } else { 0 },
    };
    let mut meter = Meter::new(global, "images");
    let report = job.run(&among, &mut Watch { cancel: signals::flag(), progress: &mut show(&mut meter) })?;
    drop(meter);
    among.0.finish()?;
    let Some(report) = report else { return Ok(()) };
    if let Some(out) = &args.out {
        std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
        report
            .extremes
            .pictures()
            .try_for_each(|(name, picture)| files::write_whole(&out.join(name), &picture.to_png()))?;
    }
    print_absent(&report.absent, global);
    if global.json {
        return print_json(&answer(&report, args, &runtime, &info));
    }
    print(&report, args);
    Ok(())
}

/// Values that must be equal in all processes that share an evaluation.
fn facts(args: &EvalReconstructionArgs, info: &TokenizerInfo, pictures: &Pictures) -> Vec<Fact> {
    let nets = [args.inception.is_some(), args.lpips_vgg.is_some(), args.lpips_alex.is_some()];
    let settings = (args.batch_size, args.out.is_some(), args.pairs, args.max_pixels, nets);
    vec![
        Fact::new("the tokenizer's fingerprint", info.fingerprint.clone()),
        Fact::new("what is evaluated", pictures.describe()),
        Fact::new(
            "the setting of --batch-size, --out, --pairs, --max-pixels and the networks",
            format!("{settings:?}"),
        ),
    ]
}

/// The requested variant of the weights; by default their moving average if the file has it, as in the published results.
fn weights(args: &EvalReconstructionArgs) -> anyhow::Result<TokenizerArgs> {
    let variant = match &args.variant {
        Some(typed) => typed.clone(),
        None if tiny::open_tokenizer(&args.tokenizer)?.has_ema() => Variant::Ema.name().into(),
        None => Variant::Raw.name().into(),
    };
    Ok(TokenizerArgs { tokenizer: args.tokenizer.clone(), variant })
}

/// Checks that the pictures of the best and the worst can be written to `out` later.
fn check_looks(out: &Path, pairs: u32) -> anyhow::Result<()> {
    if !out.exists() {
        return Ok(());
    }
    let names = ["worst", "best"].into_iter().flat_map(|name| (0..pairs).map(move |i| format!("{name}-{i:02}.png")));
    names.map(|name| out.join(name)).try_for_each(|path| check_target(&path, is_own_png))
}

/// Whole pictures can be large, so they are evaluated one at a time.
fn batch_size(args: &EvalReconstructionArgs) -> usize {
    if args.size == SizeArg::Original { 1 } else { args.batch_size as usize }
}

fn check_size(size: SizeArg, tokenizer: &Tokenizer) -> Result<(), ModelError> {
    let factor = tokenizer.architecture.factor();
    match size {
        SizeArg::Pixels(size) if !size.is_multiple_of(factor) => Err(ModelError::Size { size, factor }),
        _ => Ok(()),
    }
}

fn perceptual_nets(args: &EvalReconstructionArgs, runtime: &Runtime) -> Result<Vec<(Backbone, Lpips)>, ModelError> {
    let files = [(Backbone::Vgg16, &args.lpips_vgg), (Backbone::AlexNet, &args.lpips_alex)];
    let given = files.into_iter().filter_map(|(backbone, path)| Some((backbone, path.as_ref()?)));
    given.map(|(backbone, path)| Ok((backbone, Lpips::open(backbone, path, runtime.device)?))).collect()
}

fn pictures(args: &EvalReconstructionArgs, global: &Global) -> anyhow::Result<Pictures> {
    // Classes do not matter here: unusable labels are ignored.
    let options = SourceOptions {
        exclude: ingest::excluded(None, &args.exclude)?,
        limit: args.limit,
        image_column: args.image_column.clone(),
        label_column: Some("none".into()),
        ..SourceOptions::default()
    };
    if let Some(out) = &args.out {
        ingest::check_apart(out, &args.source)?;
    }
    let source = Arc::new(ingest::open_source(&args.source, &options)?);
    if let Some(out) = &args.out {
        ingest::check_apart_from_linked(out, &source)?;
    }
    let limits = Limits { max_pixels: args.max_pixels, ..Limits::default() };
    Ok(Pictures::Source { source, cut: cut(args.size), threads: global.threads.unwrap_or(0).into(), limits })
}

fn answer<'a>(
    report: &'a ReconstructionReport,
    args: &EvalReconstructionArgs,
    runtime: &Runtime,
    info: &'a TokenizerInfo,
) -> Answer<'a> {
    Answer {
        report,
        images_per_second: report.images as f64 / report.seconds.max(1e-9),
        tokenizer: &info.name,
        variant: &info.variant,
        size: size_name(args.size),
        precision: runtime.precision.name(),
        device: format!("{:?}", runtime.device).to_lowercase(),
    }
}

fn size_name(size: SizeArg) -> String {
    match size {
        SizeArg::Original => "original".into(),
        SizeArg::Pixels(pixels) => pixels.to_string(),
    }
}

fn print(report: &ReconstructionReport, args: &EvalReconstructionArgs) {
    let figure = |name: &str, value: Option<f64>, unit: &str| {
        if let Some(value) = value {
            println!("{name:<12} {value:.4}{unit}");
        }
    };
    println!("{}, size {}, {}", counted(report.images, "image"), size_name(args.size), seconds(report.seconds));
    figure("rFID", report.rfid, "");
    figure("PSNR", report.psnr, " dB");
    figure("SSIM", report.ssim, "");
    figure("LPIPS vgg", report.lpips_vgg, "");
    figure("LPIPS alex", report.lpips_alex, "");
    let used = &report.codebook;
    println!(
        "codebook     {} of {} codes occur in {} tokens ({:.2} %)",
        used.distinct_codes,
        used.codebook_size,
        used.tokens,
        100.0 * used.codebook_utilization
    );
    let balance: Vec<String> = used.bit_balance.iter().map(|share| format!("{share:.2}")).collect();
    println!("share of 1   {} (by bit)", balance.join(" "));
    if !used.dead_bits.is_empty() {
        println!("dead bits    {:?}", used.dead_bits);
    }
    print_bad(&report.bad);
    if let Some(out) = &args.out {
        for (name, pairs) in [("worst", report.extremes.worst().next()), ("best", report.extremes.best().next())] {
            if let Some((key, psnr)) = pairs {
                println!("{name:<12} {key}, {psnr:.2} dB: {}", out.join(format!("{name}-00.png")).display());
            }
        }
    }
}
