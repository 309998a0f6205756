//! `train ar --dry-run`: memory, disk space and steps of a run, for a device and processes that need not exist.

use super::training_memory;
use crate::args::{Global, TrainArArgs};
use crate::ranks::ranks;
use crate::terminal::{bytes, print_json};
use serde_json::json;
use tch::Device;
use tokengrid_model::runtime::cuda_index;
use tokengrid_model::{Precision, Runtime};
use tokengrid_train::ar::{ArConfig, Plan};

/// Prints the plan; reads only the cache's manifest and labels, and writes nothing.
pub(super) fn print(config: &ArConfig, args: &TrainArArgs, global: &Global) -> anyhow::Result<()> {
    // All processes have the same plan.
    let (_, world_size) = ranks(args.rank.or(Some(0)), args.world_size)?;
    let precision: Precision = config.train.precision.parse()?;
    let runtime = match args.config.device.as_deref() {
        Some(device) if device != "cpu" => Runtime::new(Device::Cuda(cuda_index(device)?), precision),
        device => Runtime::choose(device, precision, None)?,
    };
    let plan = Plan::of(config, &runtime, world_size as usize)?;
    let memory = training_memory::with_samples(plan.memory, config, &runtime);
    let tokens_per_step = plan.sharing.global_batch() as f64 * config.model.block_size as f64;
    let flops = |steps: u64| steps as f64 * tokens_per_step * plan.flops_per_token;
    if global.json {
        return print_json(&json!({
            "parameters": plan.parameters,
            "processes": world_size,
            "global_batch": plan.sharing.global_batch(),
            "images": plan.length.map(|length| length.images),
            "steps": plan.length.map(|length| length.steps),
            "warmup_steps": plan.length.map(|length| length.warmup_steps),
            "flops_per_token": plan.flops_per_token,
            "flops": plan.length.map(|length| flops(length.steps)),
            "memory_bytes": memory.total_bytes(),
        }));
    }
    println!("{} parameters; {}", plan.parameters, plan.sharing);
    match plan.length {
        Some(length) => println!(
            "{} steps ({} of warm-up) over {} images: {:.2e} floating-point operations",
            length.steps,
            length.warmup_steps,
            length.images,
            flops(length.steps)
        ),
        None => println!("{:.2e} floating-point operations per step; with --cache, the number of steps", flops(1)),
    }
    println!(
        "{} for each process; on {}, {}",
        training_memory::line(&memory, config),
        device_name(&runtime),
        config.train.precision
    );
    let copies = if config.train.ema_decay > 0.0 { 4 } else { 3 };
    println!("a checkpoint: {}", bytes(copies * 4 * plan.parameters as u64));
    Ok(())
}

fn device_name(runtime: &Runtime) -> &'static str {
    if runtime.device == Device::Cpu { "the CPU" } else { "a GPU, without what CUDA takes for itself" }
}
