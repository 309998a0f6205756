//! In which order tokens have their bits, by what a decoder makes of them: pictures of the wrong order are patchwork.

use crate::args::{Global, ImportArgs, TokenizerArgs};
use crate::exit::CheckFailed;
use crate::torch::model;
use tch::{Kind, Tensor};
use tokengrid_cache::{BitOrder, FrameSet};
use tokengrid_model::Picture;
use tokengrid_model::tokenizer::decode;

/// Frames that are decoded both ways.
const FRAMES: usize = 8;

/// Frames that may be smoother the other way: a black one is as smooth both ways.
const DISSENTERS_MAX: usize = 1;

/// How much rougher the other way must be, over all frames.
const RATIO_MIN: f64 = 1.15;

/// The order of a set's bits, if it can be told, and what was found.
pub(crate) fn bit_order(
    set: &FrameSet,
    args: &ImportArgs,
    global: &Global,
) -> anyhow::Result<(Option<BitOrder>, String)> {
    let tokenizer = args.tokenizer.clone().expect("asked for only with a tokenizer");
    let runtime = model::runtime(&args.device, global)?;
    let weights = TokenizerArgs { tokenizer, variant: args.variant.clone() };
    let (tokenizer, info) = model::tokenizer(&weights, &runtime)?;
    let (grid, bits) = (set.grid(), tokenizer.architecture.z_channels);
    if i64::from(grid.bits) != bits {
        let text = format!("the tokenizer {} has tokens of {bits} bits, the set of {}", info.name, grid.bits);
        return Err(CheckFailed(text).into());
    }
    let stored = set.sample(FRAMES)?;
    let roughness_of = |order: BitOrder| -> Vec<f64> {
        let decode_one = |frame: &[u32]| {
            let tokens: Vec<i64> = frame.iter().map(|token| i64::from(order.convert(*token, grid.bits))).collect();
            let shape = [1, i64::from(grid.height), i64::from(grid.width)];
            let tokens_bhw = Tensor::from_slice(&tokens).view(shape).to_kind(Kind::Int64).to_device(runtime.device);
            roughness(&decode(&tokenizer, &tokens_bhw, runtime).remove(0))
        };
        stored.chunks_exact(grid.num_tokens()).map(decode_one).collect()
    };
    let (low, high) = (roughness_of(BitOrder::LowFirst), roughness_of(BitOrder::HighFirst));
    Ok(judge(&low, &high))
}

/// The smoother order, if it is clearly smoother.
fn judge(low: &[f64], high: &[f64]) -> (Option<BitOrder>, String) {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let (mean_low, mean_high) = (mean(low), mean(high));
    let is_low = mean_low < mean_high;
    let agreeing = low.iter().zip(high).filter(|(low, high)| (low < high) == is_low).count();
    let ratio = mean_low.max(mean_high) / mean_low.min(mean_high).max(1e-9);
    let is_clear = agreeing + DISSENTERS_MAX >= low.len() && agreeing > 0 && ratio >= RATIO_MIN;
    let order = if is_low { BitOrder::LowFirst } else { BitOrder::HighFirst };
    let why = format!(
        "decoded frames differ from pixel to pixel by {mean_low:.1} levels low-first and {mean_high:.1} high-first, {agreeing} of \
         {} frames alike",
        low.len()
    );
    (is_clear.then_some(order), why)
}

/// Mean difference of neighbouring samples, in levels of 8 bits.
fn roughness(picture: &Picture) -> f64 {
    let stride = picture.width * 3;
    let step = |a: &u8, b: &u8| u64::from(a.abs_diff(*b));
    let (mut sum, mut count) = (0, 0);
    for row in picture.rgb.chunks_exact(stride) {
        sum += row.iter().zip(&row[3.min(stride)..]).map(|(a, b)| step(a, b)).sum::<u64>();
        count += stride.saturating_sub(3);
    }
    let below = picture.rgb.iter().zip(picture.rgb.get(stride..).unwrap_or_default());
    sum += below.map(|(a, b)| step(a, b)).sum::<u64>();
    count += picture.rgb.len().saturating_sub(stride);
    sum as f64 / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_difference_counts() {
        let found = |low: &[f64], high: &[f64]| judge(low, high).0;
        assert_eq!(found(&[5.0; 8], &[9.0; 8]), Some(BitOrder::LowFirst));
        assert_eq!(found(&[9.0; 8], &[5.0; 8]), Some(BitOrder::HighFirst));
        assert_eq!(found(&[5.0; 8], &[5.5; 8]), None, "too close");
        assert_eq!(found(&[5.0, 5.0, 9.0, 9.0], &[20.0, 20.0, 5.0, 5.0]), None, "frames disagree");
        assert_eq!(found(&[], &[]), None);
    }
}
