//! Estimates the memory of a training run before it starts, and compares it with that of the machine.

use super::training_fid::BATCH;
use crate::args::Global;
use crate::terminal::bytes;
use tch::{Device, Kind};
use tokengrid_model::Runtime;
use tokengrid_sample::memory::{available_bytes, sequence_bytes};
use tokengrid_train::TrainError;
use tokengrid_train::ar::{ArConfig, MemoryEstimate, estimate, estimate_among, largest_batch};
use tokengrid_train::tokenizer::TokenizerConfig;

/// Prints the peak bytes of a run of `config` (of this process, or on the GPU), and warns if the machine has less available.
///
/// # Errors
/// The run takes more memory than the whole machine has.
pub(super) fn foresee(config: &ArConfig, runtime: &Runtime, world_size: usize, global: &Global) -> anyhow::Result<u64> {
    let estimate = with_samples(estimate_among(config, runtime, world_size), config, runtime);
    // tch has no function for the free memory of a GPU.
    let on_cpu = runtime.device == Device::Cpu;
    let available = if on_cpu { available_bytes() } else { None };
    let own = if on_cpu { kibibytes("/proc/self/status", "VmRSS:").unwrap_or_default() } else { 0 };
    if let Some(machine) = machine_bytes().filter(|_| on_cpu) {
        refuse_impossible("train.batch_size", estimate.total_bytes(), machine, || advice(config, runtime, machine))?;
    }
    if !global.quiet {
        let has = available.map_or(String::new(), |available| format!(", {} available", bytes(available)));
        eprintln!("{}{has}", line(&estimate, config));
    }
    if let Some(available) = available.filter(|available| estimate.total_bytes() > *available) {
        tracing::warn!("the run takes more memory than there is: {}", advice(config, runtime, available));
    }
    Ok(estimate.total_bytes() + own)
}

/// The estimate including the samples that a run makes: they are made neither during a step nor during a checkpoint.
pub(super) fn with_samples(mut estimate: MemoryEstimate, config: &ArConfig, runtime: &Runtime) -> MemoryEstimate {
    let (model, train) = (&config.model, &config.train);
    if train.sample_every == 0 && train.fid_every == 0 {
        return estimate;
    }
    // With guidance every sample is two sequences. On the CPU the decoder has its own copy of the weights.
    let sequences = 2 * BATCH as u64;
    let on_cpu = runtime.device == Device::Cpu;
    let kind = if on_cpu { Kind::Float } else { runtime.precision.kind() };
    let weights = if on_cpu { 4 * model.num_params() as u64 } else { 0 };
    let sampling = weights + sequences * sequence_bytes(model, kind);
    estimate.transient_bytes = estimate.transient_bytes.max(sampling);
    if train.fid_every > 0 {
        estimate.weights_bytes += INCEPTION_BYTES;
    }
    estimate
}

/// Refuses a tokenizer's training for which the activations of the finest level alone are too large.
///
/// # Errors
/// They take more memory than the whole machine has.
pub(super) fn refuse_impossible_tokenizer(config: &TokenizerConfig, runtime: &Runtime) -> anyhow::Result<()> {
    let Some(machine) = machine_bytes().filter(|_| runtime.device == Device::Cpu) else { return Ok(()) };
    let needed = config.train.activation_bytes_min(&config.model);
    refuse_impossible("train.batch_size", needed, machine, || "lower `train.batch_size` or `train.image_size`".into())
}

/// Bytes of Inception's weights, which are kept for the whole run.
const INCEPTION_BYTES: u64 = 96_000_000;

/// Refuses only clear excess, since estimates are accurate within a third.
fn refuse_impossible(key: &str, needed: u64, machine: u64, advice: impl Fn() -> String) -> anyhow::Result<()> {
    if needed as f64 <= 1.34 * machine as f64 {
        return Ok(());
    }
    let what = format!("the run takes {}, this machine has {}: {}", bytes(needed), bytes(machine), advice());
    Err(TrainError::Config { place: key.into(), what }.into())
}

/// Bytes of memory and swap space of the machine; `None` if the system does not report it.
fn machine_bytes() -> Option<u64> {
    Some(kibibytes("/proc/meminfo", "MemTotal:")? + kibibytes("/proc/meminfo", "SwapTotal:").unwrap_or_default())
}

/// Peak resident memory of this process in bytes; `None` if the system does not report it.
pub(super) fn peak_bytes() -> Option<u64> {
    kibibytes("/proc/self/status", "VmHWM:")
}

pub(super) fn line(estimate: &MemoryEstimate, config: &ArConfig) -> String {
    let MemoryEstimate { weights_bytes, activations_bytes, transient_bytes } = *estimate;
    let transient = match transient_bytes {
        0 => String::new(),
        transient_bytes => format!("; transient {}", bytes(transient_bytes)),
    };
    let kept = if config.train.ema_decay > 0.0 { "gradients, moments and averages" } else { "gradients and moments" };
    format!(
        "memory: {} (weights, {kept} {}; activations {} at batch size {}{transient})",
        bytes(estimate.total_bytes()),
        bytes(weights_bytes),
        bytes(activations_bytes),
        config.train.batch_size
    )
}

/// Settings with which the run fits.
fn advice(config: &ArConfig, runtime: &Runtime, available: u64) -> String {
    let train = &config.train;
    let mut ways = vec![];
    if let Some(batch_size) = largest_batch(config, runtime, available) {
        let total = train.global_batch.unwrap_or_else(|| train.grad_accum.global_batch(train.batch_size, 1));
        let grad_accum = total.div_ceil(batch_size);
        ways.push(format!(
            "`train.batch_size` can be {batch_size} at most (with `train.grad_accum = {grad_accum}` and `train.batch_size = {}`, \
             steps are of {} sequences)",
            total.div_ceil(grad_accum),
            total.div_ceil(grad_accum) * grad_accum
        ));
    }
    if !train.recompute {
        let mut config = config.clone();
        config.train.recompute = true;
        let needed = estimate(&config, runtime).total_bytes();
        let how = if needed <= available { "which fits" } else { "still too much" };
        ways.push(format!("with `train.recompute = true` it takes {}, {how}", bytes(needed)));
    }
    if ways.is_empty() { "no batch size fits; take a smaller model".into() } else { ways.join("; ") }
}

/// Bytes of a value that the system reports in kibibytes.
fn kibibytes(file: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: Runtime = Runtime::EXACT;

    #[test]
    fn a_run_that_does_not_fit_gets_advice() {
        let mut config = ArConfig::default();
        config.train.batch_size = 64;
        let told = advice(&config, &CPU, 20 << 30);
        let fits = largest_batch(&config, &CPU, 20 << 30).unwrap();
        assert!(
            (1..64).contains(&fits) && told.contains(&format!("`train.batch_size` can be {fits} at most")),
            "{told}"
        );
        assert!(told.contains("train.grad_accum = ") && told.contains("train.recompute = true"), "{told}");
        config.train.recompute = true;
        assert!(advice(&config, &CPU, 1 << 30).contains("take a smaller model"));
    }

    #[test]
    fn samples_during_training_count_where_they_take_more_than_a_checkpoint() {
        let mut config = ArConfig::default();
        let plain = estimate(&config, &CPU);
        assert_eq!(with_samples(plain, &config, &CPU), plain);
        // Two copies for a checkpoint; one copy, and keys and values of 32 sequences, for samples of B.
        config.train.sample_every = 1;
        let caches = 32 * 2 * 24 * 256 * 1024 * 4;
        let sampled = with_samples(plain, &config, &CPU);
        assert!(sampled.transient_bytes > 4 * 343_570_432 + caches, "{sampled:?}");
        assert_eq!(sampled.weights_bytes, plain.weights_bytes);
        config.train.fid_every = 1;
        assert_eq!(with_samples(plain, &config, &CPU).weights_bytes, plain.weights_bytes + INCEPTION_BYTES);
    }

    #[test]
    fn runs_far_beyond_the_machine_are_refused_and_others_are_not() {
        let refused = |needed: u64| refuse_impossible("train.batch_size", needed, 1000, || "take less".into());
        assert!(refused(1300).is_ok());
        let message = refused(1400).unwrap_err().to_string();
        assert!(message.contains("train.batch_size") && message.contains("take less"), "{message}");
    }

    #[test]
    fn the_line_names_the_parts_and_the_batch() {
        let line = line(&estimate(&ArConfig::default(), &CPU), &ArConfig::default());
        assert!(line.contains("moments 5.5 GB;") && line.contains("at batch size 24;"), "{line}");
    }
}
