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

/// Peaks of a GPU, TFLOP/s.
struct Peak {
    /// Words of its name.
    words: &'static [&'static str],
    /// Dense matrix products in bf16 or fp16 with sums in fp32, by tensor cores; in tf32 it is half of that.
    bf16: f64,
    /// Without tensor cores.
    fp32: f64,
}

const fn peak(words: &'static [&'static str], bf16: f64, fp32: f64) -> Peak {
    Peak { words, bf16, fp32 }
}

/// As NVIDIA's data sheets and white papers have them; where these give figures with sparsity only, half of those. The first
/// whose words are in the name counts.
const PEAKS: [Peak; 23] = [
    peak(&["GB200"], 2500.0, 80.0),
    peak(&["B200"], 2250.0, 75.0),
    peak(&["H200", "NVL"], 835.5, 60.0),
    peak(&["H200"], 989.4, 66.9),
    peak(&["GH200"], 989.4, 66.9),
    peak(&["H100", "PCIe"], 756.5, 51.2),
    peak(&["H100", "NVL"], 835.5, 60.0),
    peak(&["H100"], 989.4, 66.9),
    peak(&["A100"], 312.0, 19.5),
    peak(&["A30"], 165.0, 10.3),
    peak(&["A40"], 149.7, 37.4),
    peak(&["A10"], 125.0, 31.2),
    peak(&["A10G"], 70.0, 35.0),
    peak(&["L40S"], 362.0, 91.6),
    peak(&["L40"], 181.0, 90.5),
    peak(&["L4"], 121.0, 30.3),
    peak(&["RTX", "6000", "Ada"], 364.2, 91.1),
    peak(&["RTX", "A6000"], 154.8, 38.7),
    peak(&["RTX", "5090"], 209.5, 104.8),
    peak(&["RTX", "4090", "D"], 147.0, 73.5),
    peak(&["RTX", "4090"], 165.2, 82.6),
    peak(&["RTX", "3090", "Ti"], 80.0, 40.0),
    peak(&["RTX", "3090"], 71.0, 35.6),
];

fn known_tflops(name: &str, precision: Precision) -> Option<f64> {
    let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    // Chips of notebooks have the names of larger ones.
    if words.contains(&"Laptop") {
        return None;
    }
    let peak = PEAKS.iter().find(|peak| peak.words.iter().all(|word| words.contains(word)))?;
    Some(match precision {
        Precision::Bf16 | Precision::Fp16 => peak.bf16,
        Precision::Tf32 => peak.bf16 / 2.0,
        Precision::Fp32 => peak.fp32,
    })
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
    fn b_needs_slightly_more_than_six_times_its_parameters() {
        assert!(preset("B").is_some());
        let b = ModelConfig::default();
        let share = flops_per_token(&b) / (6 * b.num_params()) as f64;
        assert!((1.0..1.2).contains(&share), "{share}");
    }

    /// Names as CUDA and the driver report them.
    #[test]
    fn known_gpus_are_recognised_by_the_words_of_their_names() {
        for (name, bf16, tf32, fp32) in [
            ("NVIDIA B200", 2250.0, 1125.0, 75.0),
            ("NVIDIA GB200", 2500.0, 1250.0, 80.0),
            ("NVIDIA GH200 480GB", 989.4, 494.7, 66.9),
            ("NVIDIA H200", 989.4, 494.7, 66.9),
            ("NVIDIA H200 NVL", 835.5, 417.75, 60.0),
            ("NVIDIA H100 80GB HBM3", 989.4, 494.7, 66.9),
            ("NVIDIA H100 PCIe", 756.5, 378.25, 51.2),
            ("NVIDIA H100 NVL", 835.5, 417.75, 60.0),
            ("NVIDIA A100-SXM4-80GB", 312.0, 156.0, 19.5),
            ("NVIDIA A100-SXM4-40GB", 312.0, 156.0, 19.5),
            ("NVIDIA A100 80GB PCIe", 312.0, 156.0, 19.5),
            ("A100-PCIE-40GB", 312.0, 156.0, 19.5),
            ("NVIDIA A40", 149.7, 74.85, 37.4),
            ("NVIDIA A10", 125.0, 62.5, 31.2),
            ("NVIDIA A10G", 70.0, 35.0, 35.0),
            ("NVIDIA L40S", 362.0, 181.0, 91.6),
            ("NVIDIA L40", 181.0, 90.5, 90.5),
            ("NVIDIA L4", 121.0, 60.5, 30.3),
            ("NVIDIA RTX 6000 Ada Generation", 364.2, 182.1, 91.1),
            ("NVIDIA RTX A6000", 154.8, 77.4, 38.7),
            ("NVIDIA GeForce RTX 5090", 209.5, 104.75, 104.8),
            ("NVIDIA GeForce RTX 4090", 165.2, 82.6, 82.6),
            ("NVIDIA GeForce RTX 4090 D", 147.0, 73.5, 73.5),
            ("NVIDIA GeForce RTX 3090", 71.0, 35.5, 35.6),
            ("NVIDIA GeForce RTX 3090 Ti", 80.0, 40.0, 40.0),
        ] {
            let found = [Precision::Bf16, Precision::Fp16, Precision::Tf32, Precision::Fp32];
            let found = found.map(|precision| known_tflops(name, precision));
            assert_eq!(found, [bf16, bf16, tf32, fp32].map(Some), "{name}");
        }
        for name in [
            "NVIDIA GeForce GTX 1080",
            "NVIDIA GeForce RTX 4090 Laptop GPU",
            "NVIDIA A1000",
            "Tesla V100-SXM2-16GB",
            "",
        ] {
            assert_eq!(known_tflops(name, Precision::Bf16), None, "{name}");
        }
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
        assert_eq!(model_name(folder.path()), None, "the model of the training GPU is ambiguous");
        assert_eq!(model_name(&folder.path().join("nowhere")), None);
    }

    #[test]
    fn a_configured_peak_counts_on_any_device() {
        let cpu = Runtime::EXACT;
        let mut train = TrainSection::default();
        assert_eq!(peak_flops(&train, &cpu), None);
        train.peak_tflops = Some(0.5);
        assert_eq!(peak_flops(&train, &cpu), Some(5e11));
    }
}
