//! `tokengrid bench encode`: views per second of the encoder, and of the same network in libtorch's own operations.
//!
//! The two are measured alternately, so that other load affects both.

use crate::args::{BenchEncodeArgs, Global};
use crate::commands::bench::clock::{Rate, Took, median, time};
use crate::commands::bench::machine::{Machine, machine};
use crate::signals::{self, Stopped};
use crate::terminal::print_json;
use crate::torch::model;
use serde::Serialize;
use tokengrid_model::tokenizer::{formula_params, formula_pixels};
use tokengrid_model::{Architecture, Params, Runtime, Tokenizer, Variant, tiny};
use tokengrid_tokenize::{Tokens, ViewEncoder};

/// Salt of the synthetic weights and pixels.
const SALT: &str = "v1:bench:";

#[derive(Debug, Serialize)]
struct Figures {
    machine: Machine,
    weights: String,
    size: u32,
    batch_size: u32,
    device: String,
    precision: &'static str,
    threads: usize,
    unit: &'static str,
    images_per_second: f64,
    seconds_per_image: f64,
    /// This program's encoder, from bytes to tokens.
    encoder: Rate,
    /// The same with libtorch's operations only.
    libtorch: Rate,
    /// `encoder` over `libtorch` by wall time: the median of the rounds' ratios.
    of_libtorch: f64,
    /// Number of bits compared, those of the last round.
    bits: u64,
    /// Number of bits that differ between the two.
    differing_bits: u64,
    /// Number of those for which |h| of this program's encoder is above the margin.
    differing_outside_margin: u64,
    /// Tokens of the first view.
    tokens: Vec<u32>,
}

/// Runs the command.
pub(crate) fn run(args: &BenchEncodeArgs, global: &Global) -> anyhow::Result<()> {
    let machine = machine();
    let runtime = model::runtime(&args.device, global)?;
    let (weights, architecture, params) = weights(args)?;
    let job_factor = architecture.factor();
    if args.size == 0 || !args.size.is_multiple_of(job_factor) {
        return Err(tokengrid_model::ModelError::Size { size: args.size, factor: job_factor }.into());
    }
    let params = params.to_kind_and_device(runtime.precision.kind(), runtime.device);
    let ours = Tokenizer::from_params(architecture.clone(), &params).for_inference();
    let theirs = Tokenizer::from_params(architecture, &params);
    let bench = Bench::new(args, runtime);
    let (mut mine, mut plain) = (vec![], vec![]);
    let mut tokens = [bench.encode(&ours)?.0, bench.encode(&theirs)?.0];
    for _ in 0..args.rounds {
        for (place, (tokenizer, took)) in [(&ours, &mut mine), (&theirs, &mut plain)].into_iter().enumerate() {
            if signals::cancelled() {
                return Err(Stopped.into());
            }
            let (encoded, round) = bench.encode(tokenizer)?;
            tokens[place] = encoded;
            took.push(round);
        }
    }
    let figures = figures(args, machine, weights, runtime, [&mine, &plain], tokens);
    if global.json { print_json(&figures) } else { print(&figures) }
}

fn figures(
    args: &BenchEncodeArgs,
    machine: Machine,
    weights: String,
    runtime: Runtime,
    [mine, plain]: [&[Took]; 2],
    [ours, theirs]: [Tokens; 2],
) -> Figures {
    let count = u64::from(args.batch_size);
    let (encoder, libtorch) = (Rate::of(count, mine), Rate::of(count, plain));
    let ratios: Vec<f64> = encoder.rounds.iter().zip(&libtorch.rounds).map(|(a, b)| a / b).collect();
    let differing = ours.tokens.iter().zip(&theirs.tokens).map(|(a, b)| a ^ b);
    let outside = differing.clone().zip(&ours.uncertain).map(|(bits, uncertain)| bits & !uncertain);
    let count_ones = |bits: &mut dyn Iterator<Item = u32>| bits.map(|b| u64::from(b.count_ones())).sum();
    let tokens_per_view = ours.tokens.len() / args.batch_size as usize;
    Figures {
        machine,
        weights,
        size: args.size,
        batch_size: args.batch_size,
        device: format!("{:?}", runtime.device).to_lowercase(),
        precision: runtime.precision.name(),
        threads: tch::get_num_threads() as usize,
        unit: "images",
        images_per_second: encoder.per_second,
        seconds_per_image: 1.0 / encoder.per_second,
        of_libtorch: median(&ratios),
        bits: ours.margins.iter().map(|margins| margins.bits()).sum(),
        differing_bits: count_ones(&mut differing.clone()),
        differing_outside_margin: count_ones(&mut outside.clone()),
        tokens: ours.tokens[..tokens_per_view].to_vec(),
        encoder,
        libtorch,
    }
}

/// The tokenizer of `--tokenizer`, or synthetic weights for `--architecture`.
fn weights(args: &BenchEncodeArgs) -> anyhow::Result<(String, Architecture, Params)> {
    let Some(path) = &args.tokenizer else {
        let architecture = Architecture::named(&args.architecture)?;
        let params = formula_params(&architecture, SALT);
        return Ok((format!("{} by formula", args.architecture), architecture, params));
    };
    let variant: Variant = args.variant.parse()?;
    let weights = tiny::open_tokenizer(path)?;
    let params = weights.tokenizer_params(variant)?;
    let architecture = Architecture::infer(&params, weights.path())?;
    Ok((path.display().to_string(), architecture, params))
}

/// The views to encode, synthetic or built-in.
struct Bench {
    runtime: Runtime,
    side: u32,
    pixels: Vec<u8>,
    places: Vec<usize>,
}

impl Bench {
    fn new(args: &BenchEncodeArgs, runtime: Runtime) -> Bench {
        let count = args.batch_size as usize;
        let pixels = formula_pixels(&format!("{SALT}pixels"), count, args.size as usize);
        Bench { runtime, side: args.size, pixels, places: (0..count).collect() }
    }

    fn encode(&self, tokenizer: &Tokenizer) -> anyhow::Result<(Tokens, Took)> {
        let encoder = ViewEncoder::new(tokenizer, self.runtime, self.side);
        time(|| Ok(encoder.encode(&self.pixels, &self.places, true)?))
    }
}

fn print(figures: &Figures) -> anyhow::Result<()> {
    let Figures { machine, weights, size, batch_size, device, precision, threads, encoder, libtorch, .. } = figures;
    println!("{} ({} cores), load {:.1}; {}", machine.processor, machine.cores, machine.load, machine.version);
    println!("{weights}, {batch_size} views of {size} pixels per call, {device}, {precision}, {threads} threads");
    let line = |what: &str, rate: &Rate| {
        let (wall, cpu) = (rate.per_second, rate.per_cpu_second);
        println!("{what:<24} {wall:8.3} images/s {:8.3} s per image {cpu:8.3} images/CPU s", 1.0 / wall);
    };
    line("encoder", encoder);
    line("libtorch's operations", libtorch);
    println!("{:.2} x libtorch's", figures.of_libtorch);
    let (differing, bits, outside) = (figures.differing_bits, figures.bits, figures.differing_outside_margin);
    println!("{differing} of {bits} bits differ, {outside} of them not near 0");
    Ok(())
}
