//! The evaluation commands, with small or synthetic weights in place of the published ones.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;
#[path = "common/networks.rs"]
mod networks;
#[path = "common/ranks.rs"]
mod ranks;

use common::{fails, json, photos, repository, sorted, text, tokengrid};
use networks::{inception, lpips};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokengrid_model::perceptual::Backbone;
use tokengrid_sample::arrays::Npz;
use tokengrid_sample::arrays::{Dtype, NamedArray, NpzImages, write_npy, write_npz};
use tokengrid_test_support::{GOLDEN_FEATURES, golden, golden_features, golden_json, stream};

/// Side of the pictures that a run samples.
const SIDE: &str = "32";

#[test]
fn the_fid_of_a_run_is_that_of_its_samples_in_any_number_of_processes() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let (source, network) = (photos(dir, 3, 2), inception(dir));
    let [cache, stats, one, two, samples] = ["cache", "stats.npz", "one", "two", "samples"].map(|name| dir.join(name));
    json(&["tokenize", text(&source), "--tokenizer", "tiny", "--size", SIDE, "--out", text(&cache)]);
    let judge = ["--inception", text(&network), "--threads", "1"];
    let reference = ["eval", "samples", text(&source), "--size", SIDE, "--save-stats", text(&stats)];
    json(&[&reference[..], &judge].concat());
    let train = |out: &Path, more: &[&str]| {
        let fixed =
            ["train", "ar", "--cache", text(&cache), "--tokenizer", "tiny", "--device", "cpu", "--out", text(out)];
        let reference = format!("train.fid_reference={}", text(&stats));
        let settings = [
            "model.preset=tiny",
            "model.dim=32",
            "model.n_head=2",
            "model.spatial_n_layer=1",
            "train.batch_size=6",
            "train.grad_accum=auto",
            "train.global_batch=6",
            "train.max_steps=2",
            "train.warmup_steps=0",
            "train.ema_decay=0.5",
            "train.fid_every=2",
            // A batch of 16, and one that is not full.
            "train.fid_samples=18",
            "train.save_best=fid",
            "train.deterministic_reduce=true",
            &reference,
        ];
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        let words = fixed.into_iter().chain(judge).chain(settings).chain(more.iter().copied());
        words.map(String::from).collect::<Vec<String>>()
    };
    let strs = |words: &[String]| words.iter().map(String::as_str).collect::<Vec<&str>>().join("\n");
    let run = |words: &str| json(&words.split('\n').collect::<Vec<&str>>());
    run(&strs(&train(&one, &[])));
    let fids = |run: &Path| {
        let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        rows.map(|row| row["fid"].as_f64()).collect::<Vec<Option<f64>>>()
    };
    let alone = fids(&one);
    assert!(alone[0].is_none() && alone[1].is_some(), "every two steps: {alone:?}");
    for ended in ranks::start(&train(&two, &[]), 2).into_iter().map(ranks::end) {
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
    let shared = fids(&two);
    assert!(shared[0].is_none() && two.join("checkpoints/best/model.safetensors").is_file());
    // The weights are equal to the bit, and so are the samples; the moments of their features are summed in another order.
    let (a, b) = (alone[1].unwrap(), shared[1].unwrap());
    assert!((a / b - 1.0).abs() < 1e-6, "{a} {b}");
    // The same pictures, sampled and evaluated by the commands: 18 of three classes.
    let what =
        ["sample", "--checkpoint", text(&one), "--tokenizer", "tiny", "--device", "cpu", "--out", text(&samples)];
    json(&[&what[..], &["--num-per-class", "6", "--cfg-scale", "2,2", "--seed", "42"]].concat());
    let judged = json(&[&["eval", "samples", text(&samples.join("images")), text(&stats)][..], &judge].concat());
    assert_eq!(judged["images"], 18);
    let (logged, judged) = (alone[1].unwrap(), number(&judged, "fid"));
    assert!((logged / judged - 1.0).abs() < 1e-3, "{logged} {judged}");
    // Missing options are reported at the start.
    let other = dir.join("other");
    let without = |flag: &str| {
        let words = train(&other, &[]);
        let at = words.iter().position(|word| word == flag).unwrap();
        [&words[..at], &words[at + 2..]].concat()
    };
    for flag in ["--inception", "--tokenizer"] {
        let words = without(flag);
        let message = fails(&words.iter().map(String::as_str).collect::<Vec<_>>(), 2);
        assert!(message.contains("train.fid_every") && message.contains("--inception"), "{message}");
    }
    for (value, code, part) in
        [("", 2, "--save-stats"), ("nowhere.npz", 1, "nowhere.npz"), (text(&network), 1, "inception")]
    {
        let words = train(&other, &["--set", &format!("train.fid_reference={value}")]);
        let message = fails(&words.iter().map(String::as_str).collect::<Vec<_>>(), code);
        assert!(message.contains(part), "{value}: {message}");
    }
}

#[track_caller]
fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("{key} is a number: {value}"))
}

#[track_caller]
fn reconstruction(source: &Path, more: &[&str]) -> Value {
    let fixed = ["eval", "reconstruction", text(source), "--tokenizer", "tiny", "--threads", "1", "--size", "32"];
    json(&[&fixed[..], more].concat())
}

#[test]
fn a_tokenizer_is_measured_by_every_figure_whatever_the_batch() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path(), 2, 2);
    std::fs::write(source.join("broken.jpg"), b"no picture").unwrap();
    let files = [
        inception(folder.path()),
        lpips(folder.path(), Backbone::Vgg16, "eval:vgg:"),
        lpips(folder.path(), Backbone::AlexNet, "eval:alex:"),
    ];
    let [network, vgg, alex] = [&files[0], &files[1], &files[2]].map(|path| text(path));
    let nets = ["--inception", network, "--lpips-vgg", vgg, "--lpips-alex", alex];
    let mut one = reconstruction(&source, &[&nets[..], &["--batch-size", "1"]].concat());
    assert_eq!((one["images"].as_u64(), one["codebook_size"].as_u64()), (Some(4), Some(1 << 18)));
    assert_eq!(one["bad"][0]["key"], "broken.jpg");
    assert!((10.0..50.0).contains(&number(&one, "psnr")) && (0.0..1.0).contains(&number(&one, "ssim")), "{one}");
    for key in ["rfid", "lpips_vgg", "lpips_alex", "codebook_utilization"] {
        assert!(number(&one, key) > 0.0, "{key}");
    }
    assert_eq!(one["bit_balance"].as_array().unwrap().len(), 18);
    assert!(one["distinct_codes"].as_u64() <= one["tokens"].as_u64());
    let mut three = reconstruction(&source, &[&nets[..], &["--batch-size", "3"]].concat());
    for answer in [&mut one, &mut three] {
        let fields = answer.as_object_mut().unwrap();
        fields.retain(|key, _| !key.contains("second"));
    }
    assert_eq!(one, three, "the batch size changes no digit");
}

#[test]
fn figures_that_cannot_be_had_are_null_and_the_reason_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path(), 1, 2);
    let arguments =
        ["eval", "reconstruction", text(&source), "--tokenizer", "tiny", "--size", "16", "--limit", "1", "--json"];
    let output = tokengrid().args(arguments).output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    for key in ["rfid", "lpips_vgg", "lpips_alex"] {
        assert!(answer.as_object().unwrap().contains_key(key) && answer[key].is_null(), "{key}");
    }
    let stderr = String::from_utf8(output.stderr).unwrap();
    for word in ["no rfid", "pt_inception-2015-12-05-6726825d.pth", "no lpips_vgg", "vgg16-397923af.pth", "alex.pth"] {
        assert!(stderr.contains(word), "{word}: {stderr}");
    }
}

#[test]
fn whole_pictures_are_measured_without_their_margin_and_the_worst_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    std::fs::create_dir(&source).unwrap();
    // Sides that are no multiples of 8; and one that is flat, which every tokenizer gets right.
    let noise: Vec<u8> = stream("eval", 50 * 39 * 3).map(|v| (127.5 + 127.4 * v) as u8).collect();
    let picture = tokengrid_model::Picture::new;
    std::fs::write(source.join("noise.png"), picture(50, 39, noise).to_png()).unwrap();
    std::fs::write(source.join("flat.png"), picture(33, 47, vec![128; 33 * 47 * 3]).to_png()).unwrap();
    let out = folder.path().join("look");
    let fixed = ["eval", "reconstruction", text(&source), "--tokenizer", "tiny", "--size", "original"];
    let answer = json(&[&fixed[..], &["--out", text(&out), "--pairs", "1"]].concat());
    // 7 x 5 and 5 x 6 tokens.
    assert_eq!((answer["tokens"].as_u64(), answer["images"].as_u64()), (Some(65), Some(2)));
    let names: Vec<PathBuf> = sorted(&out).iter().map(|path| path.file_name().unwrap().into()).collect();
    assert_eq!(names, [Path::new("best-00.png"), Path::new("worst-00.png")]);
    let width = |name: &str| {
        let file = std::io::BufReader::new(std::fs::File::open(out.join(name)).unwrap());
        png::Decoder::new(file).read_info().unwrap().info().width
    };
    // Two pictures and the gap between them.
    assert_eq!((width("worst-00.png"), width("best-00.png")), (2 * 50 + 4, 2 * 33 + 4));
}

/// Features as `.npy`.
fn features(path: PathBuf, values: &[f64]) -> PathBuf {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    write_npy(&path, Dtype::F64, &GOLDEN_FEATURES, &bytes).unwrap();
    path
}

#[test]
fn the_fid_of_two_matrices_is_that_of_the_reference() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = golden_features();
    let (a, b) = (features(folder.path().join("a.npy"), &a), features(folder.path().join("b.npy"), &b));
    let fid = number(&json(&["eval", "features", text(&a), text(&b)]), "fid");
    let want = golden_json("metrics.json")["fid"].as_f64().unwrap();
    assert!((fid - want).abs() < 1e-6 * want, "{fid} {want}");

    let short = folder.path().join("short.npy");
    write_npy(&short, Dtype::F64, &[1, 64], &[0; 512]).unwrap();
    assert!(fails(&["eval", "features", text(&a), text(&short)], 1).contains("short.npy"));
    let narrow = folder.path().join("narrow.npy");
    write_npy(&narrow, Dtype::F64, &[2, 3], &[0; 48]).unwrap();
    let error = fails(&["eval", "features", text(&a), text(&narrow)], 1);
    assert!(error.contains("64") && error.contains('3'), "{error}");
}

#[test]
fn samples_are_compared_as_folder_npz_and_saved_statistics_alike() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let network = inception(dir);
    let (source, side) = (photos(dir, 3, 2), 48);
    let npz = dir.join("pictures.npz");
    let classes = sorted(&source);
    let paths: Vec<PathBuf> = classes.iter().flat_map(|class| sorted(class)).collect();
    let mut images = NpzImages::create(&npz, paths.len(), side).unwrap();
    let recipe = tokengrid_ingest::Recipe { size: side as u32, ..Default::default() };
    for path in &paths {
        let bytes = std::fs::read(path).unwrap();
        let views = tokengrid_ingest::views_of_file(&bytes, "", &recipe, &Default::default()).unwrap();
        images.push(&views[0].pixels).unwrap();
    }
    images.finish().unwrap();

    let stats = dir.join("stats.npz");
    let fixed = ["eval", "samples", "--inception", text(&network), "--threads", "1"];
    let samples = |more: &[&str]| json(&[&fixed[..], more].concat());
    let (size, pictures) = (side.to_string(), text(&npz));
    let alike =
        samples(&[text(&source), pictures, "--size", &size, "--save-stats", text(&stats), "--precision-recall"]);
    for (key, most) in [("fid", 1e-6), ("sfid", 1e-6)] {
        assert!((0.0..most).contains(&number(&alike, key)), "{key}: {alike}");
    }
    assert_eq!((number(&alike, "precision"), number(&alike, "recall")), (1.0, 1.0));
    assert_eq!((alike["images"].as_u64(), alike["reference_images"].as_u64()), (Some(6), Some(6)));
    assert!(number(&alike, "inception_score") >= 1.0);

    let limited = samples(&[pictures, text(&stats), "--limit", "3"]);
    // Synthetic weights: a feature's range is small, and so is every distance.
    assert!(number(&limited, "fid") > 1e-4 && number(&limited, "sfid") > 1e-2, "{limited}");
    assert!(limited["reference_images"].is_null(), "statistics do not say of how many");
    // As the ADM suite's reference files are: statistics of all pictures, and some of the pictures.
    let reference = dir.join("reference.npz");
    adm_reference(&stats, &reference, side);
    let with_pictures = samples(&[pictures, text(&reference), "--limit", "3"]);
    for key in ["fid", "sfid"] {
        assert_eq!(with_pictures[key], limited[key], "{key} is of the saved statistics");
    }
    let alone = samples(&[pictures, "--limit", "2"]);
    assert!(alone["fid"].is_null() && alone["inception_score"].is_number());
}

/// The statistics of a file beside two black pictures.
fn adm_reference(stats: &Path, path: &Path, side: usize) {
    let mut npz = Npz::open(stats).unwrap();
    let mut array = |name: &'static str| {
        let mut reader = npz.array(name).unwrap();
        let (shape, count) = (reader.shape.clone(), reader.shape.iter().product());
        let bytes = reader.read_values(count).unwrap().iter().flat_map(|value| value.to_le_bytes()).collect();
        NamedArray { name, dtype: Dtype::F64, shape, bytes }
    };
    let mut arrays: Vec<NamedArray> = ["mu", "sigma", "mu_s", "sigma_s"].into_iter().map(&mut array).collect();
    let black = vec![0; 2 * side * side * 3];
    arrays.push(NamedArray { name: "arr_0", dtype: Dtype::U8, shape: vec![2, side, side, 3], bytes: black });
    write_npz(path, &arrays).unwrap();
}

#[test]
fn what_cannot_be_evaluated_is_told_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path(), 1, 1);
    let missing = folder.path().join("pt_inception-2015-12-05-6726825d.pth");
    let error = fails(&["eval", "samples", text(&source), "--inception", text(&missing)], 1);
    assert!(error.contains("pytorch-fid") && error.contains("--inception"), "{error}");
    let tokenizer = golden("tok_f4.ckpt");
    let error = fails(&["eval", "samples", text(&source), "--inception", text(&tokenizer)], 1);
    assert!(error.contains("tok_f4.ckpt"), "{error}");
    let fixed = ["eval", "reconstruction", text(&source), "--tokenizer", "tiny"];
    assert!(fails(&[&fixed[..], &["--size", "50"]].concat(), 2).contains("factor 8"));
    fails(&[&fixed[..], &["--size", "whole"]].concat(), 2);
    let vgg = folder.path().join("vgg.pth");
    let error = fails(&[&fixed[..], &["--lpips-vgg", text(&vgg)]].concat(), 1);
    assert!(error.contains("vgg16-397923af.pth"), "{error}");
}

#[test]
fn a_stopped_evaluation_writes_nothing_and_exits_with_130() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("many");
    std::fs::create_dir(&source).unwrap();
    let photo = std::fs::canonicalize(&sorted(&sorted(&repository("data/photos"))[0])[0]).unwrap();
    (0..2000).for_each(|i| std::os::unix::fs::symlink(&photo, source.join(format!("{i:04}.jpg"))).unwrap());
    let out = folder.path().join("look");
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("tokengrid"));
    command.args(["eval", "reconstruction", text(&source), "--tokenizer", "tiny", "--threads", "1"]);
    command.args(["--out", text(&out), "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut progress = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    // The reasons for absent figures come last; the first line is progress.
    stderr.read_line(&mut progress).unwrap();
    assert!(progress.contains("/2000 images"), "{progress}");
    // SAFETY: a signal to a child that was started here and has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, 0);
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{rest}");
    assert!(output.stdout.is_empty() && !out.exists() && rest.contains("stopped"), "{rest}");
}

#[test]
fn averaged_weights_are_measured_where_the_file_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path(), 1, 1);
    let checkpoint = golden("tok_f4.ckpt");
    let run = |more: &[&str]| {
        let fixed = ["eval", "reconstruction", text(&source), "--tokenizer", text(&checkpoint), "--size", "32"];
        json(&[&fixed[..], more].concat())
    };
    let (untold, ema, raw) = (run(&[]), run(&["--variant", "ema"]), run(&["--variant", "raw"]));
    assert_eq!((untold["variant"].as_str(), raw["variant"].as_str()), (Some("ema"), Some("raw")));
    assert_eq!(untold["psnr"], ema["psnr"]);
    assert_ne!(untold["psnr"], raw["psnr"]);
    assert_eq!(reconstruction(&source, &[])["variant"], "raw", "the small tokenizer has no averages");
}

#[test]
fn one_picture_has_one_psnr_whichever_command_measures_it() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    std::fs::create_dir(&source).unwrap();
    let noise: Vec<u8> = stream("eval", 50 * 39 * 3).map(|v| (127.5 + 127.4 * v) as u8).collect();
    std::fs::write(source.join("noise.png"), tokengrid_model::Picture::new(50, 39, noise).to_png()).unwrap();
    let fixed = ["--tokenizer", "tiny", "--size", "original"];
    let evaluated = json(&[&["eval", "reconstruction", text(&source)][..], &fixed].concat());
    let shown = json(&[&["reconstruct", text(&source), "--out", text(&out)][..], &fixed].concat());
    assert_eq!(shown["images"][0]["psnr"], evaluated["psnr"]);
    // A margin is on both sides, in both: 7 x 5 tokens.
    assert_eq!((shown["images"][0]["tokens"].as_u64(), evaluated["tokens"].as_u64()), (Some(35), Some(35)));
}

#[test]
fn more_splits_than_pictures_and_sizes_beyond_reason_are_no_crash() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path(), 1, 2);
    let network = inception(folder.path());
    let fixed = ["eval", "samples", text(&source), "--inception", text(&network), "--threads", "1", "--limit", "2"];
    let answer = json(&[&fixed[..], &["--splits", "1000000000000"]].concat());
    assert_eq!(answer["splits"], 2);
    let out = folder.path().join("out");
    let size = ["reconstruct", text(&source), "--tokenizer", "tiny", "--out", text(&out), "--size", "4000000000"];
    assert!(fails(&size, 2).contains("--size"));
}

#[test]
fn a_file_is_replaced_only_where_this_program_made_it() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path(), 1, 2);
    let network = inception(folder.path());
    let (stats, look) = (folder.path().join("stats.npz"), folder.path().join("look"));
    let samples = ["eval", "samples", text(&source), "--inception", text(&network), "--threads", "1"];
    let samples = [&samples[..], &["--save-stats", text(&stats)]].concat();
    let reconstruction = ["eval", "reconstruction", text(&source), "--tokenizer", "tiny", "--size", "16"];
    let reconstruction = [&reconstruction[..], &["--out", text(&look), "--pairs", "1"]].concat();
    std::fs::create_dir(&look).unwrap();
    for (command, file) in [(&samples, &stats), (&reconstruction, &look.join("best-00.png"))] {
        json(command);
        json(command);
        // Of the same kind, and not ours.
        let mut foreign = vec![];
        match file == &stats {
            true => foreign.extend(b"PK\x05\x06 and eighteen bytes more"),
            false => foreign.extend(b"\x89PNG\r\n\x1a\n of a camera"),
        }
        std::fs::write(file, &foreign).unwrap();
        let message = fails(command, 1);
        assert!(message.contains("not one that this program made"), "{message}");
        assert_eq!(std::fs::read(file).unwrap(), foreign);
    }
}
