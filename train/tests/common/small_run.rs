//! A small cache of synthetic tokens, and a model that trains on it in a second.
#![allow(clippy::unwrap_used, dead_code)] // in a test, a panic is the report; each test file uses a part of it

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use tch::{Device, Tensor};
use tokengrid_cache::{CacheWriter, GridSpec, JobSpec, OpenMode, Row};
use tokengrid_model::ar::{ModelConfig, initial_params};
use tokengrid_model::{Params, Precision, Runtime, Weights};
use tokengrid_train::TrainError;
use tokengrid_train::ar::{ArConfig, Summary, Trainer};
use tokengrid_train::process_group::{OneProcess, ProcessGroup, ThreadProcessGroup};
use tokengrid_train::run::{read_metrics, save_safetensors};

/// Side of the grids.
const SIDE: usize = 4;

/// Images of the cache.
pub(crate) const IMAGES: usize = 40;

/// Images whose tokens follow a rule that a model can learn: 4 x 4 tokens of 8 bits, 5 classes.
pub(crate) fn cache(dir: &Path) -> PathBuf {
    let mut job = JobSpec::new(GridSpec { height: SIDE as u32, width: SIDE as u32, bits: 8 }, IMAGES, 1);
    job.classes = (0..5).map(|class| format!("class {class}")).collect();
    let dir = dir.join("cache");
    let mut writer = CacheWriter::open(&dir, job, OpenMode::Resume).unwrap();
    for image in 0..IMAGES {
        let tokens: Vec<u32> = (0..SIDE * SIDE).map(|i| ((image % 5) * 37 + i * 11) as u32 % 256).collect();
        let (key, label) = (format!("{image:04}"), (image % 5) as i32);
        let row = Row { tokens: &tokens, label, key: &key, view: 0, crop_x: 0, crop_y: 0, flip: false };
        writer.push_image(image, &[row]).unwrap();
    }
    writer.finish().unwrap();
    dir
}

/// A model and initial weights with nonzero heads, so that every parameter has a gradient from the first step.
pub(crate) fn config(dir: &Path, steps: u64) -> ArConfig {
    let model = ModelConfig {
        dim: 32,
        n_head: 4,
        spatial_n_layer: 2,
        factorized_n_layer: 1,
        factorized_bits: [3, 5],
        block_size: (SIDE * SIDE) as i64,
        class_num: 5,
        token_drop: 0.0,
        resid_dropout: 0.0,
        ffn_dropout: 0.0,
        // The choice of dropped labels does not depend on the number of processes.
        class_dropout: 0.3,
    };
    let mut config = ArConfig { model, ..ArConfig::default() };
    config.train.batch_size = 8;
    config.train.max_steps = Some(steps);
    config.train.warmup_steps = Some(2);
    config.train.checkpoint_every = 4;
    config.data.cache = dir.join("cache").display().to_string();
    let start = dir.join("start.safetensors");
    if !start.exists() {
        let lively = |(name, tensor): (&str, &Tensor)| {
            let tensor = if name.starts_with("head.") { tensor.randn_like() * 0.02 } else { tensor.copy() };
            (name.to_string(), tensor)
        };
        let params: Params = initial_params(&config.model, 5).iter().map(lively).collect();
        save_safetensors(&start, params.iter(), HashMap::new()).unwrap();
    }
    config.train.init_from = Some(start.display().to_string());
    config
}

pub(crate) fn train_as(
    processes: Box<dyn ProcessGroup>,
    config: &ArConfig,
    out: &Path,
    cancel: &AtomicBool,
) -> Result<Summary, TrainError> {
    let precision: Precision = config.train.precision.parse().unwrap();
    let runtime = Runtime::new(Device::Cpu, precision);
    Trainer::open(config.clone(), out, runtime, processes, false)?.run(cancel, &mut |_| {})
}

pub(crate) fn train(config: &ArConfig, out: &Path) -> Result<Summary, TrainError> {
    train_as(Box::new(OneProcess), config, out, &AtomicBool::new(false))
}

/// Values of one key in every row.
pub(crate) fn values(run: &Path, key: &str) -> Vec<Option<f64>> {
    let rows = read_metrics(&run.join("metrics.jsonl")).unwrap();
    rows.iter().map(|row| row.get(key).and_then(serde_json::Value::as_f64)).collect()
}

pub(crate) fn model(run: &Path, step: u64) -> Weights {
    Weights::open(&run.join(format!("checkpoints/step-{step:08}/model.safetensors"))).unwrap()
}

/// Whether two files hold the same tensors, to the bit.
pub(crate) fn same_tensors(a: &Path, b: &Path) -> bool {
    let (a, b) = (Weights::open(a).unwrap(), Weights::open(b).unwrap());
    a.names().eq(b.names()) && a.names().all(|name| a.tensor(name).unwrap().equal(&b.tensor(name).unwrap()))
}

/// A file of the checkpoint of a step.
pub(crate) fn file(run: &Path, step: u64, name: &str) -> PathBuf {
    run.join(format!("checkpoints/step-{step:08}")).join(name)
}

/// A run in as many processes as there are configurations, each in a thread.
pub(crate) fn train_among(configs: &[ArConfig], out: &Path) -> Vec<Result<Summary, TrainError>> {
    std::thread::scope(|scope| {
        let threads = ThreadProcessGroup::group(configs.len()).into_iter().zip(configs).map(|(processes, config)| {
            scope.spawn(move || train_as(Box::new(processes), config, out, &AtomicBool::new(false)))
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
