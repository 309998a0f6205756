//! Batches whose tokens are drawn on the device, by tensor operations: a GPU never waits for the host.
//!
//! A token is a [`Region`]: its position, its random numbers and its guidance scale are read from tensors on the device, attention
//! takes all positions and masks those to come, keys and values have their memory from the beginning. So a step does the same
//! operations for every position, and can be captured as a graph. Both halves of guidance are one batch.
//!
//! Shape suffixes: `b` batch (images), `c` sequences, `n` positions, `p` the two parts of a token, `v` vocabulary, `d` width.

use crate::SampleError;
use crate::draw::Rule;
use crate::guidance::GuidanceMode;
use crate::sampler::SamplerConfig;
use tch::{Device, Kind, Tensor};
use tokengrid_model::Runtime;
use tokengrid_model::ar::{ArModel, ModelConfig};
use tokengrid_model::graph::{Captured, Region};
use tokengrid_model::transfer::{Fetch, upload};

/// Samples batches on a device.
pub(crate) struct DeviceSampler<'a> {
    model: &'a ArModel,
    runtime: Runtime,
    /// The step of the last batch, which is used again for batches of its size.
    step: Option<Captured<TokenStep<'a>>>,
}

impl<'a> DeviceSampler<'a> {
    /// Over `model`, whose parameters lie on the runtime's device.
    pub(crate) fn new(model: &'a ArModel, runtime: Runtime) -> DeviceSampler<'a> {
        DeviceSampler { model, runtime, step: None }
    }

    /// Shape of the model.
    pub(crate) fn config(&self) -> &ModelConfig {
        &self.model.config
    }

    /// Whether the last batch's step was captured.
    pub(crate) fn is_captured(&self) -> bool {
        self.step.as_ref().is_some_and(Captured::is_captured)
    }

    /// A batch: tokens `[B, N]`, row-major. `class_c` are the classes of its sequences, `uniform_bnp` its random numbers
    /// `[B, N, 2]`.
    ///
    /// # Errors
    /// Logits that are not finite. They are looked for at every position, and found at the end: nobody waits for the device in
    /// between.
    pub(crate) fn sample(
        &mut self,
        config: &SamplerConfig,
        mode: GuidanceMode,
        class_c: &[i64],
        uniform_bnp: &[f64],
    ) -> Result<Vec<u32>, SampleError> {
        let _no_grad = tch::no_grad_guard();
        let mut step = match self.step.take() {
            Some(step) if step.region().mode == mode && step.region().num_sequences() == class_c.len() => step,
            old => {
                // First out with the old one: the memory of both may not suffice.
                drop(old);
                let region = TokenStep::new(self.model, config, mode, class_c.len() as i64, self.runtime.device);
                Captured::new(region, &self.runtime)
            }
        };
        step.region().start(class_c, uniform_bnp);
        for _ in 0..self.model.config.block_size {
            step.run()?;
        }
        let tokens = step.region().tokens();
        self.step = Some(step);
        tokens
    }
}

/// One token of every sequence of a batch: both parts are drawn, and the sequences go on to the next position.
struct TokenStep<'a> {
    model: &'a ArModel,
    mode: GuidanceMode,
    /// How low and high bits are drawn, but for the guidance scale.
    rules: [Rule; 2],
    /// Keys and values of every spatial block.
    caches: Vec<(Tensor, Tensor)>,
    /// The position, int64 `[1]`.
    at: Tensor,
    /// What enters the spatial stack, `[C, 1, D]`.
    x_c1d: Tensor,
    /// Guidance scales, fp32 `[N, 2]`.
    scale_np: Tensor,
    /// Random numbers, f64 `[B, N, 2]`.
    uniform_bnp: Tensor,
    /// What was drawn, int64 `[B, N]`.
    tokens_bn: Tensor,
    /// Whether the logits that it was drawn from were finite, int64 `[N, 2]`.
    sound_np: Tensor,
}

impl<'a> TokenStep<'a> {
    fn new(
        model: &'a ArModel,
        config: &SamplerConfig,
        mode: GuidanceMode,
        sequences: i64,
        device: Device,
    ) -> TokenStep<'a> {
        let n = model.config.block_size;
        let batch = sequences / mode.count() as i64;
        let rules = [0, 1].map(|part| config.rule(part, n - 1, n));
        let scales: Vec<f32> =
            (0..n).flat_map(|t| [0, 1].map(|part| config.rule(part, t, n).cfg_scale as f32)).collect();
        let zeros = |shape: &[i64], kind| Tensor::zeros(shape, (kind, device));
        TokenStep {
            model,
            mode,
            rules,
            caches: model.empty_caches(sequences),
            at: zeros(&[1], Kind::Int64),
            x_c1d: model.embed_class(&zeros(&[sequences], Kind::Int64)).contiguous(),
            scale_np: upload(&Tensor::from_slice(&scales).view([n, 2]), device),
            uniform_bnp: zeros(&[batch, n, 2], Kind::Double),
            tokens_bn: zeros(&[batch, n], Kind::Int64),
            sound_np: zeros(&[n, 2], Kind::Int64),
        }
    }

    fn num_sequences(&self) -> usize {
        self.x_c1d.size()[0] as usize
    }

    /// Begins a batch at position 0.
    fn start(&self, class_c: &[i64], uniform_bnp: &[f64]) {
        let device = self.at.device();
        let class_c = upload(&Tensor::from_slice(class_c), device);
        set(&self.x_c1d, &self.model.embed_class(&class_c));
        set(&self.uniform_bnp, &upload(&Tensor::from_slice(uniform_bnp).view_as(&self.uniform_bnp), device));
        let _ = self.at.shallow_clone().zero_();
    }

    /// What the batch has become.
    fn tokens(&self) -> Result<Vec<u32>, SampleError> {
        let fetched = Fetch::begin(&[&self.sound_np, &self.tokens_bn]).wait();
        let [sound_np, tokens_bn] = [0, 1].map(|i| Vec::<i64>::try_from(&fetched[i].view([-1])));
        let (sound_np, tokens_bn) = (sound_np.expect("integers of the host"), tokens_bn.expect("integers of the host"));
        if let Some(draw) = sound_np.iter().position(|&is_sound| is_sound == 0) {
            return Err(SampleError::NotLogits { position: draw / 2 });
        }
        Ok(tokens_bn.into_iter().map(|token| token as u32).collect())
    }

    /// A part of the token of every image from the logits `[C, V]`: int64 `[B]`, and whether they were finite, `[]`.
    fn draw(&self, part: usize, logits_cv: &Tensor) -> (Tensor, Tensor) {
        let of_part = |all: &Tensor, dim: i64| all.index_select(dim, &self.at).select(-1, part as i64);
        let (cond_bv, uncond_bv) = split(logits_cv, self.mode);
        let logits_bv = guide(&cond_bv, uncond_bv.as_ref(), &of_part(&self.scale_np, 0));
        let sound = is_sound(&logits_bv);
        (draw(logits_bv, &self.rules[part], &of_part(&self.uniform_bnp, 1).reshape([-1])), sound)
    }
}

impl Region for TokenStep<'_> {
    type Error = SampleError;
    const NAME: &'static str = "a sampled token";

    fn run(&self) -> Result<(), SampleError> {
        let _no_grad = tch::no_grad_guard();
        let for_all = |token_b: &Tensor| token_b.repeat([self.mode.count() as i64]);
        let h_cd = self.model.step_at(&self.x_c1d, &self.at, &self.caches);
        let (logits_cv, values) = self.model.pre_logits(&h_cd);
        let (pre_b, pre_sound) = self.draw(0, &logits_cv);
        let pre_c = for_all(&pre_b);
        let (post_b, post_sound) = self.draw(1, &self.model.post_logits(&pre_c, &values));
        let post_c = for_all(&post_b);
        let low_bits = i64::from(self.model.config.factorized_bits[0]);
        let token_b = pre_b + post_b.bitwise_left_shift_tensor_scalar(low_bits);
        let _ = self.tokens_bn.shallow_clone().index_copy_(1, &self.at, &token_b.unsqueeze(1));
        let sound_1p = Tensor::stack(&[pre_sound, post_sound], 0).to_kind(Kind::Int64).unsqueeze(0);
        let _ = self.sound_np.shallow_clone().index_copy_(0, &self.at, &sound_1p);
        set(&self.x_c1d, &self.model.embed(&pre_c, &post_c).unsqueeze(1));
        let _ = self.at.shallow_clone().g_add_scalar_(1);
        Ok(())
    }
}

/// Gives a tensor new values in its memory.
fn set(tensor: &Tensor, values: &Tensor) {
    tensor.shallow_clone().copy_(values);
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

/// Guided logits `[B, V]` at the scale, fp32 `[1]`.
fn guide(cond_bv: &Tensor, uncond_bv: Option<&Tensor>, scale: &Tensor) -> Tensor {
    let Some(uncond_bv) = uncond_bv else { return cond_bv.shallow_clone() };
    let guided_bv = uncond_bv + (cond_bv - uncond_bv) * scale;
    // At 1 the class alone, to the bit, as on the host.
    guided_bv.where_self(&scale.ne(1.0), cond_bv)
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
    use tokengrid_model::{Precision, Route, Weights, host_reads};
    use tokengrid_test_support::golden;

    /// A GPU's way, on tensors of the CPU.
    const ON_DEVICE: Runtime = Runtime { route: Route::DEVICE, ..Runtime::EXACT };

    fn sixteen_positions() -> ArWeights {
        let mut weights = ArWeights::open(&golden("ar.ckpt"), Known { n_head: Some(4), grid: Some((8, 8)) }).unwrap();
        weights.config.block_size = 16;
        weights
    }

    #[test]
    fn the_host_reads_once_a_batch_however_many_tokens_it_has() {
        let mut weights = sixteen_positions();
        let wanted: Vec<SampleRequest> = (0..3).map(|i| SampleRequest { class: i, index: 5 }).collect();
        // Guided, filtered, and in half precision.
        let config = SamplerConfig {
            cfg_scale: [1.5, 2.0],
            cfg_schedule: Schedule::Cosine,
            top_k: [20, 0],
            top_p: [1.0, 0.9],
            ..SamplerConfig::default()
        };
        for (block_size, precision) in [(4, Precision::Fp32), (16, Precision::Fp32), (16, Precision::Bf16)] {
            weights.config.block_size = block_size;
            let runtime = Runtime { precision, ..ON_DEVICE };
            let model = ArModel::for_inference(&weights.config, &weights.params, &runtime);
            let mut sampler = Sampler::new(&model, config.clone(), runtime).unwrap();
            let (tokens, reads) = host_reads::count(|| sampler.sample(&wanted).unwrap()).unwrap();
            assert_eq!((tokens.len() as i64, reads.count), (3 * block_size, 1), "{reads:?}");
        }
    }

    #[test]
    fn a_step_that_is_captured_and_repeated_draws_the_same_tokens() {
        let weights = sixteen_positions();
        let model = ArModel::new(&weights.config, &weights.params, Device::Cpu, Kind::Float);
        let with_graphs = Runtime { route: Route { graphs: true, ..Route::DEVICE }, ..ON_DEVICE };
        let config =
            SamplerConfig { cfg_scale: [1.5, 0.5], cfg_schedule: Schedule::Linear, ..SamplerConfig::default() };
        let mut captured = Sampler::new(&model, config.clone(), with_graphs).unwrap();
        let mut plain = Sampler::new(&model, config, ON_DEVICE).unwrap();
        // Batches of one size, then of another, and of the first again.
        for (images, first) in [(3, 0), (3, 7), (2, 1), (3, 0)] {
            let wanted: Vec<SampleRequest> =
                (0..images).map(|i| SampleRequest { class: (first + i as i64) % 10, index: i }).collect();
            assert_eq!(captured.sample(&wanted).unwrap(), plain.sample(&wanted).unwrap());
        }
        // Or else nothing was repeated.
        assert!(captured.is_captured() && !plain.is_captured());
    }

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
        let weights = sixteen_positions();
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
        let weights = sixteen_positions();
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
            let scale = Tensor::from_slice(&[cfg_scale as f32]);
            let logits_bv = guide(&tensor(&cond), Some(&tensor(&uncond)), &scale);
            let tokens = draw(logits_bv, &rule, &Tensor::from_slice(&uniform));
            let mut host = RowDraw::default();
            let rows = cond.chunks(VOCAB).zip(uncond.chunks(VOCAB)).zip(&uniform);
            let ours: Vec<i64> =
                rows.map(|((cond, uncond), u)| host.draw(cond, Some(uncond), &rule, *u).unwrap().into()).collect();
            assert_eq!(ours, Vec::<i64>::try_from(tokens).unwrap(), "{rule:?}");
        }
    }
}
