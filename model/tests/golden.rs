//! The tokenizer against numbers of the reference itself: h, tokens and reconstructions.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

use tch::{Device, Kind, Tensor};
use tokengrid_model::Runtime;
use tokengrid_model::{Architecture, Params, Tokenizer, Variant, Weights, lfq, pixels};
use tokengrid_test_support::{formula, golden, golden_json, shapes};

/// Above this |h| no token bit may differ.
const MARGIN: f64 = 1e-3;

struct Golden(Weights);

impl Golden {
    fn open(name: &str) -> Golden {
        Golden(Weights::open(&golden(&format!("{name}.safetensors"))).unwrap())
    }

    fn get(&self, name: &str) -> Tensor {
        self.0.tensor(name).unwrap()
    }

    /// Images `[B, 3, H, W]` of bytes as model input.
    fn input(&self, name: &str) -> Tensor {
        let images = self.get(name);
        let (b, _, h, w) = images.size4().unwrap();
        let bytes_bhwc = images.permute([0, 2, 3, 1]).contiguous();
        let mut bytes = vec![0u8; bytes_bhwc.numel()];
        let count = bytes.len();
        bytes_bhwc.copy_data_u8(&mut bytes, count);
        pixels::to_input(&bytes, b, h, w, Runtime::EXACT)
    }
}

fn max_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a.to_kind(Kind::Double) - b.to_kind(Kind::Double)).abs().max().double_value(&[])
}

#[track_caller]
fn assert_near(what: &str, a: &Tensor, b: &Tensor, tolerance: f64) {
    let difference = max_difference(a, b);
    assert!(difference <= tolerance, "{what}: differs by {difference:e}, allowed {tolerance:e}");
}

/// Every bit must agree unless the reference's own h lies within the margin.
#[track_caller]
fn assert_tokens(what: &str, tokens: &Tensor, want: &Tensor, h_bzhw: &Tensor) {
    let (ours, theirs) = (lfq::codes_of(tokens, h_bzhw.size()[1]), lfq::codes_of(want, h_bzhw.size()[1]));
    let wrong = ours.ne_tensor(&theirs).logical_and(&h_bzhw.abs().gt(MARGIN));
    assert_eq!(wrong.sum(Kind::Int64).int64_value(&[]), 0, "{what}: token bits differ outside the margin");
}

/// Golden weights, made by the formula.
fn formula_params(json: &serde_json::Value) -> Params {
    let salt = json["salt"].as_str().unwrap();
    let tensor = |(name, shape): (String, Vec<i64>)| {
        let tensor = Tensor::from_slice(&formula(salt, &name, &shape, 3.0)).view(shape.as_slice());
        (name, tensor)
    };
    shapes(&json["tensors"]).into_iter().map(tensor).collect()
}

/// Golden weights with libtorch's operations, and as inference uses them.
fn formula_tokenizers(name: &str) -> [Tokenizer; 2] {
    let json = golden_json(&format!("{name}.json"));
    let params = formula_params(&json);
    let architecture = Architecture::infer(&params, name.as_ref()).unwrap();
    let expected = (json["params_encoder"].as_i64().unwrap(), json["params_decoder"].as_i64().unwrap());
    assert_eq!(architecture.num_params(), expected);
    let libtorch = Tokenizer::from_params(architecture.clone(), &params);
    [libtorch, Tokenizer::from_params(architecture, &params).for_inference()]
}

fn check(what: &str, tokenizer: &Tokenizer, golden: &Golden, prefix: &str, images: &str, tolerance: f64) {
    let _no_grad = tch::no_grad_guard();
    let get = |name: &str| golden.get(&format!("{prefix}{name}"));
    let h = tokenizer.encoder.forward(&golden.input(images));
    assert_near(&format!("{what} h"), &h, &get("h"), tolerance);
    let tokens = lfq::tokens_of(&h);
    assert_tokens(what, &tokens, &get("tokens"), &get("h"));
    let recon = tokenizer.decode(&get("tokens"));
    // Goldens have every row and column, or every third or fifth, the first and the last among them.
    let kept = if golden.0.contains(&format!("{prefix}recon")) { "recon" } else { "recon_u8" };
    let step = (recon.size()[3] - 1) / (get(kept).size()[3] - 1);
    let recon = recon.slice(2, None, None, step).slice(3, None, None, step);
    if kept == "recon" {
        assert_near(&format!("{what} recon"), &recon, &get("recon"), tolerance);
    } else {
        let ours = Tensor::from_slice(&pixels::to_bytes(&recon));
        let want = get("recon_u8").permute([0, 2, 3, 1]).contiguous().view([-1]);
        assert_near(&format!("{what} recon bytes"), &ours, &want, 1.0);
    }
}

#[test]
fn training_checkpoint_raw_and_ema() {
    let (weights, golden_data) = (Weights::open(&golden("tok_f4.ckpt")).unwrap(), Golden::open("tok_f4"));
    for (variant, prefix) in [(Variant::Raw, "raw."), (Variant::Ema, "ema.")] {
        let tokenizer = Tokenizer::load(&weights, variant, Device::Cpu, Kind::Float).unwrap();
        assert_eq!(tokenizer.architecture.ch_mult, [1, 1, 2]);
        check(prefix, &tokenizer, &golden_data, prefix, "images_u8", 2e-4);
    }
}

#[test]
fn checkpoint_tensors_equal_the_formula_to_the_bit() {
    let weights = Weights::open(&golden("tok_f4.ckpt")).unwrap();
    let params = formula_params(&golden_json("tok_f4.json"));
    assert!(params.len() > 50);
    for (name, tensor) in params.iter() {
        assert!(weights.tensor(name).unwrap().equal(tensor), "{name}");
    }
}

#[test]
fn sixteen_times_downsampling() {
    for tokenizer in formula_tokenizers("tok_f16") {
        check("tok_f16", &tokenizer, &Golden::open("tok_f16"), "raw.", "images_u8", 2e-4);
    }
}

#[test]
fn published_256_architecture_at_full_size() {
    for tokenizer in formula_tokenizers("in256_L") {
        check("in256_L", &tokenizer, &Golden::open("in256_L"), "256.", "256.images_u8", 2e-3);
    }
}

#[test]
fn published_128_architecture_at_full_size() {
    for tokenizer in formula_tokenizers("in128_L") {
        check("in128_L", &tokenizer, &Golden::open("in128_L"), "128.", "128.images_u8", 2e-3);
    }
}

#[test]
fn frozen_tokenizer_inside_an_ar_checkpoint() {
    let weights = Weights::open(&golden("ar.ckpt")).unwrap();
    let tokenizer = Tokenizer::load(&weights, Variant::Raw, Device::Cpu, Kind::Float).unwrap();
    assert_eq!((tokenizer.architecture.factor(), tokenizer.architecture.z_channels), (2, 18));
}
