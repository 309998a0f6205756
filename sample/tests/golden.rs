//! The sampler against greedy samples of the reference, without and with guidance.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

use tch::{Device, Kind, Tensor};
use tokengrid_model::Runtime;
use tokengrid_model::ar::{ArModel, ArWeights, Known};
use tokengrid_model::{Tokenizer, Variant, Weights};
use tokengrid_sample::sampler::SampleRequest;
use tokengrid_sample::{Sampler, SamplerConfig};
use tokengrid_test_support::{golden, golden_json};

fn model() -> ArModel {
    model_of(64)
}

fn model_of(block_size: i64) -> ArModel {
    let mut weights = ArWeights::open(&golden("ar.ckpt"), Known { n_head: Some(4), grid: Some((8, 8)) }).unwrap();
    weights.config.block_size = block_size;
    ArModel::new(&weights.config, &weights.params, Device::Cpu, Kind::Float)
}

fn data() -> Weights {
    Weights::open(&golden("ar.safetensors")).unwrap()
}

fn wanted(data: &Weights) -> Vec<SampleRequest> {
    let classes = Vec::<i64>::try_from(data.tensor("cls").unwrap().to_kind(Kind::Int64).view([-1])).unwrap();
    classes.into_iter().enumerate().map(|(i, class)| SampleRequest { class, index: i as u64 }).collect()
}

fn pair(json: &serde_json::Value) -> [f64; 2] {
    [json[0].as_f64().unwrap(), json[1].as_f64().unwrap()]
}

#[test]
fn greedy_tokens_equal_the_reference_token_for_token() {
    let (model, data, json) = (model(), data(), golden_json("ar.json"));
    for (prefix, cfg_scale) in [("nocfg.", [1.0, 1.0]), ("cfg.", pair(&json["cfg_scale"]))] {
        let config =
            SamplerConfig { cfg_scale, temperature: pair(&json["temperature"]), top_k: [1, 1], ..Default::default() };
        let tokens = Sampler::new(&model, config, Runtime::EXACT).unwrap().sample(&wanted(&data)).unwrap();
        let want = |name: &str| {
            let part = data.tensor(&format!("{prefix}{name}")).unwrap().to_kind(Kind::Int64);
            Vec::<i64>::try_from(part.view([-1])).unwrap()
        };
        let (pre, post) = tokens.iter().map(|token| (i64::from(token & 63), i64::from(token >> 6))).unzip();
        let (pre, post): (Vec<i64>, Vec<i64>) = (pre, post);
        assert_eq!(pre, want("pre"), "{prefix}");
        assert_eq!(post, want("post"), "{prefix}");
    }
}

#[test]
fn sampled_tokens_decode_to_the_reference_image() {
    let _no_grad = tch::no_grad_guard();
    let weights = Weights::open(&golden("ar.ckpt")).unwrap();
    let tokenizer = Tokenizer::load(&weights, Variant::Raw, Device::Cpu, Kind::Float).unwrap();
    let data = data();
    let part = |name: &str| data.tensor(name).unwrap().to_kind(Kind::Int64);
    let tokens: Tensor = part("cfg.pre") + part("cfg.post") * 64;
    let image = tokenizer.decode(&tokens.view([3, 8, 8]));
    let difference = (image - data.tensor("cfg.image").unwrap()).abs().max().double_value(&[]);
    assert!(difference <= 2e-4, "differs by {difference:e}");
}

#[test]
fn an_image_does_not_depend_on_its_batch() {
    let model = model_of(16);
    let config = SamplerConfig { cfg_scale: [1.5, 1.2], seed: 9, top_p: [0.95, 0.9], ..Default::default() };
    let mut sampler = Sampler::new(&model, config, Runtime::EXACT).unwrap();
    let all: Vec<SampleRequest> = (0..64).map(|i| SampleRequest { class: i % 3, index: i as u64 }).collect();
    let together = sampler.sample(&all).unwrap();
    // The last batch of 3 holds one image.
    for batch_size in [1, 3] {
        let apart: Vec<u32> = all.chunks(batch_size).flat_map(|batch| sampler.sample(batch).unwrap()).collect();
        assert_eq!(apart, together, "batches of {batch_size}");
    }
    let other = sampler.sample(&[SampleRequest { class: 0, index: 77 }]).unwrap();
    assert_ne!(other, together[..16], "another index is another image");
}

#[test]
fn temperature_zero_is_greedy_and_a_class_out_of_range_is_refused() {
    let model = model();
    let sample = |config: SamplerConfig, class: i64| {
        Sampler::new(&model, config, Runtime::EXACT).unwrap().sample(&[SampleRequest { class, index: 0 }])
    };
    let cold = sample(SamplerConfig { temperature: [0.0, 0.0], ..Default::default() }, 1).unwrap();
    let greedy = sample(SamplerConfig { top_k: [1, 1], ..Default::default() }, 1).unwrap();
    assert_eq!(cold, greedy);
    let error = sample(SamplerConfig::default(), 11).unwrap_err().to_string();
    assert!(error.contains("class 11") && error.contains("0 to 9"), "{error}");
}
