use super::*;

fn quadratic() -> (AdamW, Params) {
    let params: Params = [
        ("a.weight".to_string(), Tensor::from_slice(&[1.0f32, -2.0, 3.0, 0.5]).view([2, 2])),
        ("b.weight".to_string(), Tensor::from_slice(&[4.0f32, 5.0])),
    ]
    .into_iter()
    .collect();
    let config = AdamWConfig { betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1, weight_decay_on_norms: false };
    AdamW::new(&params, config, Device::Cpu)
}

fn loss(params: &Params) -> Tensor {
    params.get("a.weight").square().sum(Kind::Float) + params.get("b.weight").square().sum(Kind::Float)
}

#[test]
fn first_step_is_the_formula_computed_by_hand() {
    let (mut optimizer, params) = quadratic();
    let grads = optimizer.backward(&loss(&params)).unwrap();
    optimizer.step(&grads, 0.01);
    // m / sqrt(v) is the gradient's sign at the first step; only the matrix decays.
    let a = params.get("a.weight").double_value(&[0, 0]);
    let b = params.get("b.weight").double_value(&[1]);
    assert!((a - (1.0 * (1.0 - 0.001) - 0.01)).abs() < 1e-6, "{a}");
    assert!((b - (5.0 - 0.01)).abs() < 1e-6, "{b}");
}

#[test]
fn saved_and_loaded_state_continues_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("optimizer.safetensors");
    let (mut one, params_one) = quadratic();
    for _ in 0..3 {
        let grads = one.backward(&loss(&params_one)).unwrap();
        one.step(&grads, 0.01);
    }
    one.save(&file).unwrap();
    let (mut two, params_two) = quadratic();
    tch::no_grad(|| params_two.get("a.weight").shallow_clone().copy_(params_one.get("a.weight")));
    tch::no_grad(|| params_two.get("b.weight").shallow_clone().copy_(params_one.get("b.weight")));
    two.load(&file).unwrap();
    for (optimizer, params) in [(&mut one, &params_one), (&mut two, &params_two)] {
        let grads = optimizer.backward(&loss(params)).unwrap();
        optimizer.step(&grads, 0.01);
    }
    assert!(params_one.get("a.weight").equal(params_two.get("a.weight")));
    assert!(params_one.get("b.weight").equal(params_two.get("b.weight")));
}

#[test]
fn clipping_scales_to_the_limit_and_reports_the_norm_before() {
    let (optimizer, params) = quadratic();
    let mut grads = optimizer.backward(&loss(&params)).unwrap();
    let expected = 4.0 * (1.0 + 4.0 + 9.0 + 0.25 + 16.0 + 25.0f64);
    assert!((grads.clip(1.0) - expected.sqrt()).abs() < 1e-5);
    assert!((grads.clip(2.0) - 1.0).abs() < 1e-5);
}

#[test]
fn clipping_asynchronously_is_the_same() {
    let (optimizer, params) = quadratic();
    for max_norm in [1.0, 1e3] {
        let [mut waited, mut queued] = [(); 2].map(|()| optimizer.backward(&loss(&params)).unwrap());
        let (norm, tensor) = (waited.clip(max_norm), queued.clip_async(max_norm));
        assert!((norm - tensor.double_value(&[])).abs() < 1e-9);
        assert!(waited.0.iter().zip(&queued.0).all(|(a, b)| a.allclose(b, 1e-6, 0.0, false)));
    }
}

#[test]
fn an_infinity_or_a_nan_anywhere_is_found() {
    let (optimizer, params) = quadratic();
    assert!(optimizer.backward(&loss(&params)).unwrap().is_finite());
    for factor in [f64::INFINITY, f64::NAN] {
        let grads = optimizer.backward(&(params.get("b.weight").select(0, 1) * factor + loss(&params))).unwrap();
        assert!(!grads.is_finite());
    }
}

#[test]
fn ema_moves_by_one_minus_decay() {
    let (mut optimizer, params) = quadratic();
    let mut ema = Ema::new(&optimizer, 0.75);
    let before = params.get("b.weight").double_value(&[0]);
    let grads = optimizer.backward(&loss(&params)).unwrap();
    optimizer.step(&grads, 1.0);
    ema.update(&optimizer);
    let after = params.get("b.weight").double_value(&[0]);
    let averaged = ema.params(&optimizer).get("b.weight").double_value(&[0]);
    assert!((averaged - (before + 0.25 * (after - before))).abs() < 1e-6);
}
