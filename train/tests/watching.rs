//! Metrics of a run, and what depends on them: the best checkpoint, utilisation, loggers, the FID.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

#[path = "common/small_run.rs"]
mod small_run;

use small_run::{cache, config, file, same_tensors, train, train_among, values};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use tch::{Device, Kind, Tensor};
use tokengrid_model::{Params, Runtime, Weights};
use tokengrid_train::ar::{ArConfig, Trainer, flops_per_token};
use tokengrid_train::process_group::{ProcessGroup, ThreadProcessGroup};
use tokengrid_train::run::{State, save_safetensors};

#[test]
fn the_best_checkpoint_stays_over_stops_and_any_number_of_processes() {
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let cache = cache(dir);
    let run = dir.join("run");
    let mut config = config(dir, 20);
    (config.train.checkpoint_every, config.train.keep_last) = (2, 1);
    (config.train.val_every, config.train.wpe, config.train.warmup_steps) = (3, 1.0, Some(0));
    config.train.save_best = Some("val_loss".into());
    let message = train(&config, &run).unwrap_err().to_string();
    assert!(message.contains("train.save_best") && message.contains("--val-cache"), "{message}");
    config.data.val_cache = Some(cache.display().to_string());
    let best_of = |run: &Path| {
        let losses = values(run, "val/loss");
        let validated = losses.iter().zip(1u64..).filter_map(|(loss, step)| Some(((*loss)?, step)));
        validated.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
    };
    let linked = |run: &Path| std::fs::read_link(run.join("checkpoints/best")).unwrap();
    for (steps, processes) in [(9, 1), (15, 2), (20, 1)] {
        config.train.max_steps = Some(steps);
        // From the second start on the losses are worse.
        if steps > 9 {
            spoil(&run);
        }
        train_among(&vec![config.clone(); processes], &run).into_iter().for_each(|end| drop(end.unwrap()));
        let (loss, step) = best_of(&run);
        assert_eq!(linked(&run), Path::new(&format!("step-{step:08}")), "after {steps} steps");
        assert!(step <= 9 && run.join("checkpoints/best/optimizer.safetensors").is_file());
        let text = std::fs::read(run.join("checkpoints/latest/state.json")).unwrap();
        let state: State = serde_json::from_slice(&text).unwrap();
        let best = state.best.unwrap();
        assert_eq!((best.step, best.value, &*best.metric), (step, loss as f32, "val/loss"));
        assert!(std::fs::read_dir(run.join("checkpoints")).unwrap().count() <= 4, "both links and two checkpoints");
    }
    // Without the setting, a continued run keeps its best checkpoint.
    (config.train.max_steps, config.train.save_best) = (Some(22), None);
    train(&config, &run).unwrap();
    assert_eq!(linked(&run), Path::new(&format!("step-{:08}", best_of(&run).1)));
}

/// Replaces the last norm of the newest checkpoint, so that the loss is worse from there on.
fn spoil(run: &Path) {
    let file = run.join("checkpoints/latest/model.safetensors").canonicalize().unwrap();
    let weights = Weights::open(&file).unwrap();
    let facts: HashMap<String, String> = weights.facts().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let params: Params = weights.names().map(|name| (name.to_string(), weights.tensor(name).unwrap())).collect();
    let _ = params.get("norm.weight").shallow_clone().g_mul_scalar_(-30.0);
    save_safetensors(&file, params.iter(), facts).unwrap();
}

#[test]
fn a_known_peak_gives_the_utilisation_and_no_logger_leaves_the_lines_only() {
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    cache(dir);
    let (plain, run) = (dir.join("plain"), dir.join("run"));
    let mut config = config(dir, 4);
    train(&config, &plain).unwrap();
    assert_eq!(values(&plain, "mfu"), [None; 4], "nothing is known of a CPU");
    config.train.peak_tflops = Some(0.5);
    config.train.logger = serde_json::from_str("\"jsonl\"").unwrap();
    train_among(&vec![config.clone(); 2], &run).into_iter().for_each(|end| drop(end.unwrap()));
    for (mfu, speed) in values(&run, "mfu").into_iter().zip(values(&run, "tokens_per_second")) {
        let of_two = speed.unwrap() * flops_per_token(&config.model) / (2.0 * 0.5e12);
        assert!((mfu.unwrap() / of_two - 1.0).abs() < 1e-9);
    }
    let has_events = |run: &Path| {
        let mut entries = std::fs::read_dir(run).unwrap().flatten();
        entries.any(|entry| entry.file_name().to_string_lossy().starts_with("events.out.tfevents."))
    };
    assert!(has_events(&plain) && !has_events(&run));
}

/// Trains with a hook in place of the FID, which draws random numbers and is best at its second call. Returns the reported steps
/// with its values.
fn train_with_fid(processes: Box<dyn ProcessGroup>, config: &ArConfig, run: &Path) -> Vec<(u64, Option<f64>)> {
    let runtime = Runtime::EXACT;
    let mut trainer = Trainer::open(config.clone(), run, runtime, processes, false).unwrap();
    let mut calls = 0;
    trainer.fid_with(Box::new(move |_, processes| {
        let _ = Tensor::randn([3 + processes.rank() as i64], (Kind::Float, Device::Cpu));
        calls += 1;
        let value = Tensor::from_slice(&[f64::from(calls - 2).abs()]);
        processes.sum(&value)?;
        Ok(Some(value.double_value(&[0])))
    }));
    let mut seen = vec![];
    trainer.run(&AtomicBool::new(false), &mut |report| seen.push((report.step, report.fid))).unwrap();
    seen
}

#[test]
fn a_fid_on_the_way_changes_nothing_and_is_a_metric_that_all_processes_know() {
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    cache(dir);
    // Autograd's dropout draws from libtorch's generator, as the hook does; threads share it, so that one of them is alone.
    for (name, world_size, fused) in [("alone", 1, false), ("two", 2, true)] {
        let (plain, run) = (dir.join(format!("{name}-plain")), dir.join(name));
        let mut config = config(dir, 7);
        (config.model.resid_dropout, config.train.fused, config.train.ema_decay) = (0.1, fused, 0.9);
        let plain_runs = train_among(&vec![config.clone(); world_size], &plain);
        plain_runs.into_iter().for_each(|end| drop(end.unwrap()));
        (config.train.fid_every, config.train.fid_reference) = (3, Some("given to the hook".into()));
        (config.train.log_every, config.train.checkpoint_every) = (100, 100);
        config.train.save_best = Some("fid".into());
        let seen: Vec<_> = std::thread::scope(|scope| {
            let (config, run) = (&config, &run);
            let threads = ThreadProcessGroup::group(world_size).into_iter();
            let threads: Vec<_> =
                threads.map(|processes| scope.spawn(|| train_with_fid(Box::new(processes), config, run))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let wanted = [1.0, 0.0, 1.0].map(|value| value * world_size as f64);
        assert!(
            seen.iter().all(|seen| *seen == [3, 6, 7].into_iter().zip(wanted.map(Some)).collect::<Vec<_>>()),
            "{seen:?}"
        );
        assert_eq!(values(&run, "fid"), wanted.map(Some));
        assert_eq!(std::fs::read_link(run.join("checkpoints/best")).unwrap(), Path::new("step-00000006"));
        for name_of_file in ["model.safetensors", "optimizer.safetensors", "ema.safetensors"] {
            let of = |run: &Path| file(run, 7, name_of_file);
            assert!(same_tensors(&of(&plain), &of(&run)), "{name}: {name_of_file}");
        }
    }
}
