//! `tokengrid bench train`: the time of a training step, by source of its tokens and computation of its gradients.
//!
//! The variants run alternately, one step each, with the same data and initial weights, and must have the same losses.
//! With a cache, synthetic tokens are measured too: the difference is the cost of reading the cache.

use crate::args::{BenchTrainArgs, DeviceArgs, Global, MadeOfArgs, TokenizerArgs};
use crate::commands::bench::clock::{Took, median, time};
use crate::commands::bench::machine::{Machine, machine};
use crate::exit::{CheckFailed, Usage};
use crate::signals::{self, Stopped};
use crate::terminal::print_json;
use crate::torch::cache::with_job;
use crate::torch::train::{resolved_ar, texts};
use crate::torch::training_memory;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tokengrid_cache::{Access, Loader, LoaderConfig, TokenCache};
use tokengrid_model::ar::initial_params;
use tokengrid_model::{Precision, Runtime};
use tokengrid_tokenize::Job;
use tokengrid_train::ar::{ArConfig, Engine, GradAccum, HostBatch, StepName, Unpacker};
use tokengrid_train::process_group::OneProcess;

#[derive(Debug, Serialize)]
struct Figures {
    machine: Machine,
    device: String,
    precision: &'static str,
    threads: i32,
    parameters: usize,
    batch_size: usize,
    block_size: i64,
    unit: &'static str,
    /// By variant.
    steps: BTreeMap<&'static str, Step>,
}

#[derive(Debug, Serialize)]
struct Step {
    /// Median wall time of a step, its data included, seconds.
    seconds_per_step: f64,
    /// Median processor time, seconds.
    cpu_seconds_per_step: f64,
    tokens_per_second: f64,
    /// Share of the time that was spent on getting the tokens.
    data_fraction: f64,
    /// Median over the rounds of this variant's time over that of the first.
    times_the_first: f64,
    /// Loss of each step in nats per token: low bits and high bits.
    losses: Vec<[f64; 2]>,
}

/// Source of a variant's tokens.
enum Data<'a> {
    Synthetic,
    Cache(Unpacker),
    Encoded(&'a Job<'a>),
}

struct Contestant<'a> {
    name: &'static str,
    engine: Engine,
    data: Data<'a>,
    data_times: Vec<Took>,
    times: Vec<Took>,
    losses: Vec<[f64; 2]>,
}

/// Runs the command.
pub(crate) fn run(args: &BenchTrainArgs, global: &Global) -> anyhow::Result<()> {
    let flags = texts(&[("data.cache", &args.cache)]);
    let Some((mut config, _)) = resolved_ar(&args.config, flags, None, global)? else { return Ok(()) };
    // The computations draw dropout differently; only without it do they have the same losses.
    if !args.dropout {
        config.model.token_drop = 0.0;
        config.model.resid_dropout = 0.0;
        config.model.ffn_dropout = 0.0;
    }
    let (Some(source), Some(tokenizer), Some(cache)) = (&args.source, &args.tokenizer, &args.cache) else {
        return compare(&config, None, args, global);
    };
    if config.train.precision == Precision::Tf32.name() {
        // The precision of the GPU libraries' products is fixed for the whole process when they are loaded.
        let text = "--source encodes in fp32, which one process cannot do beside tf32; leave it out, or take another \
                    train.precision";
        return Err(Usage(text.into()).into());
    }
    let made_of = MadeOfArgs {
        source: vec![source.clone()],
        labels: None,
        image_column: None,
        label_column: None,
        preset: None,
        exclude: vec![],
        limit: None,
        tokenizer: TokenizerArgs { tokenizer: tokenizer.clone(), variant: args.variant.clone() },
        device: DeviceArgs { device: args.config.device.clone(), precision: "fp32".into() },
    };
    let manifest = TokenCache::open(Path::new(cache))?.manifest().clone();
    with_job(&manifest, Path::new(cache), &made_of, global, |job| compare(&config, Some(job), args, global))
}

fn compare(config: &ArConfig, job: Option<&Job>, args: &BenchTrainArgs, global: &Global) -> anyhow::Result<()> {
    // A measured step is one micro-batch.
    let mut config = config.clone();
    let train = &mut config.train;
    (train.grad_accum, train.global_batch, train.deterministic_reduce) = (GradAccum::Count(1), None, false);
    let config = &config;
    let precision: Precision = config.train.precision.parse()?;
    let runtime = Runtime::choose(args.config.device.as_deref(), precision, global.threads.map(usize::from))?;
    let runtime = runtime.with_graphs(config.train.cuda_graph);
    training_memory::foresee(config, &runtime, 1, global)?;
    let mut contestants = contestants(config, job, args, &runtime)?;
    let mut loader = loader(config)?;
    let mut rows = vec![];
    // The first step of each warms up: memory is allocated, kernels are chosen.
    for step in 0..=args.steps {
        if let Some(loader) = &mut loader {
            loader.next_rows(&mut rows);
        }
        let count = contestants.len();
        for turn in 0..count {
            if signals::cancelled() {
                return Err(Stopped.into());
            }
            contestants[(turn + step as usize) % count].step(config, &rows, step.into())?;
        }
    }
    check_losses(&contestants)?;
    let figures = figures(config, &runtime, &contestants);
    if global.json {
        return print_json(&figures);
    }
    print(&figures);
    Ok(())
}

fn contestants<'a>(
    config: &ArConfig,
    job: Option<&'a Job<'a>>,
    args: &BenchTrainArgs,
    runtime: &Runtime,
) -> anyhow::Result<Vec<Contestant<'a>>> {
    let params = initial_params(&config.model, config.train.seed);
    let contestant = |name, config: &ArConfig, data| -> anyhow::Result<Contestant> {
        let engine = Engine::new(config, &params, runtime)?;
        Ok(Contestant { name, engine, data, data_times: vec![], times: vec![], losses: vec![] })
    };
    let cache = || -> anyhow::Result<Data> {
        if config.data.cache.is_empty() {
            return Ok(Data::Synthetic);
        }
        Ok(Data::Cache(Unpacker::open(Path::new(&config.data.cache), &config.model, Access::Map)?))
    };
    let name = if config.data.cache.is_empty() { "synthetic tokens" } else { "tokens from the cache" };
    let mut all = vec![contestant(name, config, cache()?)?];
    if args.autograd {
        let mut autograd = config.clone();
        autograd.train.fused = false;
        all.push(contestant("the same, by autograd", &autograd, cache()?)?);
    }
    if !config.data.cache.is_empty() {
        // The difference to it is the cost of reading the cache.
        all.push(contestant("synthetic tokens", config, Data::Synthetic)?);
    }
    if let Some(job) = job {
        all.push(contestant("images encoded in every step", config, Data::Encoded(job))?);
    }
    Ok(all)
}

fn loader(config: &ArConfig) -> anyhow::Result<Option<Loader>> {
    if config.data.cache.is_empty() {
        return Ok(None);
    }
    let cache = Arc::new(TokenCache::open(Path::new(&config.data.cache))?);
    let (seed, batch_size) = (config.train.seed as u64, config.train.batch_size);
    Ok(Some(Loader::new(cache, LoaderConfig { seed, batch_size, rank: 0, world_size: 1 })?))
}

impl Contestant<'_> {
    fn step(&mut self, config: &ArConfig, rows: &[usize], step: u64) -> anyhow::Result<()> {
        let (batch, data) = time(|| self.data.batch(config, rows, step))?;
        let (engine, name) = (&mut self.engine, StepName { seed: config.train.seed, step });
        let (losses, took) = time(|| {
            let mut batch = Some(batch);
            let mut next = |_: u64| Ok(batch.take().expect("one micro-batch a step"));
            let values = engine.step(&mut next, name, 1e-4, &OneProcess)?;
            // Reading the values waits for the device.
            Ok([values.double_value(&[0]), values.double_value(&[1])])
        })?;
        self.losses.push(losses);
        if step > 0 {
            self.data_times.push(data);
            self.times.push(Took { wall: data.wall + took.wall, cpu: data.cpu + took.cpu });
        }
        Ok(())
    }
}

impl Data<'_> {
    fn batch(&self, config: &ArConfig, rows: &[usize], step: u64) -> anyhow::Result<HostBatch> {
        match self {
            Data::Synthetic => Ok(HostBatch::synthetic(&config.model, config.train.batch_size, step)),
            Data::Cache(unpacker) => Ok(unpacker.unpack(rows)?),
            Data::Encoded(job) => encoded(job, config, rows),
        }
    }
}

/// The batch of `rows`, encoded from the images.
fn encoded(job: &Job, config: &ArConfig, rows: &[usize]) -> anyhow::Result<HostBatch> {
    let num_views = job.num_views() as usize;
    let images: Vec<usize> = rows.iter().map(|row| row / num_views).collect();
    let mut tokens = vec![];
    let mut class = vec![];
    let mut places = rows.iter().map(|row| row % num_views);
    job.encode_images(&images, &mut |image| {
        let view = places.next().expect("an image per row");
        let views = image.outcome.unwrap_or_default();
        tokens.extend(views.get(view).map(|view| view.tokens.clone()).unwrap_or_default());
        class.push(if image.label < 0 { config.model.class_num } else { i64::from(image.label) });
        Ok(())
    })?;
    let expected = rows.len() * config.model.block_size as usize;
    if tokens.len() != expected {
        return Err(CheckFailed("the source has bad images; measure with one that has none".into()).into());
    }
    let low = config.model.factorized_bits[0];
    let pre = tokens.iter().map(|token| i64::from(token & ((1 << low) - 1))).collect();
    let post = tokens.iter().map(|token| i64::from(token >> low)).collect();
    Ok(HostBatch { pre, post, class })
}

/// Checks that variants with the same tokens have the same losses; bit for bit if they differ only in the source of tokens.
fn check_losses(contestants: &[Contestant]) -> anyhow::Result<()> {
    let [first, others @ ..] = contestants else { return Ok(()) };
    let made_up = |one: &Contestant| matches!(one.data, Data::Synthetic);
    for other in others.iter().filter(|other| made_up(other) == made_up(first)) {
        let tolerance = if matches!(other.data, Data::Encoded(_)) { 0.0 } else { 1e-4 };
        let differ = |a: &[f64; 2], b: &[f64; 2]| (0..2).any(|i| (a[i] - b[i]).abs() > tolerance * b[i].abs());
        if let Some(step) = first.losses.iter().zip(&other.losses).position(|(a, b)| differ(a, b)) {
            let (a, b) = (first.losses[step], other.losses[step]);
            let text = format!("{} and {} differ in step {step}: losses {a:?} and {b:?}", first.name, other.name);
            return Err(CheckFailed(text).into());
        }
    }
    Ok(())
}

fn figures(config: &ArConfig, runtime: &Runtime, contestants: &[Contestant]) -> Figures {
    let tokens = config.train.batch_size as f64 * config.model.block_size as f64;
    let seconds = |times: &[Took]| -> Vec<f64> { times.iter().map(|took| took.wall.as_secs_f64()).collect() };
    let first = contestants.first().map(|first| seconds(&first.times)).unwrap_or_default();
    let step = |contestant: &Contestant| {
        let walls = seconds(&contestant.times);
        let cpus: Vec<f64> = contestant.times.iter().map(|took| took.cpu.as_secs_f64()).collect();
        let ratios: Vec<f64> = walls.iter().zip(&first).map(|(wall, first)| wall / first).collect();
        let data: f64 = seconds(&contestant.data_times).iter().sum();
        let seconds_per_step = median(&walls);
        Step {
            seconds_per_step,
            cpu_seconds_per_step: median(&cpus),
            tokens_per_second: tokens / seconds_per_step,
            data_fraction: data / walls.iter().sum::<f64>(),
            times_the_first: median(&ratios),
            losses: contestant.losses.clone(),
        }
    };
    Figures {
        machine: machine(),
        device: format!("{:?}", runtime.device),
        precision: if runtime.route.own_kernels { Precision::Fp32.name() } else { runtime.precision.name() },
        threads: tch::get_num_threads(),
        parameters: contestants.first().map_or(0, |first| first.engine.optimizer.num_params()),
        batch_size: config.train.batch_size,
        block_size: config.model.block_size,
        unit: "tokens",
        steps: contestants.iter().map(|contestant| (contestant.name, step(contestant))).collect(),
    }
}

fn print(figures: &Figures) {
    let Figures { machine, device, precision, threads, parameters, batch_size, block_size, steps, .. } = figures;
    println!("{} ({} cores), load {:.1}; {}", machine.processor, machine.cores, machine.load, machine.version);
    println!(
        "{device}, {precision}, {threads} threads; {parameters} parameters, batches of {batch_size} x {block_size}"
    );
    let mut steps: Vec<_> = steps.iter().collect();
    steps.sort_by(|a, b| a.1.times_the_first.total_cmp(&b.1.times_the_first));
    for (name, step) in steps {
        println!(
            "{name:<28}  {:8.3} s per step  {:9.0} tokens/s  x {:.2}  data {:.2} %",
            step.seconds_per_step,
            step.tokens_per_second,
            step.times_the_first,
            100.0 * step.data_fraction
        );
    }
}
