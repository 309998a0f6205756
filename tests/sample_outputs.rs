//! The outputs of `sample` besides its images: arrays, caches, which files they may replace, and checks beforehand.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;
#[path = "common/sampling.rs"]
mod sampling;

use common::{fails, json, text};
use sampling::{SIDE, array_len, model, sample};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use tch::{Device, Kind};
use tokengrid_model::ar::{ArModel, ArWeights, Known};
use tokengrid_model::{Architecture, Runtime, Tokenizer, Variant};
use tokengrid_sample::{Outputs, SampleError, SampleJob, SampleOutcome, SamplerConfig};

/// Inception scores by the rule of the ADM suite, from the probabilities of consecutive pictures: cut into runs, the mean of
/// the scores of the runs.
fn adm_inception_score(probabilities: &[Vec<f64>], run: usize) -> f64 {
    let scores: Vec<f64> = probabilities.chunks(run).map(score_of_run).collect();
    scores.iter().sum::<f64>() / scores.len() as f64
}

/// `exp` of the mean of `KL(p(y|x) || p(y))`.
fn score_of_run(run: &[Vec<f64>]) -> f64 {
    let mean = |class: usize| run.iter().map(|p| p[class]).sum::<f64>() / run.len() as f64;
    let means: Vec<f64> = (0..run[0].len()).map(mean).collect();
    let terms = run.iter().flat_map(|p| p.iter().zip(&means)).filter(|(p, _)| **p > 0.0);
    (terms.map(|(p, mean)| p * (p / mean).ln()).sum::<f64>() / run.len() as f64).exp()
}

/// The pictures of an `.npz` file.
fn npz_pictures(path: &Path) -> Vec<Vec<u8>> {
    let mut npz = tokengrid_sample::arrays::Npz::open(path).unwrap();
    let mut array = npz.array("arr_0").unwrap();
    let bytes = array.shape[1..].iter().product();
    let mut next = || {
        let mut picture = vec![0; bytes];
        array.read_bytes(&mut picture).unwrap();
        picture
    };
    (0..array_len(path)).map(|_| next()).collect()
}

/// The pixels of a run's picture.
fn pixels(out: &Path, class: usize, index: usize) -> Vec<u8> {
    let bytes = std::fs::read(out.join(format!("images/{class:04}/{index:05}.png"))).unwrap();
    tokengrid_ingest::decode_rgb(&bytes, &Default::default()).unwrap().pixels
}

#[test]
fn the_npz_is_in_an_order_that_gives_the_adm_suite_its_inception_score() {
    const CLASSES: usize = 3;
    const PER_CLASS: usize = 40;
    let folder = tempfile::tempdir().unwrap();
    let (model, out, npz) = (model(folder.path()), folder.path().join("out"), folder.path().join("all.npz"));
    let outputs = ["--num-per-class", "40", "--batch-size", "64", "--out", text(&out), "--npz", text(&npz)];
    json(&[&sample(&model, &[])[..], &outputs].concat());
    let recorded: Value = serde_json::from_slice(&std::fs::read(out.join("sample.json")).unwrap()).unwrap();
    let order: Vec<usize> =
        recorded["npz_order"].as_array().unwrap().iter().map(|index| index.as_u64().unwrap() as usize).collect();
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert!(sorted.into_iter().eq(0..CLASSES * PER_CLASS), "{order:?}");
    // A classifier that is sure of every picture.
    let sure = |image: usize| (0..CLASSES).map(|class| f64::from(image / PER_CLASS == class)).collect::<Vec<f64>>();
    let pictures = npz_pictures(&npz);
    assert_eq!(pictures.len(), CLASSES * PER_CLASS);
    let mut probabilities = vec![];
    for (picture, &image) in pictures.iter().zip(&order) {
        assert!(
            *picture == pixels(&out, image / PER_CLASS, image % PER_CLASS),
            "image {image} is where the record says"
        );
        probabilities.push(sure(image));
    }
    let by_class: Vec<Vec<f64>> = (0..CLASSES * PER_CLASS).map(sure).collect();
    assert!((adm_inception_score(&by_class, PER_CLASS) - 1.0).abs() < 1e-9, "what class by class would give");
    let score = adm_inception_score(&probabilities, PER_CLASS);
    assert!(score > 2.7, "{score} of {CLASSES}");
}

#[test]
fn files_that_the_run_did_not_write_are_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (model(folder.path()), folder.path().join("out"));
    let (npz, npy) = (folder.path().join("all.npz"), folder.path().join("all.npy"));
    let command = |more: &[&'static str]| {
        let outputs = ["--npz", text(&npz), "--tokens", text(&npy), "--out", text(&out)];
        [&sample(&model, more)[..], &outputs].concat().into_iter().map(String::from).collect::<Vec<_>>()
    };
    let run = |more: &[&'static str]| json(&command(more).iter().map(String::as_str).collect::<Vec<_>>());
    let refused = |more: &[&'static str]| fails(&command(more).iter().map(String::as_str).collect::<Vec<_>>(), 1);
    for mine in [&npz, &npy] {
        std::fs::write(mine, "mine").unwrap();
        let message = refused(&[]);
        let name = mine.file_name().unwrap().to_str().unwrap();
        assert!(message.contains(name) && message.contains("--overwrite"), "{message}");
        assert!(!out.exists(), "refused before the first image");
        assert_eq!(std::fs::read_to_string(mine).unwrap(), "mine");
        std::fs::remove_file(mine).unwrap();
    }
    run(&[]);
    // What the run wrote itself it may write again, also with more images.
    run(&["--num-per-class", "2"]);
    assert_eq!(array_len(&npz), 6);
    std::fs::write(&npy, "mine").unwrap();
    refused(&["--num-per-class", "2"]);
    run(&["--num-per-class", "2", "--overwrite"]);
    assert!(std::fs::read(&npy).unwrap().starts_with(b"\x93NUMPY"));
    std::fs::write(out.join("grid.png"), "mine").unwrap();
    assert!(refused(&["--num-per-class", "2"]).contains("grid.png"));
}

/// `job` runs with the joined files of `outputs`, and `last` is called after the last image, before they are written.
fn run_job(checkpoint: &Path, outputs: &Outputs, last: &dyn Fn()) -> Result<SampleOutcome, SampleError> {
    let weights = ArWeights::open(checkpoint, Known::default()).unwrap();
    let model = ArModel::new(&weights.config, &weights.params, Device::Cpu, Kind::Float);
    let tiny = tokengrid_model::tiny::open_tokenizer("tiny".as_ref()).unwrap();
    let params = tiny.tokenizer_params(Variant::Raw).unwrap();
    let architecture = Architecture::infer(&params, "tiny".as_ref()).unwrap();
    let tokenizer = Tokenizer::from_params(architecture, &params).for_inference();
    let job = SampleJob {
        model: &model,
        tokenizer: &tokenizer,
        config: SamplerConfig::default(),
        classes: vec![0, 1],
        per_class: 1,
        batch_size: 2,
        runtime: Runtime::EXACT,
        model_fingerprint: "model".into(),
        overwrite: false,
        preset: None,
        class_names: vec![],
        diagnostics: false,
        rank: 0,
        world_size: 1,
    };
    job.run(outputs, &AtomicBool::new(false), &mut |done, all| {
        if done == all {
            last()
        }
    })
}

#[test]
fn a_joined_file_is_known_as_the_runs_own_from_its_first_moment() {
    let folder = tempfile::tempdir().unwrap();
    let (model, arrays) = (model(folder.path()), folder.path().join("arrays"));
    let outputs = Outputs {
        out: folder.path().join("out"),
        npz: Some(folder.path().join("all.npz")),
        tokens: Some(arrays.join("all.npy")),
    };
    std::fs::create_dir(&arrays).unwrap();
    // The second file fails after the first has its name: the run ends there, as a kill would end it.
    run_job(&model, &outputs, &|| std::fs::remove_dir(&arrays).unwrap()).unwrap_err();
    assert!(outputs.npz.as_ref().unwrap().exists() && !arrays.exists());
    std::fs::create_dir(&arrays).unwrap();
    let again = run_job(&model, &outputs, &|| ()).unwrap();
    assert!(again.complete && arrays.join("all.npy").exists());
    // What others wrote there since is not the run's.
    std::fs::write(outputs.npz.as_ref().unwrap(), "mine").unwrap();
    assert!(matches!(run_job(&model, &outputs, &|| ()), Err(SampleError::Exists { .. })));
}

#[test]
fn outputs_that_would_replace_each_other_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (model(folder.path()), folder.path().join("out"));
    let refused = |more: &[&str]| {
        let message = fails(&[&sample(&model, &["--out", text(&out)])[..], more].concat(), 2);
        assert!(!out.join("images").exists(), "before the first image: {message}");
        message
    };
    let (one, same) = (folder.path().join("one"), folder.path().join("./one"));
    assert!(refused(&["--npz", text(&one), "--tokens", text(&one)]).contains("same file"));
    assert!(refused(&["--npz", text(&one), "--tokens", text(&same)]).contains("same file"));
    assert!(refused(&["--cache-out", text(&out)]).contains("--out itself"));
    assert!(refused(&["--cache-out", text(folder.path())]).contains("lies in --cache-out"));
    assert!(
        refused(&["--cache-out", text(&one), "--tokens", text(&one.join("t.npy"))]).contains("lies in --cache-out")
    );
    std::fs::create_dir(&out).unwrap();
    std::os::unix::fs::symlink("out", folder.path().join("link")).unwrap();
    let linked = folder.path().join("link");
    assert!(refused(&["--cache-out", text(&linked)]).contains("--out itself"));
    for name in ["grid.png", "sample.json", "tokens", "tokens/0000/00000.npy", "images/all.npz"] {
        for folder in [&out, &linked] {
            let target = folder.join(name);
            assert!(refused(&["--npz", text(&target)]).contains("of its own"), "{name}");
            assert!(refused(&["--tokens", text(&target), "--overwrite"]).contains("of its own"), "{name}");
        }
    }
    // Other names in the folder are allowed.
    json(&[&sample(&model, &["--out", text(&out)])[..], &["--npz", text(&out.join("all.npz"))]].concat());
}

#[test]
#[cfg(target_os = "linux")]
fn a_folder_that_takes_no_files_is_noticed_before_the_first_image() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (model(folder.path()), folder.path().join("out"));
    // No user can make files there, not even root.
    for target in [["--npz", "/proc/all.npz"], ["--tokens", "/proc/all.npy"], ["--cache-out", "/proc/cache"]] {
        let message = fails(&[&sample(&model, &["--out", text(&out)])[..], &target].concat(), 1);
        assert!(message.contains("cannot write") && message.contains("/proc/"), "{message}");
        assert!(!out.exists(), "{message}");
    }
}

#[test]
fn what_would_fail_at_the_end_is_refused_at_the_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (model(folder.path()), folder.path().join("out"));
    let (names, cache) = (folder.path().join("names.txt"), folder.path().join("cache"));
    let nowhere = folder.path().join("nowhere/all");
    let refused = |more: &[&str]| {
        let message = fails(&[&sample(&model, &["--out", text(&out)])[..], more].concat(), 1);
        assert!(!out.exists(), "before the first image: {message}");
        message
    };
    for flag in ["--npz", "--tokens"] {
        assert!(refused(&[flag, text(&nowhere)]).contains("no folder"));
        assert!(refused(&[flag, text(folder.path())]).contains("it is a folder"));
        assert!(refused(&[flag, "/dev/null"]).contains("device"));
    }
    std::fs::write(&names, "cat\ndog\n").unwrap();
    let with_names = ["--cache-out", text(&cache), "--class-names", text(&names)];
    assert!(refused(&with_names).contains("class 2 has none"));
    std::fs::write(&names, format!("cat\n{}\ncow\n", "d".repeat(50_000_000))).unwrap();
    let message = refused(&with_names);
    assert!(message.contains("line 2") && message.len() < 1000, "{message}");
    std::fs::create_dir(&cache).unwrap();
    std::fs::write(cache.join("diary.txt"), "mine").unwrap();
    assert!(refused(&["--cache-out", text(&cache)]).contains("diary.txt"));
    assert!(refused(&["--cache-out", text(&cache.join("diary.txt/cache"))]).contains("not a folder"));
    // More images than a list can hold.
    let many = ["--num-per-class", "4000000000", "--out", text(&out)];
    assert!(fails(&[&sample(&model, &[])[..], &many].concat(), 2).contains("number of images"));
    fails(&[&sample(&model, &[])[..], &["--batch-size", "1000000000", "--out", text(&out)]].concat(), 2);
}

#[test]
fn a_cache_of_other_samples_is_not_taken_for_this_one() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out, cache) = (model(folder.path()), folder.path().join("out"), folder.path().join("cache"));
    let run = |seed: &'static str, more: &[&str]| {
        json(&[&sample(&model, &["--seed", seed, "--out", text(&out)])[..], more].concat())
    };
    let hash = || json(&["cache", "info", text(&cache)])["content_hash"].clone();
    // No folder for temporary files is needed.
    let mut command = common::tokengrid();
    command.env("TMPDIR", "/nowhere").args(sample(&model, &["--seed", "1", "--out", text(&out)]));
    command.args(["--cache-out", text(&cache)]).assert().success();
    let first = hash();
    run("2", &["--overwrite"]);
    let arguments =
        [&sample(&model, &["--seed", "2", "--out", text(&out)])[..], &["--cache-out", text(&cache)]].concat();
    let message = fails(&arguments, 1);
    assert!(message.contains("cache of other tokens") && message.contains("--overwrite"), "{message}");
    assert_eq!(hash(), first);
    run("2", &["--cache-out", text(&cache), "--overwrite"]);
    assert_ne!(hash(), first);
    let row = json(&["cache", "show", text(&cache), "--index", "1"]);
    let tokens: Vec<u64> = row["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|row| row.as_array().unwrap())
        .map(|token| token.as_u64().unwrap())
        .collect();
    let file = std::fs::read(out.join("tokens/0001/00000.npy")).unwrap();
    let (stored, _) = file[file.len() - 4 * SIDE * SIDE..].as_chunks::<4>();
    assert!(
        stored.iter().map(|token| u64::from(u32::from_le_bytes(*token))).eq(tokens),
        "the tokens of the second seed"
    );
}

#[test]
fn python_reads_the_arrays() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (model(folder.path()), folder.path().join("out"));
    let (npz, npy) = (folder.path().join("all.npz"), folder.path().join("all.npy"));
    let outputs = ["--classes", "2,0", "--out", text(&out), "--npz", text(&npz), "--tokens", text(&npy)];
    json(&[&sample(&model, &["--num-per-class", "2"])[..], &outputs].concat());
    let script = "import sys, numpy; p = numpy.load(sys.argv[1]); t = numpy.load(sys.argv[2]); \
                  f = numpy.load(sys.argv[3]); assert p.files == ['arr_0']; \
                  print(p['arr_0'].shape, p['arr_0'].dtype, t.shape, t.dtype, (t[2] == f.ravel()).all())";
    let first_of_0 = out.join("tokens/0000/00000.npy");
    let Some(python) = tokengrid_test_support::python_with("import numpy") else { return };
    let output = Command::new(python).args(["-c", script, text(&npz), text(&npy), text(&first_of_0)]).output().unwrap();
    let answer = String::from_utf8_lossy(&output.stdout);
    assert_eq!(answer.trim(), "(4, 32, 32, 3) uint8 (4, 16) int32 True", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn tokens_go_straight_into_a_cache_that_can_be_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (model(folder.path()), folder.path().join("out"));
    let (cache, names) = (folder.path().join("cache"), folder.path().join("names.txt"));
    std::fs::write(&names, "cat\ndog\ncow\n").unwrap();
    let outputs = ["--classes", "2,0", "--out", text(&out), "--cache-out", text(&cache), "--class-names", text(&names)];
    let command = [&sample(&model, &["--num-per-class", "2"])[..], &outputs].concat();
    json(&command);
    json(&["cache", "verify", text(&cache)]);
    let row = json(&["cache", "show", text(&cache), "--index", "0"]);
    assert_eq!(
        (row["key"].as_str(), row["label"].as_i64(), row["class"].as_str()),
        (Some("0002/00000"), Some(2), Some("cow"))
    );
    let info = json(&["cache", "info", text(&cache)]);
    assert_eq!((info["rows"].as_u64(), info["bits"].as_u64()), (Some(4), Some(18)));
    // The same again is no error, and changes nothing.
    json(&command);
    assert_eq!(json(&["cache", "info", text(&cache)])["content_hash"], info["content_hash"]);
    let small = ["--set", "model.preset=tiny", "--set", "model.block_size=16", "--set", "model.class_num=3"];
    let run = folder.path().join("run");
    let fixed = ["train", "ar", "--cache", text(&cache), "--out", text(&run), "--set", "train.max_steps=1"];
    let trained = json(&[&fixed[..], &small, &["--set", "train.batch_size=2"]].concat());
    assert_eq!(trained["step"], 1);
}
