//! Checks that a batch fits into memory before it starts.

use crate::SampleError;
use tch::{Device, Kind, Tensor};
use tokengrid_model::ar::ModelConfig;

/// Bytes that one sequence of a batch takes: keys and values of every position and spatial block in `kind`, and the
/// activations and logits of one position.
pub fn sequence_bytes(model: &ModelConfig, kind: Kind) -> u64 {
    let element = if kind == Kind::Float { 4 } else { 2 };
    let dim = model.dim as u64;
    let caches = 2 * model.spatial_n_layer as u64 * model.block_size as u64 * dim * element;
    let vocab = model.vocab().iter().sum::<i64>() as u64;
    // fp32: what a block holds at a time, and logits beside what is drawn from.
    let position = 4 * (8 * dim + 3 * model.ffn_dim() as u64 + 3 * vocab);
    caches + position
}

/// Refuses a batch of `images` with `sequences` sequences each that does not fit into what is free on `device`.
///
/// # Errors
/// [`SampleError::Memory`], with the batch that would fit.
pub fn check(
    model: &ModelConfig,
    device: Device,
    kind: Kind,
    images: usize,
    sequences: usize,
) -> Result<(), SampleError> {
    let image_bytes = sequence_bytes(model, kind) * sequences as u64;
    let needed_bytes = image_bytes * images as u64;
    let free = match device {
        // The kernels' own copy of the weights is made when sampling begins.
        Device::Cpu if kind == Kind::Float => {
            available_bytes().map(|bytes| bytes.saturating_sub(4 * model.num_params() as u64))
        }
        Device::Cpu => available_bytes(),
        device => free_on(device, needed_bytes, image_bytes),
    };
    refuse_above(free, images, image_bytes)
}

fn refuse_above(free: Option<u64>, images: usize, image_bytes: u64) -> Result<(), SampleError> {
    let needed_bytes = image_bytes * images as u64;
    match free {
        Some(free_bytes) if free_bytes < needed_bytes => {
            Err(SampleError::Memory { images, needed_bytes, free_bytes, fits: free_bytes / image_bytes.max(1) })
        }
        _ => Ok(()),
    }
}

/// Bytes that are available without swapping, as the system reports; `None` where it does not.
pub fn available_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

/// A lower bound of the free memory of a GPU, found by allocation: `needed` if that succeeds, else half of it and so on, but no
/// less than `least`; `None` when an allocation fails for another reason than memory.
fn free_on(device: Device, needed: u64, least: u64) -> Option<u64> {
    let mut bytes = needed;
    loop {
        match Tensor::f_empty([bytes as i64], (Kind::Uint8, device)) {
            Ok(_) => return Some(bytes),
            Err(error) if !error.to_string().contains("out of memory") => return None,
            Err(_) if bytes <= least => return Some(0),
            Err(_) => bytes /= 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_of_b_takes_fifty_megabytes_for_its_caches() {
        let bytes = sequence_bytes(&ModelConfig::default(), Kind::Float);
        let caches = 2 * 24 * 256 * 1024 * 4;
        assert!((caches..caches * 11 / 10).contains(&bytes), "{bytes}");
        assert!(sequence_bytes(&ModelConfig::default(), Kind::BFloat16) < bytes * 6 / 10);
    }

    #[test]
    fn a_batch_that_does_not_fit_is_refused_with_the_largest_that_fits() {
        assert!(refuse_above(Some(1000), 10, 100).is_ok());
        assert!(refuse_above(None, 10, 100).is_ok());
        let error = refuse_above(Some(750 << 20), 10, 100 << 20).unwrap_err().to_string();
        assert!(error.contains("10 images") && error.contains("--batch-size 7"), "{error}");
        let error = refuse_above(Some(1), 10, 100 << 20).unwrap_err().to_string();
        assert!(error.contains("not even one image"), "{error}");
        // Larger than the memory of any machine.
        let model = ModelConfig::default();
        assert!(check(&model, Device::Cpu, Kind::Float, 1 << 40, 2).is_err() || available_bytes().is_none());
    }
}
