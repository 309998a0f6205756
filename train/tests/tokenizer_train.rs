//! Stage I training against numbers of the reference itself, and the files of a run.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tch::{Device, Kind, Tensor};
use tokengrid_model::perceptual::{Backbone, Lpips};
use tokengrid_model::{Architecture, Params, Route, Runtime, Tokenizer, Variant, Weights};
use tokengrid_test_support::{formula, golden, golden_json, shapes};
use tokengrid_train::TrainError;
use tokengrid_train::config::{Typed, resolve};
use tokengrid_train::loss_scale::LossScale;
use tokengrid_train::run::save_safetensors;
use tokengrid_train::tokenizer::{InitialWeights, Learner, TokenizerConfig, TokenizerTrainer};

const LR: f64 = 1e-4;

/// The configuration of the golden run.
fn golden_config() -> TokenizerConfig {
    let mut config = TokenizerConfig::default();
    config.model.ch = 32;
    config.model.ch_mult = vec![1, 1, 2];
    config.model.num_res_blocks = 1;
    config.loss.disc_ndf = 16;
    config.train.image_size = 32;
    config.train.batch_size = 4;
    config
}

/// The tensors of the golden run's start, under the names of the reference's checkpoints.
fn golden_start(with_perceptual: bool) -> Params {
    let json = golden_json("tok_train.json");
    let tensor = |(name, shape): (String, Vec<i64>)| {
        let tensor = Tensor::from_slice(&formula("v1:tok_train:", &name, &shape, 3.0)).view(shape.as_slice());
        let tensor = match name.rsplit('.').next() {
            Some("running_mean") => tensor.zeros_like(),
            Some("running_var") => tensor.ones_like(),
            _ if name.contains("perceptual_loss.lin") => tensor.abs(),
            _ => tensor,
        };
        (name, tensor)
    };
    let wanted = |(name, _): &(String, Vec<i64>)| with_perceptual || !name.contains("perceptual");
    shapes(&json["tensors"]).into_iter().filter(wanted).map(tensor).collect()
}

fn save(path: &Path, params: &Params) -> PathBuf {
    save_safetensors(path, params.iter(), HashMap::new()).unwrap();
    path.into()
}

fn golden_images() -> Tensor {
    let bytes = Weights::open(&golden("tok_train.safetensors")).unwrap().tensor("images_u8").unwrap();
    (bytes.to_kind(Kind::Double) / 127.5 - 1.0).to_kind(Kind::Float)
}

/// A learner without the perceptual net, which is most of the work. On one thread: tests run side by side, and the
/// tensors are too small to share.
fn learner(config: &TokenizerConfig, start: &Path, kind: Kind, scale: LossScale) -> Learner {
    tch::set_num_threads(1);
    let weights = InitialWeights::read(config, start, Variant::Raw).unwrap();
    Learner::new(config, weights, None, Runtime::EXACT, kind, scale).unwrap()
}

#[test]
fn four_steps_of_the_reference() {
    for route in [Route::HOST, Route::DEVICE] {
        four_steps_on(Runtime { route, ..Runtime::EXACT });
    }
}

fn four_steps_on(runtime: Runtime) {
    let folder = tempfile::tempdir().unwrap();
    let start = save(&folder.path().join("start.safetensors"), &golden_start(true));
    let config = golden_config();
    let weights = InitialWeights::read(&config, &start, Variant::Raw).unwrap();
    tch::set_num_threads(1);
    let lpips = Lpips::open(Backbone::Vgg16, &start, Device::Cpu).unwrap();
    let mut learner = Learner::new(&config, weights, Some(lpips), runtime, Kind::Float, LossScale::OFF).unwrap();
    let (json, images) = (golden_json("tok_train.json"), golden_images());
    let steps = json["losses_per_step"].as_array().unwrap();
    // Adam's first steps amplify rounding: the tolerance grows from step to step.
    for (step, tolerance) in [1e-4, 5e-3, 1e-2, 1e-2].into_iter().enumerate() {
        let values: HashMap<&str, f64> = learner.batch(&images, LR).unwrap().values().into_iter().collect();
        for (name, want) in steps[step].as_object().unwrap() {
            let (value, want) = (values[name.as_str()], want.as_f64().unwrap());
            let limit = tolerance * want.abs().max(0.1);
            assert!((value - want).abs() <= limit, "step {step}, {name}: {value}, not {want}");
        }
    }
    assert_eq!(learner.global_step(), 4, "batches; steps of the discriminator do not count");
    learner.save(folder.path()).unwrap();
    let saved = Weights::open(&folder.path().join("model.safetensors")).unwrap();
    let data = Weights::open(&golden("tok_train.safetensors")).unwrap();
    let finals: Vec<&str> = data.names().filter_map(|name| name.strip_prefix("final.")).collect();
    assert_eq!(finals.len(), 7);
    for name in finals {
        let tolerance = match name {
            _ if name.starts_with("model_ema.") => 3e-7,
            _ if name.ends_with("running_mean") => 1.5e-3,
            _ => 2.5e-4,
        };
        let (value, want) = (saved.tensor(name).unwrap(), data.tensor(&format!("final.{name}")).unwrap());
        let difference = (value - want).abs().max().double_value(&[]);
        assert!(difference <= tolerance, "{name} differs by {difference:e}");
    }
    let batches = saved.tensor("loss.discriminator.main.3.num_batches_tracked").unwrap();
    assert_eq!(batches.int64_value(&[]), 12, "three forward passes a batch");
}

#[test]
fn a_checkpoint_reads_as_one_of_the_reference_in_both_variants() {
    let folder = tempfile::tempdir().unwrap();
    let start = save(&folder.path().join("start.safetensors"), &golden_start(false));
    let mut learner = learner(&golden_config(), &start, Kind::Float, LossScale::OFF);
    learner.batch(&golden_images(), 1e-2).unwrap();
    learner.save(folder.path()).unwrap();
    let open = |file: &str, variant| {
        let weights = Weights::open(&folder.path().join(file)).unwrap();
        Tokenizer::load(&weights, variant, Device::Cpu, Kind::Float).unwrap()
    };
    let _no_grad = tch::no_grad_guard();
    let h = |tokenizer: Tokenizer| tokenizer.encoder.forward(&golden_images());
    let (raw, ema) = (h(open("model.safetensors", Variant::Raw)), h(open("model.safetensors", Variant::Ema)));
    assert!(!raw.equal(&ema), "the average lags behind");
    assert!(ema.equal(&h(open("ema.safetensors", Variant::Raw))) && ema.equal(&h(learner.ema_tokenizer())));
}

#[test]
fn fine_tuning_takes_the_discriminator_along_in_both_variants() {
    let folder = tempfile::tempdir().unwrap();
    let config = golden_config();
    let start = save(&folder.path().join("start.safetensors"), &golden_start(false));
    let mut learner = learner(&config, &start, Kind::Float, LossScale::OFF);
    learner.batch(&golden_images(), 1e-2).unwrap();
    learner.save(folder.path()).unwrap();
    let model = folder.path().join("model.safetensors");
    let stored = Weights::open(&model).unwrap();
    for (variant, name) in
        [(Variant::Raw, "loss.discriminator.main.0.weight"), (Variant::Ema, "model_ema.lossdiscriminatormain0weight")]
    {
        let (params, running) = InitialWeights::read(&config, &model, variant).unwrap().discriminator.unwrap();
        assert!(params.get("loss.discriminator.main.0.weight").equal(&stored.tensor(name).unwrap()));
        let mean = "loss.discriminator.main.3.running_mean";
        assert!(running.get(mean).equal(&stored.tensor(mean).unwrap()));
    }
    let mut wider = config.clone();
    wider.loss.disc_ndf = 32;
    let error = InitialWeights::read(&wider, &model, Variant::Raw).unwrap_err().to_string();
    assert!(error.contains("loss.discriminator.main.0.weight") && error.contains("[32, 3, 4, 4]"), "{error}");
}

#[test]
fn before_disc_start_the_discriminator_neither_learns_nor_counts() {
    let folder = tempfile::tempdir().unwrap();
    let start = save(&folder.path().join("start.safetensors"), &golden_start(false));
    let mut config = golden_config();
    config.loss.disc_start = 2;
    let mut learner = learner(&config, &start, Kind::Float, LossScale::OFF);
    let mut first = || -> (HashMap<&str, f64>, Tensor) {
        let values = learner.batch(&golden_images(), LR).unwrap().values().into_iter().collect();
        learner.save(folder.path()).unwrap();
        let model = Weights::open(&folder.path().join("model.safetensors")).unwrap();
        (values, model.tensor("loss.discriminator.main.0.weight").unwrap())
    };
    let (values, weight) = first();
    assert_eq!((values["train/disc_factor"], values["train/g_loss"], values["train/disc_loss"]), (0.0, 0.0, 0.0));
    assert!(values["train/non_saturated_d_loss"] > 0.0);
    assert!(weight.equal(golden_start(false).get("loss.discriminator.main.0.weight")));
    // The second batch: the discriminator learns, since its loss comes after the generator's step; the generator's adversarial
    // term is not used yet.
    let (values, weight) = first();
    assert_eq!((values["train/disc_factor"], values["train/g_loss"]), (0.0, 0.0));
    assert!(values["train/disc_loss"] > 0.0);
    assert!(!weight.equal(golden_start(false).get("loss.discriminator.main.0.weight")));
    let (values, weight) = first();
    assert!(values["train/disc_factor"] == 1.0 && values["train/g_loss"] > 0.0);
    assert!(!weight.equal(golden_start(false).get("loss.discriminator.main.0.weight")));
}

#[test]
fn the_entropy_term_is_enlarged_at_the_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let start = save(&folder.path().join("start.safetensors"), &golden_start(false));
    let total = |ratio: f64| -> [f64; 2] {
        let mut config = golden_config();
        (config.loss.codebook_enlarge_ratio, config.loss.codebook_enlarge_steps) = (ratio, 2);
        let mut learner = learner(&config, &start, Kind::Float, LossScale::OFF);
        [0, 1].map(|_| {
            let values: HashMap<&str, f64> =
                learner.batch(&golden_images(), 0.0).unwrap().values().into_iter().collect();
            values["train/total_loss"] / values["train/entropy_loss"]
        })
    };
    let (plain, enlarged) = (total(0.0), total(3.0));
    // 0.1 * (1 + 3) at the first step, 0.1 * (1 + 3 / 2) a batch later.
    assert!((enlarged[0] - plain[0] - 0.3).abs() < 1e-4, "{plain:?} {enlarged:?}");
    assert!((enlarged[1] - plain[1] - 0.15).abs() < 1e-4, "{plain:?} {enlarged:?}");
}

#[test]
fn a_scaled_loss_gives_the_same_step_and_an_overflow_none() {
    let folder = tempfile::tempdir().unwrap();
    let start = save(&folder.path().join("start.safetensors"), &golden_start(false));
    let name = "encoder.conv_in.weight";
    let after = |scale: LossScale| {
        let mut learner = learner(&golden_config(), &start, Kind::Float, scale);
        learner.batch(&golden_images(), LR).unwrap();
        learner.save(folder.path()).unwrap();
        let model = Weights::open(&folder.path().join("model.safetensors")).unwrap();
        (model.tensor(name).unwrap(), learner.loss_scale())
    };
    let (plain, _) = after(LossScale::OFF);
    let (scaled, scale) = after(LossScale::DYNAMIC);
    // Powers of two are exact.
    assert!(plain.equal(&scaled));
    assert_eq!((scale.good_steps, scale.skipped_steps), (2, 0), "generator and discriminator");
    let (skipped, scale) = after(LossScale { factor: 1e300, ..LossScale::DYNAMIC });
    assert!(skipped.equal(golden_start(false).get(name)));
    assert!(scale.skipped_steps >= 1 && scale.factor < 1e300);
}

#[test]
fn bfloat16_stays_near_single_precision() {
    let folder = tempfile::tempdir().unwrap();
    let start = save(&folder.path().join("start.safetensors"), &golden_start(false));
    let losses = |kind: Kind| -> HashMap<&str, f64> {
        let mut learner = learner(&golden_config(), &start, kind, LossScale::OFF);
        learner.batch(&golden_images(), LR).unwrap().values().into_iter().collect()
    };
    let (single, half) = (losses(Kind::Float), losses(Kind::BFloat16));
    for name in ["train/reconstruct_loss", "train/commit_loss", "train/disc_loss"] {
        let (a, b) = (single[name], half[name]);
        assert!(a != b && (a - b).abs() < 0.05 * a.abs(), "{name}: {a} and {b}");
    }
}

/// A small run over the bundled photographs, with a discriminator.
fn run_config(steps: u64) -> TokenizerConfig {
    let photos = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../data/photos");
    let mut config = golden_config();
    config.train.batch_size = 2;
    config.train.max_steps = Some(steps);
    config.train.log_every = 1;
    config.train.checkpoint_every = 3;
    config.data.train = photos.display().to_string();
    config
}

fn open(config: TokenizerConfig, out: &Path) -> TokenizerTrainer {
    tch::set_num_threads(1);
    let runtime = Runtime::EXACT;
    TokenizerTrainer::open(config, out, runtime, false).unwrap()
}

fn assert_same_checkpoints(a: &Path, b: &Path) {
    let files = ["model", "ema", "optimizer", "discriminator_optimizer", "learner"];
    for file in files {
        let path = |run: &Path| run.join("checkpoints/latest").join(format!("{file}.safetensors"));
        let (one, two) = (Weights::open(&path(a)).unwrap(), Weights::open(&path(b)).unwrap());
        assert!(one.names().eq(two.names()), "{file}");
        for name in one.names() {
            assert!(one.tensor(name).unwrap().equal(&two.tensor(name).unwrap()), "{file}: {name}");
        }
    }
}

#[test]
fn a_run_in_two_parts_is_the_run_in_one_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    let never = AtomicBool::new(false);
    open(run_config(6), &whole).run(&never, &mut |_| {}).unwrap();
    open(run_config(3), &parts).run(&never, &mut |_| {}).unwrap();
    open(run_config(6), &parts).run(&never, &mut |_| {}).unwrap();
    assert_same_checkpoints(&whole, &parts);
    let state = |run: &Path| std::fs::read_to_string(run.join("checkpoints/latest/state.json")).unwrap();
    assert_eq!(state(&whole), state(&parts));
}

#[test]
fn an_interrupted_run_leaves_a_checkpoint_to_go_on_from() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, stopped) = (folder.path().join("whole"), folder.path().join("stopped"));
    open(run_config(3), &whole).run(&AtomicBool::new(false), &mut |_| {}).unwrap();
    let (cancel, last) = (AtomicBool::new(false), AtomicU64::new(0));
    let error = open(run_config(3), &stopped).run(&cancel, &mut |report| {
        last.store(report.step, Ordering::Relaxed);
        cancel.store(true, Ordering::Relaxed);
    });
    assert!(matches!(error, Err(TrainError::Cancelled)));
    assert!(last.load(Ordering::Relaxed) < 3);
    open(run_config(3), &stopped).run(&AtomicBool::new(false), &mut |_| {}).unwrap();
    assert_same_checkpoints(&whole, &stopped);
}

#[test]
fn metrics_carry_the_names_of_the_reference() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    open(run_config(1), &out).run(&AtomicBool::new(false), &mut |_| {}).unwrap();
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let row: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    for name in golden_json("tok_train.json")["losses_per_step"][0].as_object().unwrap().keys() {
        assert!(row[name].is_number(), "{name} is missing");
    }
    assert_eq!((row["step"].as_u64(), row["global_step"].as_f64(), row["lr"].as_f64()), (Some(1), Some(1.0), Some(LR)));
}

/// The checkpoint's `learner.safetensors` as versions wrote it that counted two steps per batch.
fn forget_how_steps_are_counted(run: &Path) {
    let file = run.join("checkpoints/latest/learner.safetensors");
    let stored = Weights::open(&file).unwrap();
    let kept = stored.names().filter(|name| *name != "global_step.per_batch");
    let kept: Params = kept.map(|name| (name.to_string(), stored.tensor(name).unwrap().copy())).collect();
    assert_eq!(kept.len() + 1, stored.names().count());
    save(&file, &kept);
}

#[test]
fn a_run_of_an_earlier_version_goes_on_counting_as_it_did() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    let global_step = |run: &Path| traces(run).0.last().unwrap()["global_step"].as_f64();
    for run in [&old, &new] {
        open(run_config(1), run).run(&AtomicBool::new(false), &mut |_| {}).unwrap();
    }
    forget_how_steps_are_counted(&old);
    for (steps, expected) in [(2, 4.0), (3, 6.0)] {
        open(run_config(steps), &old).run(&AtomicBool::new(false), &mut |_| {}).unwrap();
        assert_eq!(global_step(&old), Some(expected));
    }
    open(run_config(2), &new).run(&AtomicBool::new(false), &mut |_| {}).unwrap();
    assert_eq!(global_step(&new), Some(2.0));
}

/// Steps of the checkpoints of a run.
fn checkpoints(out: &Path) -> Vec<String> {
    let names = std::fs::read_dir(out.join("checkpoints")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_not_finite_is_never_published() {
    // Only the last step is logged: checkpoints make their own check.
    let folder = tempfile::tempdir().unwrap();
    let quiet = |steps: u64| {
        let mut config = run_config(steps);
        (config.train.checkpoint_every, config.train.log_every, config.train.keep_last) = (1, 1000, 1);
        config
    };
    // A learning rate that ruins the generator.
    let ruined = folder.path().join("ruined");
    let mut config = quiet(8);
    config.train.lr = 1e37;
    let error = open(config, &ruined).run(&AtomicBool::new(false), &mut |_| {}).unwrap_err();
    assert!(matches!(error, TrainError::Diverged { .. }), "{error}");
    for name in checkpoints(&ruined).iter().filter(|name| name.starts_with("step-")) {
        let weights = Weights::open(&ruined.join("checkpoints").join(name).join("model.safetensors")).unwrap();
        let finite = |name: &str| weights.tensor(name).unwrap().isfinite().all().int64_value(&[]) == 1;
        assert!(weights.names().all(finite), "{name}");
    }
    // A discriminator whose weights are not finite, which does not affect the generator.
    let out = folder.path().join("adversary");
    let mut config = quiet(1);
    config.loss.disc_start = 100;
    open(config.clone(), &out).run(&AtomicBool::new(false), &mut |_| {}).unwrap();
    let model = out.join("checkpoints/latest/model.safetensors");
    let stored = Weights::open(&model).unwrap();
    let spoilt: Params = stored
        .names()
        .map(|name| {
            let tensor = stored.tensor(name).unwrap().copy();
            let is_its = name == "loss.discriminator.main.0.weight";
            (name.to_string(), if is_its { tensor.full_like(f64::NAN) } else { tensor })
        })
        .collect();
    drop(stored);
    save(&model, &spoilt);
    config.train.max_steps = Some(3);
    let runtime = Runtime::EXACT;
    let ended = TokenizerTrainer::open(config, &out, runtime, false)
        .and_then(|trainer| trainer.run(&AtomicBool::new(false), &mut |_| {}));
    assert!(ended.is_err(), "an infinite discriminator is noticed");
    assert_eq!(checkpoints(&out), ["latest", "step-00000001"], "and nothing is rotated out");
}

#[test]
fn excluded_photographs_are_not_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = run_config(1);
    let all = open(config.clone(), &folder.path().join("all")).num_images();
    let photos = PathBuf::from(&config.data.train);
    let class = std::fs::read_dir(&photos).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir());
    let photo = std::fs::read_dir(class.unwrap()).unwrap().next().unwrap().unwrap().file_name();
    config.data.exclude = vec![photo.into_string().unwrap()];
    let fewer = open(config, &folder.path().join("fewer")).num_images();
    assert_eq!((fewer.0 + 1, fewer.1), (all.0, 1));
}

/// The rows of a run's metrics, and the names of its pictures.
fn traces(out: &Path) -> (Vec<serde_json::Value>, Vec<String>) {
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let pictures = std::fs::read_dir(out.join("samples")).unwrap();
    let mut names: Vec<String> = pictures.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    (rows, names)
}

#[test]
fn averaged_weights_are_validated_at_the_end_of_every_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let (out, photos) = (folder.path().join("run"), folder.path().join("photos"));
    let mut config = run_config(3);
    std::fs::create_dir(&photos).unwrap();
    let unseen = PathBuf::from(&config.data.train).join("../unseen");
    for name in ["colosseum.jpg", "sunset.jpg", "wren.jpg"] {
        std::fs::copy(unseen.join(name), photos.join(name)).unwrap();
    }
    // As many crops per step as there are photographs: an epoch is a step.
    config.train.batch_size = 3;
    config.data.train = photos.display().to_string();
    config.train.log_every = 100;
    config.train.max_steps = None;
    config.train.epochs = 2.0;
    config.data.val = Some(photos.display().to_string());
    open(config, &out).run(&AtomicBool::new(false), &mut |_| {}).unwrap();
    let (rows, pictures) = traces(&out);
    assert_eq!(rows.iter().map(|row| row["step"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2]);
    assert!(rows.iter().all(|row| row["val/psnr"].is_number() && row["val/reconstruct_loss"].is_number()));
    assert_ne!(rows[0]["val/reconstruct_loss"], rows[1]["val/reconstruct_loss"], "the average moves");
    assert_eq!(pictures, ["step-00000001.png", "step-00000002.png"]);
}

#[test]
fn without_a_validation_set_the_pictures_are_of_training_crops() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    open(run_config(3), &out).run(&AtomicBool::new(false), &mut |_| {}).unwrap();
    let (rows, pictures) = traces(&out);
    assert!(rows.iter().all(|row| row.get("val/psnr").is_none()));
    assert_eq!(pictures, ["step-00000003.png"]);
}

#[test]
fn presets_are_the_reference_and_tiny_has_no_adversary() {
    let preset = |name: &str| -> TokenizerConfig {
        let set = [format!("model.preset={name}")];
        resolve(&Typed { set: &set, ..Default::default() }).unwrap()
    };
    let large = preset("imagenet_256_L");
    assert_eq!(large.model.architecture().num_params(), (49_751_442, 65_376_387));
    assert_eq!((large.loss.lecam_loss_weight, large.train.epochs), (0.05, 270.0));
    let large = preset("imagenet_128_L");
    assert_eq!(large.model.architecture().num_params(), (48_422_162, 63_599_491));
    assert_eq!((large.loss.lecam_loss_weight, large.train.epochs), (0.01, 350.0));
    assert_eq!(large.train.lr_drop_epochs, [250, 300]);
    let tiny = preset("tiny");
    assert!(tiny.loss.patch_gan().is_none() && tiny.loss.perceptual_file().is_none());
    let shipped =
        tokengrid_model::tiny::open_tokenizer("tiny".as_ref()).unwrap().tokenizer_params(Variant::Raw).unwrap();
    assert_eq!(tiny.model.architecture(), Architecture::infer(&shipped, "tiny".as_ref()).unwrap());
}

#[test]
fn values_out_of_range_are_refused_by_key() {
    for (set, expected) in [
        ("loss.disc_loss=wgan", "`hinge`, `vanilla` or `non_saturate`"),
        ("train.image_size=16", "too small for 3 layers"),
        ("train.precision=fp8", "bf16"),
        ("train.init_variant=average", "`raw` or `ema`"),
        ("train.lr=0", "not a learning rate"),
        ("loss.lecam_loss_weight=-1", "not a weight"),
        ("train.epochs=0", "not a number of epochs"),
        ("train.ema_decay=2", "not within 0 to 1"),
    ] {
        let set = [set.to_string()];
        let error = resolve::<TokenizerConfig>(&Typed { set: &set, ..Default::default() }).unwrap_err().to_string();
        let key = set[0].split('=').next().unwrap();
        assert!(error.contains(expected), "{error}");
        assert!(error.contains(key) || key == "train.image_size", "{error}");
    }
}
