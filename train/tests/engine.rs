//! All computations of a step agree: fused, autograd, recomputed activations, two processes.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

use tch::{Kind, Tensor};
use tokengrid_model::ar::{ModelConfig, initial_params};
use tokengrid_model::host_reads::{HostReads, count};
use tokengrid_model::{Params, Precision, Route, Runtime};
use tokengrid_train::ar::{ArConfig, Engine, GradAccum, HostBatch, StepName};
use tokengrid_train::optim::Shard;
use tokengrid_train::process_group::{OneProcess, ProcessGroup, ThreadProcessGroup};

fn config() -> ArConfig {
    let mut config = ArConfig {
        model: ModelConfig {
            dim: 64,
            n_head: 4,
            spatial_n_layer: 3,
            factorized_n_layer: 2,
            factorized_bits: [3, 5],
            block_size: 16,
            class_num: 7,
            token_drop: 0.0,
            resid_dropout: 0.0,
            ffn_dropout: 0.0,
            class_dropout: 0.0,
        },
        ..ArConfig::default()
    };
    config.train.batch_size = 4;
    config
}

/// Weights whose heads are not zero, as they are after the first step.
fn params(config: &ModelConfig) -> Params {
    let lively = |(name, tensor): (&str, &Tensor)| {
        let tensor = if name.starts_with("head.") { tensor.randn_like() * 0.02 } else { tensor.copy() };
        (name.to_string(), tensor)
    };
    initial_params(config, 5).iter().map(lively).collect()
}

/// Samples `first ..` of an endless data set.
fn batch(config: &ModelConfig, first: usize, size: usize) -> HostBatch {
    let n = config.block_size as usize;
    let [low, high] = config.vocab();
    let token = |i: usize, limit: i64| ((i * 7919 + i * i * 13) as i64).rem_euclid(limit);
    let tokens = |limit| (first * n..(first + size) * n).map(|i| token(i, limit)).collect();
    HostBatch { pre: tokens(low), post: tokens(high), class: (first..first + size).map(|i| (i % 7) as i64).collect() }
}

fn runtime() -> Runtime {
    Runtime::choose(Some("cpu"), Precision::Fp32, None).unwrap()
}

/// Losses and gradient norm of three steps, and the weights after them.
fn three_steps(config: &ArConfig, processes: &dyn ProcessGroup) -> (Vec<Vec<f64>>, Vec<(String, Tensor)>) {
    three_steps_from(params(&config.model), config, processes)
}

fn three_steps_from(
    params: Params,
    config: &ArConfig,
    processes: &dyn ProcessGroup,
) -> (Vec<Vec<f64>>, Vec<(String, Tensor)>) {
    three_steps_on(&runtime(), params, config, processes)
}

fn three_steps_on(
    runtime: &Runtime,
    params: Params,
    config: &ArConfig,
    processes: &dyn ProcessGroup,
) -> (Vec<Vec<f64>>, Vec<(String, Tensor)>) {
    let shard = match config.train.shard_optimizer {
        true => Shard { rank: processes.rank(), world_size: processes.world_size() },
        false => Shard::WHOLE,
    };
    let mut engine = Engine::sharded(config, &params, runtime, shard).unwrap();
    let (size, accum) = (config.train.batch_size, config.train.grad_accum.count().unwrap());
    let steps = (0..3).map(|step| {
        let mut next = |micro: u64| {
            let global = (step as usize * accum + micro as usize) * processes.world_size() + processes.rank();
            Ok(batch(&config.model, global * size, size))
        };
        let values = engine.step(&mut next, StepName { seed: 1, step }, 1e-3, processes).unwrap();
        Vec::<f64>::try_from(&values.to_kind(Kind::Double)).unwrap()
    });
    let steps = steps.collect();
    let leaves = engine.optimizer.leaves().map(|(name, leaf)| (name.to_string(), leaf.detach().copy())).collect();
    (steps, leaves)
}

#[track_caller]
fn assert_same(
    (steps, leaves): &(Vec<Vec<f64>>, Vec<(String, Tensor)>),
    (other_steps, other_leaves): &(Vec<Vec<f64>>, Vec<(String, Tensor)>),
) {
    for (a, b) in steps.iter().flatten().zip(other_steps.iter().flatten()) {
        assert!((a - b).abs() <= 2e-6 * b.abs(), "{steps:?} {other_steps:?}");
    }
    for ((name, a), (_, b)) in leaves.iter().zip(other_leaves) {
        // The first steps of Adam turn a rounding error of a tiny gradient into a part of the learning rate.
        let difference = (a - b).abs().mean(Kind::Double).double_value(&[]);
        assert!(difference < 1e-6, "{name}: {difference:e}");
    }
}

#[test]
fn written_out_autograd_and_recomputed_steps_agree() {
    let fused = config();
    let mut autograd = config();
    autograd.train.fused = false;
    let mut recompute = config();
    recompute.train.recompute = true;
    let wanted = three_steps(&autograd, &OneProcess);
    assert!(wanted.0[2][0] < wanted.0[0][0], "it learns");
    assert_same(&three_steps(&fused, &OneProcess), &wanted);
    let device = Runtime { route: Route::DEVICE, ..runtime() };
    assert_same(&three_steps_on(&device, params(&fused.model), &fused, &OneProcess), &wanted);
    assert_same(&three_steps(&recompute, &OneProcess), &wanted);
}

#[test]
fn recomputed_activations_draw_the_same_dropout() {
    let mut config = config();
    config.model.token_drop = 0.2;
    config.model.resid_dropout = 0.2;
    config.model.ffn_dropout = 0.2;
    config.train.recompute = true;
    let first = three_steps(&config, &OneProcess);
    let again = three_steps(&config, &OneProcess);
    assert_eq!(first.0, again.0);
    // Were the second forward pass of a block another draw than the first, the gradient would not be the loss's: a step
    // along it would not lower that same draw's loss by what the gradient promises.
    let mut engine = Engine::new(&config, &params(&config.model), &runtime()).unwrap();
    let loss_after = |engine: &mut Engine, lr: f64| {
        let mut next = |_: u64| Ok(batch(&config.model, 0, 4));
        let values = engine.step(&mut next, StepName { seed: 1, step: 0 }, lr, &OneProcess).unwrap();
        values.double_value(&[0]) + values.double_value(&[1])
    };
    let before = loss_after(&mut engine, 1e-4);
    let after = loss_after(&mut engine, 0.0);
    assert!(after < before, "{after} {before}");
}

#[test]
fn micro_batches_and_processes_add_up_to_the_large_batch() {
    let mut whole = config();
    whole.train.batch_size = 8;
    let wanted = three_steps(&whole, &OneProcess);
    let mut accumulated = config();
    accumulated.train.grad_accum = 2.into();
    assert_same(&three_steps(&accumulated, &OneProcess), &wanted);
    assert_same(&in_threads(&config(), ThreadProcessGroup::group(2)), &wanted);
}

#[test]
fn sums_for_the_owners_of_moments_are_enough() {
    let mut whole = config();
    whole.train.batch_size = 12;
    let wanted = three_steps(&whole, &OneProcess);
    for fused in [true, false] {
        let mut shared = config();
        (shared.train.shard_optimizer, shared.train.fused) = (true, fused);
        // In all other processes such sums are NaN: whoever used one would not train as one process does.
        assert_same(&in_threads(&shared, ThreadProcessGroup::group_with_sums_for_one(3)), &wanted);
    }
}

/// [`three_steps`] in a thread for each process, which all end with the same weights.
fn in_threads(config: &ArConfig, group: Vec<ThreadProcessGroup>) -> (Vec<Vec<f64>>, Vec<(String, Tensor)>) {
    // All of them before the first thread: libtorch's random numbers are one stream for all threads, and a step seeds it.
    let params: Vec<Params> = group.iter().map(|_| params(&config.model)).collect();
    let mut results: Vec<_> = std::thread::scope(|scope| {
        let run = |(params, processes): (Params, ThreadProcessGroup)| {
            scope.spawn(move || three_steps_from(params, config, &processes))
        };
        let threads: Vec<_> = params.into_iter().zip(group).map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let first = results.remove(0);
    for other in results {
        for ((name, a), (_, b)) in first.1.iter().zip(&other.1) {
            assert!(a.equal(b), "{name} differs between the processes");
        }
    }
    first
}

/// Losses and norms of six steps of two micro-batches each on a GPU's route, weights and moments after them; whether they were
/// captured, and what the host read in the last step.
fn six_steps(precision: Precision, graphs: bool) -> (Vec<Tensor>, Vec<Tensor>, bool, HostReads) {
    let mut config = config();
    (config.train.grad_accum, config.train.ema_decay) = (GradAccum::Count(2), 0.9);
    (config.model.token_drop, config.model.resid_dropout, config.model.ffn_dropout) = (0.1, 0.1, 0.1);
    let runtime = Runtime { precision, route: Route { graphs, ..Route::DEVICE }, ..runtime() };
    let mut engine = Engine::new(&config, &params(&config.model), &runtime).unwrap();
    let mut last = HostReads::default();
    let steps = (0..6).map(|step| {
        let mut next = |micro: u64| Ok(batch(&config.model, (2 * step as usize + micro as usize) * 4, 4));
        // Another learning rate and another dropout in each step.
        let (name, lr) = (StepName { seed: 1, step }, 1e-3 * (1 + step) as f64);
        let (values, reads) = count(|| engine.step(&mut next, name, lr, &OneProcess).unwrap()).unwrap();
        last = reads;
        values
    });
    let steps = steps.collect();
    let buffers = engine.optimizer.buffers().map(Tensor::copy).collect();
    (steps, buffers, engine.is_captured(), last)
}

#[test]
fn a_step_that_is_captured_and_repeated_is_the_same_to_the_bit() {
    for precision in [Precision::Fp32, Precision::Bf16] {
        let (steps, buffers, is_captured, _) = six_steps(precision, false);
        assert!(!is_captured);
        let (captured_steps, captured_buffers, is_captured, _) = six_steps(precision, true);
        assert!(is_captured, "{precision:?}");
        for (a, b) in steps.iter().chain(&buffers).zip(captured_steps.iter().chain(&captured_buffers)) {
            assert!(a.equal(b), "{precision:?}: {steps:?} {captured_steps:?}");
        }
        // Numbers that a capture would have frozen differ from step to step.
        assert!((1..6).all(|i| !steps[i].equal(&steps[i - 1])), "{steps:?}");
    }
}

#[test]
fn the_host_reads_nothing_in_a_step_but_the_norm_in_fp16() {
    for (precision, num_reads) in [(Precision::Fp32, 0), (Precision::Bf16, 0), (Precision::Fp16, 1)] {
        let (_, _, _, reads) = six_steps(precision, false);
        assert_eq!(reads.count, num_reads, "{precision:?}: {reads:?}");
    }
}
