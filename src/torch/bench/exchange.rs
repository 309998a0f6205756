//! `tokengrid bench exchange`: time for several processes to sum gradients.

use crate::args::{BenchExchangeArgs, Global};
use crate::commands::bench::clock::median;
use crate::commands::bench::machine::{Machine, machine};
use crate::exit::CheckFailed;
use crate::ranks::ranks;
use crate::signals::{self, Stopped};
use crate::terminal::print_json;
use crate::torch::model;
use crate::torch::process_group::{join, speaker};
use serde::Serialize;
use std::time::Instant;
use tch::{Kind, Tensor};
use tokengrid_train::process_group::{Fact, Pending, ProcessGroup};

/// Timeout in seconds of waiting for the other processes.
const TIMEOUT_SECS: f64 = 600.0;

#[derive(Debug, Serialize)]
struct Figures {
    machine: Machine,
    device: String,
    processes: usize,
    numbers: u64,
    bucket_bytes: u64,
    unit: &'static str,
    /// Median over the rounds.
    milliseconds: f64,
    /// Every round.
    rounds: Vec<f64>,
}

/// Runs the command.
pub(crate) fn run(args: &BenchExchangeArgs, global: &Global) -> anyhow::Result<()> {
    let machine = machine();
    let runtime = model::runtime(&args.device, global)?;
    let among = ranks(args.among.rank, args.among.world_size)?;
    let facts =
        || Ok(vec![Fact::new("what is measured", format!("{:?}", (args.numbers, args.bucket_bytes, args.rounds)))]);
    let mut processes = join(among, facts, TIMEOUT_SECS)?;
    processes.use_device(runtime.device)?;
    let gradients = Tensor::zeros([args.numbers as i64], (Kind::Float, runtime.device));
    let buckets: Vec<Tensor> = gradients.split((args.bucket_bytes / 4) as i64, 0);
    let rounds = (0..=args.rounds).map(|_| sum(&gradients, &buckets, &*processes));
    // The first round warms up.
    let rounds: Vec<f64> = rounds.skip(1).collect::<anyhow::Result<_>>()?;
    processes.finish()?;
    if !processes.is_first() {
        return Ok(());
    }
    let figures = Figures {
        machine,
        device: format!("{:?}", runtime.device).to_lowercase(),
        processes: processes.world_size(),
        numbers: args.numbers,
        bucket_bytes: args.bucket_bytes,
        unit: "milliseconds per sum",
        milliseconds: median(&rounds),
        rounds,
    };
    if speaker(global, true).json {
        return print_json(&figures);
    }
    let Figures { milliseconds, processes, numbers, .. } = figures;
    println!("{milliseconds:.1} ms for {numbers} numbers in {processes} processes, {} buckets", buckets.len());
    Ok(())
}

/// Sums ones over all processes; returns the milliseconds that it took.
fn sum(gradients: &Tensor, buckets: &[Tensor], processes: &dyn ProcessGroup) -> anyhow::Result<f64> {
    if processes.any(signals::cancelled())? {
        return Err(Stopped.into());
    }
    let mut gradients = gradients.shallow_clone();
    let _ = gradients.fill_(1.0);
    // All processes start together.
    processes.barrier()?;
    let started = Instant::now();
    let pending: Vec<Pending> = buckets.iter().map(|bucket| processes.start_sum(bucket)).collect::<Result<_, _>>()?;
    pending.into_iter().try_for_each(Pending::wait)?;
    let took = started.elapsed().as_secs_f64();
    let wanted = processes.world_size() as f64;
    let [least, most] = [gradients.min(), gradients.max()].map(|end| end.double_value(&[]));
    match least == wanted && most == wanted {
        true => Ok(1e3 * took),
        false => Err(CheckFailed(format!("sums of {wanted} ones are {least} to {most}")).into()),
    }
}
