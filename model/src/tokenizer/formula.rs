//! Synthetic weights: a full-size network to measure with. Its results mean nothing, but ranges of values and speed are those
//! of a trained one.

use super::Architecture;
use crate::weights::Params;
use tch::Tensor;

/// Weights that depend on the tensors' names and `salt` alone: uniform with variance 1 / fan-in for matrices and kernels, near
/// 1 for scales, near 0 for biases.
pub fn formula_params(architecture: &Architecture, salt: &str) -> Params {
    let tensor = |(name, shape): (String, Vec<i64>)| {
        let values: Vec<f32> = stream(&format!("{salt}{name}"))
            .take(shape.iter().product::<i64>() as usize)
            .map(|v| value(v, &name, &shape) as f32)
            .collect();
        (name, Tensor::from_slice(&values).view(shape.as_slice()))
    };
    architecture.tensors().into_iter().map(tensor).collect()
}

/// Bytes `[count, side, side, 3]`: noise for `count` views of `side` x `side` pixels. The encoder takes the same time for it as
/// for images.
pub fn formula_pixels(name: &str, count: usize, side: usize) -> Vec<u8> {
    stream(name).take(count * side * side * 3).map(|v| ((v + 1.0) * 128.0) as u8).collect()
}

/// Scales a random number in [-1, 1) for a tensor.
fn value(v: f64, name: &str, shape: &[i64]) -> f64 {
    match shape {
        [_] if name.ends_with("weight") => 1.0 + 0.1 * v,
        [_] => 0.1 * v,
        _ => v * (3.0 / shape[1..].iter().product::<i64>() as f64).sqrt(),
    }
}

/// Numbers in [-1, 1): a splitmix64 counter, seeded by the FNV-1a hash of `name`.
fn stream(name: &str) -> impl Iterator<Item = f64> {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    (1u64..).map(move |i| {
        let z = seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        2.0 * (((z ^ (z >> 31)) >> 40) as f64 / (1u64 << 24) as f64) - 1.0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_those_of_the_golden_data() {
        let architecture = Architecture { ch: 32, ch_mult: vec![1, 2], num_res_blocks: 1, z_channels: 18 };
        let params = formula_params(&architecture, "v1:x:");
        for (name, shape) in architecture.tensors() {
            let want = Tensor::from_slice(&tokengrid_test_support::formula("v1:x:", &name, &shape, 3.0));
            assert!(params.get(&name).view([-1]).equal(&want), "{name}");
        }
    }
}
