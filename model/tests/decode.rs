//! Decoding with our own kernels against teacher forcing of the model by libtorch.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::formula_params;
use tch::{Device, Kind, Tensor};
use tokengrid_model::ar::{ArModel, ArWeights, Known, ModelConfig};
use tokengrid_test_support::golden;

/// Sizes that divide no vector length evenly.
fn small() -> ArModel {
    let config = ModelConfig {
        dim: 60,
        n_head: 5,
        spatial_n_layer: 2,
        factorized_n_layer: 2,
        factorized_bits: [3, 6],
        block_size: 49,
        class_num: 7,
        ..ModelConfig::default()
    };
    let params = formula_params(&config, "decode");
    ArModel::new(&config, &params, Device::Cpu, Kind::Float)
}

/// Sub-tokens of position `t` of sequence `c`.
fn token(model: &ArModel, c: usize, t: usize) -> [u32; 2] {
    model.config.vocab().map(|vocab| ((7 * t + 11 * c + t * t) % vocab as usize) as u32)
}

/// Logits of every position, `[N][part][C * V]`, for sequences numbered from `first`.
fn decoded(model: &ArModel, first: usize, sequences: usize) -> Vec<[Vec<f32>; 2]> {
    let mut decoder = model.host_decoder().unwrap();
    let class = |c: usize| (c as i64 + 2) % (model.config.class_num + 1);
    // An earlier batch does not affect the result.
    decoder.start(&[0, 0]);
    decoder.pre_logits();
    decoder.start(&(first..first + sequences).map(class).collect::<Vec<_>>());
    (0..model.config.block_size as usize)
        .map(|t| {
            let tokens: Vec<[u32; 2]> = (first..first + sequences).map(|c| token(model, c, t)).collect();
            let [pre, post] = [0, 1].map(|part| tokens.iter().map(|token| token[part]).collect::<Vec<u32>>());
            let logits = [decoder.pre_logits().to_vec(), decoder.post_logits(&pre).to_vec()];
            decoder.accept(&pre, &post);
            logits
        })
        .collect()
}

fn assert_is_teacher_forcing(model: &ArModel, sequences: usize) {
    let n = model.config.block_size as usize;
    let of = |part: usize| {
        let values = (0..sequences).flat_map(|c| (0..n).map(move |t| (c, t)));
        let values: Vec<i64> = values.map(|(c, t)| i64::from(token(model, c, t)[part])).collect();
        Tensor::from_slice(&values).view([sequences as i64, n as i64])
    };
    let classes: Vec<i64> = (0..sequences as i64).map(|c| (c + 2) % (model.config.class_num + 1)).collect();
    let wanted = model.forward(&of(0), &of(1), &Tensor::from_slice(&classes), false);
    for (t, logits) in decoded(model, 0, sequences).into_iter().enumerate() {
        for (ours, wanted) in logits.iter().zip(&wanted) {
            let wanted = wanted.select(1, t as i64);
            let difference = (Tensor::from_slice(ours).view_as(&wanted) - &wanted).abs().max().double_value(&[]);
            let scale = wanted.abs().max().double_value(&[]);
            assert!(difference <= 2e-5 * scale.max(1.0), "position {t}: {difference:e} of {scale}");
        }
    }
}

#[test]
fn logits_are_those_of_teacher_forcing() {
    assert_is_teacher_forcing(&small(), 3);
    let weights = ArWeights::open(&golden("ar.ckpt"), Known { n_head: Some(4), grid: Some((8, 8)) }).unwrap();
    assert_is_teacher_forcing(&ArModel::new(&weights.config, &weights.params, Device::Cpu, Kind::Float), 2);
}

#[test]
fn a_sequence_has_the_same_bits_in_every_batch_and_with_any_threads() {
    tokengrid_test_support::alone!();
    let model = small();
    let alone: Vec<_> = (0..17).map(|c| decoded(&model, c, 1)).collect();
    for (sequences, threads) in [(2, 2), (17, 1), (17, 3)] {
        let before = tch::get_num_threads();
        tch::set_num_threads(threads);
        let together = decoded(&model, 0, sequences);
        tch::set_num_threads(before);
        for (t, logits) in together.iter().enumerate() {
            for part in 0..2 {
                let joined: Vec<f32> = alone[..sequences].iter().flat_map(|one| one[t][part].clone()).collect();
                assert!(logits[part] == joined, "{sequences} sequences, position {t}, part {part}");
            }
        }
    }
}

#[test]
fn other_kinds_have_no_decoder_of_ours() {
    let weights = ArWeights::open(&golden("ar.ckpt"), Known { n_head: Some(4), grid: Some((8, 8)) }).unwrap();
    let model = ArModel::new(&weights.config, &weights.params, Device::Cpu, Kind::BFloat16);
    assert!(model.host_decoder().is_none());
}
