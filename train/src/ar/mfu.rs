//! Model FLOPs utilisation (MFU): the share of the devices' peak that the model's own arithmetic takes.
//!
//! ```text
//! FLOPs of a token = 6 N + attention
//! N                = weights of matrix products, as often as a token goes through them: spatial blocks and heads once,
//!                    factorized blocks twice, since a token is two sub-tokens; embeddings are looked up
//! attention        = 12 T d for each spatial block over T tokens, 12 * 2 d for each factorized block and sub-token
//! MFU              = tokens per second * FLOPs of a token / (processes * peak of a device)
//! ```
//!
//! 6 is a multiplication and an addition, forwards once and backwards twice; attention is not halved for its causal mask, as in
//! PaLM's definition (arXiv 2204.02311, appendix B). What `train.recompute` computes twice counts once.

use super::config::TrainSection;
use std::fs;
use std::path::Path;
use tch::Device;
use tokengrid_model::ar::ModelConfig;
use tokengrid_model::{Precision, Runtime};

/// Sub-tokens of a token.
const PARTS: i64 = 2;

/// Floating-point operations of training on one token, forwards and backwards.
pub fn flops_per_token(model: &ModelConfig) -> f64 {
    let (d, f) = (model.dim, model.ffn_dim());
    let block_weights = 4 * d * d + 3 * d * f;
    let head_weights: i64 = model.vocab().iter().map(|vocab| vocab * d).sum();
    let weights = (model.spatial_n_layer + PARTS * model.factorized_n_layer) * block_weights + head_weights;
    let spatial = 12 * model.block_size * d * model.spatial_n_layer;
    let factorized = 12 * PARTS * d * PARTS * model.factorized_n_layer;
    (6 * weights + spatial + factorized) as f64
}

/// The peak of a process's device in FLOP/s: given, else that of a known GPU; `None` for others, and for CPUs.
pub(super) fn peak_flops(train: &TrainSection, runtime: &Runtime) -> Option<f64> {
    let known = || match runtime.device {
        Device::Cuda(_) => known_tflops(&model_name(Path::new("/proc/driver/nvidia/gpus"))?, runtime.precision),
        _ => None,
    };
    Some(train.peak_tflops.or_else(known)? * 1e12)
}

/// The model of this machine's GPUs, if they are all of one.
fn model_name(folder: &Path) -> Option<String> {
    let gpus = fs::read_dir(folder).ok()?.flatten();
    let name = |text: String| Some(text.lines().find_map(|line| line.strip_prefix("Model:"))?.trim().to_string());
    let names: Option<Vec<String>> =
        gpus.map(|gpu| name(fs::read_to_string(gpu.path().join("information")).ok()?)).collect();
    let names = names?;
    let first = names.first()?;
    names.iter().all(|name| name == first).then(|| first.clone())
}

/// Dense matrix products in bf16 with sums in fp32, TFLOP/s, as NVIDIA's data sheets have them: words of the name, and the
/// figure. The first that fits counts.
const BF16_TFLOPS: [(&[&str], f64); 12] = [
    (&["B200"], 2250.0),
    (&["H200"], 989.4),
    (&["H100", "PCIe"], 756.0),
    (&["H100", "NVL"], 835.0),
    (&["H100"], 989.4),
    (&["A100"], 312.0),
    (&["L40S"], 362.0),
    (&["L40"], 181.0),
    (&["L4"], 121.0),
    (&["A10"], 125.0),
    (&["RTX", "4090"], 165.2),
    (&["RTX", "3090"], 71.0),
];

fn known_tflops(name: &str, precision: Precision) -> Option<f64> {
    let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let fits = |wanted: &[&str]| wanted.iter().all(|word| words.contains(word));
    let (_, bf16) = BF16_TFLOPS.into_iter().find(|(wanted, _)| fits(wanted))?;
    match precision {
        Precision::Bf16 | Precision::Fp16 => Some(bf16),
        Precision::Tf32 => Some(bf16 / 2.0),
        // No tensor cores.
        Precision::Fp32 => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokengrid_model::ar::preset;

    #[test]
    fn the_formula_by_hand() {
        let (dim, n_head, block_size) = (4, 1, 16);
        let (spatial_n_layer, factorized_n_layer, factorized_bits) = (3, 1, [1, 2]);
        let model = ModelConfig {
            dim,
            n_head,
            block_size,
            spatial_n_layer,
            factorized_n_layer,
            factorized_bits,
            ..ModelConfig::default()
        };
        assert_eq!(model.ffn_dim(), 256);
        let block = 4 * 16 + 3 * 4 * 256;
        let weights = (3 + 2) * block + (2 + 4) * 4;
        let attention = 3 * 12 * 16 * 4 + 12 * 2 * 4 * 2;
        assert_eq!(flops_per_token(&model), f64::from(6 * weights + attention));
    }

    #[test]
    fn b_takes_a_little_more_than_six_times_its_parameters() {
        assert!(preset("B").is_some());
        let b = ModelConfig::default();
        let share = flops_per_token(&b) / (6 * b.num_params()) as f64;
        assert!((1.0..1.2).contains(&share), "{share}");
    }

    #[test]
    fn known_gpus_are_told_by_the_words_of_their_names() {
        let tflops = |name: &str| known_tflops(name, Precision::Bf16);
        assert_eq!(tflops("NVIDIA H100 80GB HBM3"), Some(989.4));
        assert_eq!(tflops("NVIDIA H100 PCIe"), Some(756.0));
        assert_eq!(tflops("NVIDIA A100-SXM4-80GB"), Some(312.0));
        assert_eq!(tflops("NVIDIA L4"), Some(121.0));
        assert_eq!(tflops("NVIDIA GeForce RTX 4090"), Some(165.2));
        assert_eq!(tflops("NVIDIA GeForce GTX 1080"), None);
        assert_eq!(known_tflops("NVIDIA A100-SXM4-80GB", Precision::Tf32), Some(156.0));
        assert_eq!(known_tflops("NVIDIA A100-SXM4-80GB", Precision::Fp32), None);
    }

    #[test]
    fn the_driver_is_asked_for_one_model() {
        let folder = tempfile::tempdir().unwrap();
        let gpu = |name: &str, model: &str| {
            let gpu = folder.path().join(name);
            fs::create_dir(&gpu).unwrap();
            fs::write(gpu.join("information"), format!("Model: \t\t {model}\nIRQ:   \t\t 42\n")).unwrap();
        };
        assert_eq!(model_name(folder.path()), None);
        gpu("0000:01:00.0", "NVIDIA H200");
        gpu("0000:02:00.0", "NVIDIA H200");
        assert_eq!(model_name(folder.path()).as_deref(), Some("NVIDIA H200"));
        gpu("0000:03:00.0", "NVIDIA A100-SXM4-80GB");
        assert_eq!(model_name(folder.path()), None, "which of them trains is not known");
        assert_eq!(model_name(&folder.path().join("nowhere")), None);
    }

    #[test]
    fn a_peak_that_is_given_counts_on_any_device() {
        let cpu = Runtime::EXACT;
        let mut train = TrainSection::default();
        assert_eq!(peak_flops(&train, &cpu), None);
        train.peak_tflops = Some(0.5);
        assert_eq!(peak_flops(&train, &cpu), Some(5e11));
    }
}
