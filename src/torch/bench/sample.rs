//! `tokengrid bench sample`: images per second sampled from an autoregressive model, at several batch sizes.
//!
//! Only tokens are sampled; decoding them to pictures is not measured. Batch sizes are measured in turn, so that other load
//! affects all of them.

use crate::args::{BenchSampleArgs, Global};
use crate::commands::bench::clock::{Took, median, time};
use crate::commands::bench::machine::{Machine, machine};
use crate::signals::{self, Stopped};
use crate::terminal::print_json;
use crate::torch::model::{self, pair};
use crate::torch::train::resolved;
use serde::Serialize;
use tokengrid_model::ar::{ArModel, initial_params};
use tokengrid_model::{Precision, Runtime};
use tokengrid_sample::guidance::GuidanceMode;
use tokengrid_sample::sampler::SampleRequest;
use tokengrid_sample::{Sampler, SamplerConfig, memory};
use tokengrid_train::ar::ArConfig;

#[derive(Debug, Serialize)]
struct Figures {
    machine: Machine,
    device: String,
    precision: &'static str,
    threads: i32,
    weights: String,
    parameters: i64,
    tokens_per_image: i64,
    config: SamplerConfig,
    unit: &'static str,
    batches: Vec<Batch>,
}

/// Medians over the rounds.
#[derive(Debug, Serialize)]
struct Batch {
    batch_size: u32,
    images_per_second: f64,
    seconds_per_image: f64,
    tokens_per_second: f64,
    /// Processor time of all threads, seconds.
    cpu_seconds_per_image: f64,
    /// Seconds per batch, round by round.
    rounds: Vec<f64>,
}

/// Runs the command.
pub(crate) fn run(args: &BenchSampleArgs, global: &Global) -> anyhow::Result<()> {
    let machine = machine();
    let precision: Precision = args.precision.parse()?;
    let runtime = Runtime::choose(args.config.device.as_deref(), precision, global.threads.map(usize::from))?;
    let runtime = runtime.with_graphs(args.cuda_graph);
    let Some((model, weights)) = model_of(args, &runtime, global)? else { return Ok(()) };
    let config = SamplerConfig {
        cfg_scale: pair("--cfg-scale", &args.cfg_scale)?,
        top_k: pair("--top-k", &args.top_k)?,
        top_p: pair("--top-p", &args.top_p)?,
        ..SamplerConfig::default()
    };
    let sequences = GuidanceMode::of(config.cfg_scale, config.cfg_schedule).count();
    let largest = args.batch_size.iter().copied().max().unwrap_or(1) as usize;
    memory::check(&model.config, runtime.device, precision.kind(), largest, sequences)?;
    let rounds = measure(args, &model, &config, &runtime)?;
    let n = model.config.block_size;
    let batches = args.batch_size.iter().zip(&rounds).map(|(&batch_size, rounds)| batch(batch_size, n, rounds));
    let figures = Figures {
        machine,
        device: format!("{:?}", runtime.device),
        precision: precision.name(),
        threads: tch::get_num_threads(),
        weights,
        parameters: model.config.num_params(),
        tokens_per_image: n,
        batches: batches.collect(),
        config,
        unit: "images",
    };
    if global.json {
        return print_json(&figures);
    }
    print(&figures);
    Ok(())
}

/// The checkpoint's model, or one with fresh weights, and its description. `None` if the configuration was only printed.
fn model_of(args: &BenchSampleArgs, runtime: &Runtime, global: &Global) -> anyhow::Result<Option<(ArModel, String)>> {
    if let Some(path) = &args.checkpoint {
        let (model, weights) = model::ar_model(path, None, &args.model, runtime)?;
        return Ok(Some((model, weights.path.display().to_string())));
    }
    let Some(config) = resolved::<ArConfig>(&args.config, vec![], global)? else { return Ok(None) };
    let (kind, device) = (runtime.precision.kind(), runtime.device);
    let params = initial_params(&config.model, config.train.seed).to_kind_and_device(kind, device);
    Ok(Some((ArModel::new(&config.model, &params, device, kind), "fresh".into())))
}

/// Times of all rounds of all batch sizes.
fn measure(
    args: &BenchSampleArgs,
    model: &ArModel,
    config: &SamplerConfig,
    runtime: &Runtime,
) -> anyhow::Result<Vec<Vec<Took>>> {
    let mut samplers = vec![];
    for _ in &args.batch_size {
        samplers.push(Sampler::new(model, config.clone(), *runtime)?);
    }
    let mut rounds = vec![vec![]; samplers.len()];
    // The first round of each warms up: memory is allocated, kernels are chosen.
    for round in 0..=args.rounds {
        for turn in 0..samplers.len() {
            let contestant = (turn + round as usize) % samplers.len();
            let wanted = wanted(args.batch_size[contestant], model.config.class_num, round);
            // The tokens are on the host when the call returns, so the device has finished.
            let (_, took) = time(|| Ok(samplers[contestant].sample(&wanted)?))?;
            if round > 0 {
                rounds[contestant].push(took);
            }
            if signals::cancelled() {
                return Err(Stopped.into());
            }
        }
    }
    Ok(rounds)
}

/// Images of all classes in turn, different ones in every round.
fn wanted(batch_size: u32, class_num: i64, round: u32) -> Vec<SampleRequest> {
    let image = |i: u32| SampleRequest { class: i64::from(i) % class_num, index: u64::from(round) };
    (0..batch_size).map(image).collect()
}

fn batch(batch_size: u32, tokens_per_image: i64, rounds: &[Took]) -> Batch {
    let walls: Vec<f64> = rounds.iter().map(|took| took.wall.as_secs_f64()).collect();
    let cpus: Vec<f64> = rounds.iter().map(|took| took.cpu.as_secs_f64()).collect();
    let images = f64::from(batch_size);
    let seconds_per_image = median(&walls) / images;
    Batch {
        batch_size,
        images_per_second: 1.0 / seconds_per_image,
        seconds_per_image,
        tokens_per_second: tokens_per_image as f64 / seconds_per_image,
        cpu_seconds_per_image: median(&cpus) / images,
        rounds: walls,
    }
}

fn print(figures: &Figures) {
    let Figures { machine, device, precision, threads, parameters, tokens_per_image, config, weights, .. } = figures;
    println!("{} ({} cores), load {:.1}; {}", machine.processor, machine.cores, machine.load, machine.version);
    println!(
        "{device}, {precision}, {threads} threads; {parameters} parameters ({weights}), {tokens_per_image} tokens per image"
    );
    println!("guidance {:?}, top-k {:?}, top-p {:?}", config.cfg_scale, config.top_k, config.top_p);
    for batch in &figures.batches {
        println!(
            "batch {:<5} {:9.3} images/s  {:9.4} s per image  {:9.0} tokens/s",
            batch.batch_size, batch.images_per_second, batch.seconds_per_image, batch.tokens_per_second
        );
    }
}
