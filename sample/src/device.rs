//! Batches whose tokens are drawn on the device, by tensor operations: a GPU never waits for the host.
//!
//! Shape suffixes: `b` batch (images), `c` sequences, `n` positions, `p` the two parts of a token, `v` vocabulary.

use crate::SampleError;
use crate::decoder::{Decoder, TorchDecoder};
use crate::draw::Rule;
use crate::guidance::GuidanceMode;
use crate::sampler::SamplerConfig;
use tch::{Device, Kind, Tensor};

/// Every position of a batch that was started: tokens `[B, N]`, row-major. `uniform_bnp` f64 `[B, N, 2]` on the device.
///
/// # Errors
/// Logits are not finite. Every position is checked on the device, and the result is read at the end only: reading it earlier
/// would wait for the device.
pub(crate) fn sample(
    decoder: &mut TorchDecoder,
    config: &SamplerConfig,
    mode: GuidanceMode,
    uniform_bnp: &Tensor,
) -> Result<Vec<u32>, SampleError> {
    let _no_grad = tch::no_grad_guard();
    let (n, low_bits) = (decoder.config().block_size, decoder.config().factorized_bits[0]);
    let mut sound_np = vec![];
    let mut draw_c = |part: usize, t: i64, logits_cv: Tensor| {
        let rule = config.rule(part, t, n);
        let (cond_bv, uncond_bv) = split(&logits_cv, mode);
        let logits_bv = guide(&cond_bv, uncond_bv.as_ref(), rule.cfg_scale);
        sound_np.push(is_sound(&logits_bv));
        let token_b = draw(logits_bv, &rule, &uniform_bnp.select(1, t).select(1, part as i64));
        token_b.repeat([mode.count() as i64])
    };
    let mut tokens_n = vec![];
    for t in 0..n {
        let pre_c = draw_c(0, t, decoder.pre_tensor());
        let post_c = draw_c(1, t, decoder.post_tensor(&pre_c));
        if t + 1 < n {
            decoder.accept_tensors(&pre_c, &post_c);
        }
        tokens_n.push(pre_c + post_c.bitwise_left_shift_tensor_scalar(i64::from(low_bits)));
    }
    let sound_np = host_values(&Tensor::stack(&sound_np, 0).to_kind(Kind::Int64));
    if let Some(draw) = sound_np.iter().position(|&is_sound| is_sound == 0) {
        return Err(SampleError::NotLogits { position: draw / 2 });
    }
    let tokens_bn = Tensor::stack(&tokens_n, 1).narrow(0, 0, uniform_bnp.size()[0]);
    Ok(host_values(&tokens_bn).into_iter().map(|token| token as u32).collect())
}

/// Values of an int64 tensor, row-major.
fn host_values(tensor: &Tensor) -> Vec<i64> {
    Vec::<i64>::try_from(&tensor.to_device(Device::Cpu).contiguous().view([-1])).expect("integers copy to the host")
}

/// Whether every row of guided logits is a distribution, a truth value on the device: as on the host, minus infinity is a
/// probability of 0, and a row of nothing else, infinity or NaN are not logits. The maximum takes over a NaN of its row.
fn is_sound(logits_bv: &Tensor) -> Tensor {
    logits_bv.amax([-1i64].as_slice(), false).isfinite().all()
}

/// The conditional half of a batch, and the other where there is one.
fn split(logits_cv: &Tensor, mode: GuidanceMode) -> (Tensor, Option<Tensor>) {
    match mode {
        GuidanceMode::Both => {
            let batch = logits_cv.size()[0] / 2;
            (logits_cv.narrow(0, 0, batch), Some(logits_cv.narrow(0, batch, batch)))
        }
        _ => (logits_cv.shallow_clone(), None),
    }
}

/// Tokens int64 `[B]` at uniform numbers f64 `[B]`, from guided logits `[B, V]`.
fn draw(logits_bv: Tensor, rule: &Rule, uniform_b: &Tensor) -> Tensor {
    if rule.is_greedy() {
        return logits_bv.argmax(-1, false);
    }
    let logits_bv = top_p(top_k(logits_bv / rule.temperature, rule.top_k), rule.top_p);
    let mass_bv = logits_bv.to_kind(Kind::Double).softmax(-1, Kind::Double).cumsum(-1, Kind::Double);
    let (vocab, total_b1) = (mass_bv.size()[1], mass_bv.narrow(1, -1, 1));
    // Strictly beyond u of the mass, so a token of probability 0 is never drawn.
    let target_b1 = uniform_b.unsqueeze(-1) * total_b1;
    let below_b = mass_bv.le_tensor(&target_b1).sum_dim_intlist([-1i64].as_slice(), false, Kind::Int64);
    below_b.clamp_max(vocab - 1)
}

fn guide(cond_bv: &Tensor, uncond_bv: Option<&Tensor>, scale: f64) -> Tensor {
    match uncond_bv {
        Some(uncond_bv) if scale != 1.0 => uncond_bv + (cond_bv - uncond_bv) * scale,
        _ => cond_bv.shallow_clone(),
    }
}

/// [`crate::filter::top_k`] of every row.
fn top_k(logits_bv: Tensor, k: i64) -> Tensor {
    let vocab = logits_bv.size()[1];
    if k <= 0 || k >= vocab {
        return logits_bv;
    }
    let (largest_bk, _) = logits_bv.topk(k, -1, true, true);
    let threshold_b1 = largest_bk.narrow(1, k - 1, 1);
    logits_bv.masked_fill(&logits_bv.lt_tensor(&threshold_b1), f64::NEG_INFINITY)
}

/// [`crate::filter::top_p`] of every row.
fn top_p(logits_bv: Tensor, p: f64) -> Tensor {
    if p >= 1.0 {
        return logits_bv;
    }
    let (sorted_bv, order_bv) = logits_bv.sort(-1, true);
    let mass_bv = sorted_bv.softmax(-1, Kind::Float).cumsum(-1, Kind::Float);
    let vocab = logits_bv.size()[1];
    let beyond_bv = mass_bv.gt(p).narrow(1, 0, vocab - 1);
    let first_b1 = Tensor::zeros([logits_bv.size()[0], 1], (Kind::Bool, logits_bv.device()));
    let drop_bv = Tensor::cat(&[first_b1, beyond_bv], 1);
    let drop_bv = drop_bv.zeros_like().scatter(1, &order_bv, &drop_bv);
    logits_bv.masked_fill(&drop_bv, f64::NEG_INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::RowDraw;
    use crate::guidance::Schedule;
    use crate::sampler::{SampleRequest, Sampler};
    use tokengrid_model::ar::{ArModel, ArWeights, Known};
    use tokengrid_model::rng::CounterRng;
    use tokengrid_model::{Route, Runtime, Weights};
    use tokengrid_test_support::golden;

    /// A GPU's way, on tensors of the CPU.
    const ON_DEVICE: Runtime = Runtime { route: Route::DEVICE, ..Runtime::EXACT };

    #[test]
    fn golden_cases_equal_to_the_bit() {
        let data = Weights::open(&golden("filtering.safetensors")).unwrap();
        for case in 0..6 {
            let get = |name: &str| data.tensor(&format!("{case}.{name}")).unwrap();
            let (k, p) = (get("k").int64_value(&[]), get("p").double_value(&[]));
            let ours = top_p(top_k(get("in"), k), p);
            assert!(ours.equal(&get("out")), "case {case}: k = {k}, p = {p}");
        }
    }

    #[test]
    fn a_batch_has_the_tokens_of_the_host() {
        let mut weights = ArWeights::open(&golden("ar.ckpt"), Known { n_head: Some(4), grid: Some((8, 8)) }).unwrap();
        weights.config.block_size = 16;
        let model = ArModel::new(&weights.config, &weights.params, Device::Cpu, Kind::Float);
        let wanted: Vec<SampleRequest> = (0..3).map(|i| SampleRequest { class: i, index: 5 }).collect();
        for cfg_scale in [[1.0, 1.0], [0.0, 0.0], [1.5, 0.0]] {
            let config = SamplerConfig { cfg_scale, cfg_schedule: Schedule::Linear, ..SamplerConfig::default() };
            let on_host = Sampler::new(&model, config.clone(), Runtime::EXACT).unwrap().sample(&wanted).unwrap();
            let on_device = Sampler::new(&model, config, ON_DEVICE).unwrap().sample(&wanted).unwrap();
            assert_eq!(on_host, on_device, "{cfg_scale:?}");
        }
    }

    #[test]
    fn logits_that_are_not_finite_are_an_error_as_on_the_host() {
        let mut weights = ArWeights::open(&golden("ar.ckpt"), Known { n_head: Some(4), grid: Some((8, 8)) }).unwrap();
        weights.config.block_size = 16;
        // Of one class only: the other image of the batch is sound.
        let _ = weights.params.get("class_emb.embedding_table.weight").get(1).get(0).fill_(f64::NAN);
        let model = ArModel::new(&weights.config, &weights.params, Device::Cpu, Kind::Float);
        let wanted = [SampleRequest { class: 0, index: 0 }, SampleRequest { class: 1, index: 0 }];
        for temperature in [[1.0, 1.0], [0.0, 0.0]] {
            let config = SamplerConfig { temperature, ..SamplerConfig::default() };
            let on_device = Sampler::new(&model, config.clone(), ON_DEVICE).unwrap().sample(&wanted);
            let on_host = Sampler::new(&model, config, Runtime::EXACT).unwrap().sample(&wanted);
            for result in [on_device, on_host] {
                assert!(matches!(result, Err(SampleError::NotLogits { position: 0 })), "{result:?}");
            }
        }
    }

    #[test]
    fn a_row_is_sound_when_its_largest_logit_is_finite() {
        let minus = f32::NEG_INFINITY;
        for (row, want) in [
            ([0.0, minus, 1.0], true),
            ([minus, minus, minus], false),
            ([0.0, f32::NAN, 1.0], false),
            ([0.0, f32::INFINITY, 1.0], false),
        ] {
            let rows_bv = Tensor::stack(&[Tensor::from_slice(&[0.0f32, 1.0, 2.0]), Tensor::from_slice(&row)], 0);
            assert_eq!(is_sound(&rows_bv).int64_value(&[]) == 1, want, "{row:?}");
            let rule = Rule { cfg_scale: 1.0, temperature: 1.0, top_k: 0, top_p: 1.0 };
            let host = RowDraw::default().draw(&row, None, &rule, 0.5);
            assert_eq!(host.is_some(), want, "{row:?}");
        }
    }

    #[test]
    fn the_host_draws_the_same_tokens() {
        const ROWS: usize = 64;
        const VOCAB: usize = 300;
        let mut rng = CounterRng::new(&[5]);
        let mut numbers =
            |n: usize| -> Vec<f32> { (0..n).map(|_| (rng.uniform() + rng.uniform() - 1.0) as f32 * 9.0).collect() };
        let (cond, uncond) = (numbers(ROWS * VOCAB), numbers(ROWS * VOCAB));
        let tensor = |x: &[f32]| Tensor::from_slice(x).view([ROWS as i64, VOCAB as i64]).to_device(Device::Cpu);
        let uniform: Vec<f64> = (0..ROWS).map(|_| rng.uniform()).collect();
        for (cfg_scale, top_k, top_p, temperature) in
            [(1.0, 0, 1.0, 1.0), (1.9, 20, 0.9, 1.1), (0.0, 0, 0.5, 0.7), (3.0, 1, 1.0, 1.0), (2.0, 7, 1.0, 0.0)]
        {
            let rule = Rule { cfg_scale, temperature, top_k, top_p };
            let logits_bv = guide(&tensor(&cond), Some(&tensor(&uncond)), cfg_scale);
            let tokens = draw(logits_bv, &rule, &Tensor::from_slice(&uniform));
            let mut host = RowDraw::default();
            let rows = cond.chunks(VOCAB).zip(uncond.chunks(VOCAB)).zip(&uniform);
            let ours: Vec<i64> =
                rows.map(|((cond, uncond), u)| host.draw(cond, Some(uncond), &rule, *u).unwrap().into()).collect();
            assert_eq!(ours, Vec::<i64>::try_from(tokens).unwrap(), "{rule:?}");
        }
    }
}
