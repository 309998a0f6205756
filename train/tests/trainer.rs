//! The whole trainer over a small cache: several processes, and fp16's loss scaling.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

#[path = "common/small_run.rs"]
mod small_run;

use small_run::{cache, config, model, train, train_as, values};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use tch::Kind;
use tokengrid_model::{Params, Runtime, Weights};
use tokengrid_train::TrainError;
use tokengrid_train::ar::{ArConfig, GradAccum, REFERENCE_GLOBAL_BATCH, Summary, Trainer};
use tokengrid_train::process_group::{OneProcess, ProcessGroup, ThreadProcessGroup};
use tokengrid_train::run::{State, save_safetensors};

/// Two processes, each in a thread; with `cancel` the second is stopped.
fn train_in_two(config: &ArConfig, out: &Path, cancel: bool) -> Vec<Result<Summary, TrainError>> {
    std::thread::scope(|scope| {
        let threads = ThreadProcessGroup::group(2).into_iter().map(|processes| {
            let told = AtomicBool::new(cancel && processes.rank() == 1);
            scope.spawn(move || train_as(Box::new(processes), config, out, &told))
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[track_caller]
fn assert_near(a: &Path, b: &Path, step: u64) {
    for (a, b) in values(a, "train/loss").into_iter().zip(values(b, "train/loss")) {
        let (a, b) = (a.unwrap(), b.unwrap());
        assert!((a - b).abs() <= 1e-5 * b, "{a} {b}");
    }
    let (a, b) = (model(a, step), model(b, step));
    for name in a.names() {
        // Adam's first steps turn a rounding error of a tiny gradient into a part of the learning rate.
        let difference = (a.tensor(name).unwrap() - b.tensor(name).unwrap()).abs().mean(Kind::Double);
        assert!(difference.double_value(&[]) < 1e-6, "{name}: {difference:?}");
    }
}

#[test]
fn two_processes_train_as_one_with_twice_the_batch() {
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    cache(dir);
    let (one, two) = (dir.join("one"), dir.join("two"));
    let mut whole = config(dir, 12);
    whole.train.batch_size = 16;
    train(&whole, &one).unwrap();
    let ends = train_in_two(&config(dir, 12), &two, false);
    let losses: Vec<f64> = ends.into_iter().map(|end| end.unwrap().loss).collect();
    assert_eq!(losses[0], losses[1], "both know the mean of both");
    assert_eq!(values(&two, "step"), values(&one, "step"), "each step is written once");
    assert_eq!(values(&two, "epoch"), values(&one, "epoch"));
    assert_near(&one, &two, 12);
    assert!(losses[0] < values(&two, "train/loss")[0].unwrap(), "it learns");
}

#[test]
fn two_processes_stop_together_and_go_on_to_the_bit() {
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    cache(dir);
    let (whole, parts) = (dir.join("whole"), dir.join("parts"));
    let mut config = config(dir, 12);
    train_in_two(&config, &whole, false).into_iter().for_each(|end| drop(end.unwrap()));
    // Only the second is stopped; both agree on it in the current step, whether it is a logged one or not.
    config.train.log_every = 6;
    let ends = train_in_two(&config, &parts, true);
    assert!(ends.iter().all(|end| matches!(end, Err(TrainError::Cancelled))), "{ends:?}");
    assert_eq!(values(&parts, "step"), [Some(1.0)]);
    train_in_two(&config, &parts, false).into_iter().for_each(|end| drop(end.unwrap()));
    let (whole, parts) = (model(&whole, 12), model(&parts, 12));
    assert!(whole.names().all(|name| whole.tensor(name).unwrap().equal(&parts.tensor(name).unwrap())));
}

#[test]
fn an_automatic_number_of_micro_batches_keeps_the_global_batch() {
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    cache(dir);
    let (one, three) = (dir.join("one"), dir.join("three"));
    let mut config = config(dir, 4);
    (config.train.grad_accum, config.train.global_batch) = (GradAccum::Auto, Some(40));
    train(&config, &one).unwrap();
    config.train.batch_size = 7;
    small_run::train_among(&vec![config.clone(); 3], &three).into_iter().for_each(|end| drop(end.unwrap()));
    assert_eq!(values(&one, "epoch"), [1.0, 2.0, 3.0, 4.0].map(Some), "40 of 40 images a step");
    assert_eq!(values(&three, "epoch"), values(&one, "epoch"));
    assert_near(&one, &three, 4);
    config.train.global_batch = None;
    let runtime = Runtime::EXACT;
    let open = |dir: &Path| Trainer::open(config.clone(), dir, runtime, Box::new(OneProcess), false).unwrap();
    assert_eq!(open(&dir.join("reference")).sharing().global_batch(), REFERENCE_GLOBAL_BATCH);
}

#[test]
fn the_failure_of_one_process_ends_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    cache(dir);
    let out = dir.join("out");
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("thesis.tex"), "not a run").unwrap();
    let ends = train_in_two(&config(dir, 4), &out, false);
    let message = |rank: usize| ends[rank].as_ref().unwrap_err().to_string();
    assert!(message(0).contains("holds no run"), "{}", message(0));
    assert!(message(1).contains("process 0 of this run is gone"), "{}", message(1));
}

#[test]
fn a_scaled_loss_trains_the_same_in_fp16() {
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    cache(dir);
    for (name, fused, recompute) in [("fused", true, false), ("autograd", false, false), ("recompute", false, true)] {
        let mut config = config(dir, 5);
        (config.train.fused, config.train.recompute, config.train.grad_accum) = (fused, recompute, 2.into());
        let (plain, scaled) = (dir.join(name), dir.join(format!("{name}-fp16")));
        train(&config, &plain).unwrap();
        config.train.precision = "fp16".into();
        train(&config, &scaled).unwrap();
        // On the CPU both compute in fp32, and powers of two are exact.
        assert_eq!(values(&plain, "train/loss"), values(&scaled, "train/loss"), "{name}");
        let (a, b) = (model(&plain, 5), model(&scaled, 5));
        assert!(a.names().all(|tensor| a.tensor(tensor).unwrap().equal(&b.tensor(tensor).unwrap())), "{name}");
        assert_eq!(values(&scaled, "train/loss_scale"), [Some(65536.0); 5]);
        assert_eq!(values(&plain, "train/loss_scale"), [None; 5]);
    }
}

/// Changes the loss scaling in the latest checkpoint.
fn set_factor(run: &Path, factor: f64) -> State {
    let file = run.join("checkpoints/latest/state.json");
    let mut state: State = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    state.loss_scale.as_mut().unwrap().factor = factor;
    std::fs::write(&file, serde_json::to_vec(&state).unwrap()).unwrap();
    state
}

#[test]
fn steps_that_overflow_are_left_out_until_the_factor_fits() {
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    cache(dir);
    let run = dir.join("run");
    let mut config = config(dir, 4);
    config.train.precision = "fp16".into();
    train(&config, &run).unwrap();
    // A factor that no float holds: the gradients of the next steps are infinite.
    let before = set_factor(&run, 2f64.powi(140));
    config.train.max_steps = Some(8);
    train(&config, &run).unwrap();
    let (a, b) = (model(&run, 4), model(&run, 8));
    assert!(a.names().all(|name| a.tensor(name).unwrap().equal(&b.tensor(name).unwrap())), "the weights did not move");
    assert_eq!(&values(&run, "train/grad_norm")[4..], [None; 4]);
    assert_eq!(values(&run, "train/skipped_steps")[7], Some(4.0));
    assert_eq!(values(&run, "train/loss_scale")[7].unwrap().log2().round(), 136.0);
    assert!(values(&run, "train/loss")[7].is_some() && values(&run, "lr")[6] != values(&run, "lr")[7]);
    config.train.max_steps = Some(40);
    config.train.keep_last = 0;
    train(&config, &run).unwrap();
    let file = std::fs::read(run.join("checkpoints/latest/state.json")).unwrap();
    let after: State = serde_json::from_slice(&file).unwrap();
    let scale = after.loss_scale.unwrap();
    assert!(scale.factor > 1.0 && scale.factor < 2f64.powi(136) && scale.skipped_steps > 4, "{scale:?}");
    assert_eq!(after.position, before.position + 36 * 8, "data went on");
    let c = model(&run, 40);
    assert!(!b.tensor("norm.weight").unwrap().equal(&c.tensor("norm.weight").unwrap()), "it learns again");
}

#[test]
fn overflow_at_any_factor_ends_the_run_and_publishes_nothing() {
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    cache(dir);
    let run = dir.join("run");
    let mut config = config(dir, 100);
    config.train.precision = "fp16".into();
    config.train.checkpoint_every = 1;
    config.train.log_every = 50;
    // Products of these weights are infinite: so is every gradient, however the loss is scaled.
    let start = dir.join("start.safetensors");
    let weights = Weights::open(&start).unwrap();
    let params: Params = weights.names().map(|name| (name.to_string(), weights.tensor(name).unwrap())).collect();
    for name in ["norm.weight", "head.0.weight"] {
        let _ = params.get(name).shallow_clone().fill_(3e38);
    }
    save_safetensors(&start, params.iter(), HashMap::new()).unwrap();
    let message = train(&config, &run).unwrap_err().to_string();
    // 65536 is halved 17 times until it is below 1.
    assert!(message.contains("at step 17 ") && message.contains("loss scale of 0.5"), "{message}");
    assert!(message.contains("no checkpoint yet") && message.contains("bf16"), "{message}");
    assert_eq!(std::fs::read_dir(run.join("checkpoints")).unwrap().count(), 0);
    assert_eq!(values(&run, "train/loss_scale"), [Some(0.5)]);
}
