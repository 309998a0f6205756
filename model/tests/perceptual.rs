//! LPIPS against numbers of the published implementation, and its weight files.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};
use tokengrid_model::perceptual::{Backbone, Lpips};
use tokengrid_model::weights::to_safetensors;
use tokengrid_model::{Params, Weights};
use tokengrid_test_support::{formula, golden, golden_json};

/// Convolutions by the weight formula, published taps.
fn params(backbone: Backbone) -> Params {
    let name = backbone.name();
    let taps = Weights::open(&golden(&format!("lpips_{name}_lin.safetensors"))).unwrap();
    let tensor = |(key, shape): (String, Vec<i64>)| {
        let tensor = match key.starts_with("lin") {
            true => taps.tensor(&key).unwrap(),
            false => {
                Tensor::from_slice(&formula(&format!("v1:lpips_{name}:"), &key, &shape, 6.0)).view(shape.as_slice())
            }
        };
        (key, tensor)
    };
    backbone.tensors().into_iter().map(tensor).collect()
}

fn images(name: &str) -> Tensor {
    tch::set_num_threads(1); // tests run side by side
    let bytes = Weights::open(&golden("metrics.safetensors")).unwrap().tensor(name).unwrap();
    (bytes.to_kind(Kind::Double) / 127.5 - 1.0).to_kind(Kind::Float)
}

#[track_caller]
fn assert_golden(backbone: Backbone, lpips: &Lpips) {
    let distances = lpips.forward(&images("image"), &images("noisy"));
    let want = &golden_json("metrics.json")["lpips"][backbone.name()];
    assert_eq!(distances.size(), [3]);
    for (i, want) in want.as_array().unwrap().iter().enumerate() {
        let (value, want) = (distances.double_value(&[i as i64]), want.as_f64().unwrap());
        assert!((value - want).abs() <= 1e-4 * want, "{}, image {i}: {value}, not {want}", backbone.name());
    }
}

fn save(path: &Path, params: &Params, name: impl Fn(&str) -> Option<String>) -> PathBuf {
    let renamed: Vec<(String, Tensor)> =
        params.iter().filter_map(|(key, tensor)| Some((name(key)?, tensor.shallow_clone()))).collect();
    let bytes = to_safetensors(renamed.iter().map(|(key, tensor)| (key.as_str(), tensor)), HashMap::new());
    std::fs::write(path, bytes).unwrap();
    path.into()
}

/// `net.slice2.5.weight` as `features.5.weight`.
fn torchvision(key: &str) -> Option<String> {
    let (_, rest) = key.strip_prefix("net.slice")?.split_once('.')?;
    Some(format!("features.{rest}"))
}

fn tap(key: &str) -> Option<String> {
    key.starts_with("lin").then(|| key.to_string())
}

#[test]
fn distances_of_both_backbones() {
    for backbone in [Backbone::Vgg16, Backbone::AlexNet] {
        assert_golden(backbone, &Lpips::from_params(backbone, &params(backbone), Device::Cpu));
    }
}

#[test]
fn every_published_layout_of_files_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let backbone = Backbone::AlexNet;
    let params = params(backbone);
    let whole = save(&at("tokenizer.safetensors"), &params, |key| Some(format!("loss.perceptual_loss.{key}")));
    let aliases = save(&at("aliases.safetensors"), &params, |key| Some(key.replacen("lin", "lins.", 1)));
    let convolutions = save(&at(backbone.published_convolutions()), &params, torchvision);
    let taps = save(&at("taps"), &params, tap);
    let both = PathBuf::from(format!("{},{}", convolutions.display(), taps.display()));
    for path in [&whole, &aliases, &both] {
        assert_golden(backbone, &Lpips::open(backbone, path, Device::Cpu).unwrap());
    }
    std::fs::rename(&taps, at(backbone.published_taps())).unwrap();
    for path in [&convolutions, &at(backbone.published_taps())] {
        assert_golden(backbone, &Lpips::open(backbone, path, Device::Cpu).unwrap());
    }
}

#[test]
fn stored_normalisation_wins_over_the_constants() {
    let folder = tempfile::tempdir().unwrap();
    let mut all: Vec<(String, Tensor)> =
        params(Backbone::AlexNet).iter().map(|(key, tensor)| (key.to_string(), tensor.shallow_clone())).collect();
    all.push(("scaling_layer.shift".into(), Tensor::from_slice(&[0.5f32, 0.5, 0.5]).view([1, 3, 1, 1])));
    let path = save(&folder.path().join("all.safetensors"), &all.into_iter().collect(), |key| Some(key.to_string()));
    let shifted = Lpips::open(Backbone::AlexNet, &path, Device::Cpu).unwrap();
    let plain = Lpips::from_params(Backbone::AlexNet, &params(Backbone::AlexNet), Device::Cpu);
    let (a, b) = (images("image"), images("noisy"));
    assert!(!shifted.forward(&a, &b).allclose(&plain.forward(&a, &b), 1e-3, 0.0, false));
}

#[test]
fn a_missing_half_is_named_with_its_published_file() {
    let folder = tempfile::tempdir().unwrap();
    let params = params(Backbone::AlexNet);
    let convolutions = save(&folder.path().join("net.pth"), &params, torchvision);
    let taps = save(&folder.path().join("taps.pth"), &params, tap);
    let message = |path: &Path| Lpips::open(Backbone::AlexNet, path, Device::Cpu).unwrap_err().to_string();
    assert!(message(&convolutions).contains("`alex.pth`"), "{}", message(&convolutions));
    assert!(message(&taps).contains("`alexnet-owt-7be5be79.pth`"), "{}", message(&taps));
    let nowhere = message(&folder.path().join("nowhere.pth"));
    assert!(nowhere.contains("no such file") && nowhere.contains("`alex.pth`"), "{nowhere}");
}

#[test]
fn the_file_of_another_backbone_is_refused_by_shape() {
    let folder = tempfile::tempdir().unwrap();
    let whole = save(&folder.path().join("alex.safetensors"), &params(Backbone::AlexNet), |key| Some(key.to_string()));
    let error = Lpips::open(Backbone::Vgg16, &whole, Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("[64, 3, 11, 11]") && error.contains("[64, 3, 3, 3]"), "{error}");
}

#[test]
fn gradients_reach_the_image_and_stay_finite_where_no_feature_fires() {
    let lpips = Lpips::from_params(Backbone::AlexNet, &params(Backbone::AlexNet), Device::Cpu);
    let noisy = images("noisy").set_requires_grad(true);
    lpips.forward(&images("image"), &noisy).sum(Kind::Float).backward();
    assert!(noisy.grad().abs().max().double_value(&[]) > 0.0);
    // No weight, a negative bias: every feature is 0 at every tap.
    let dead = Backbone::AlexNet.tensors().into_iter().map(|(name, shape)| {
        let value = if name.ends_with("bias") { -1.0 } else { 0.0 };
        (name, Tensor::full(shape.as_slice(), value, (Kind::Float, Device::Cpu)))
    });
    let lpips = Lpips::from_params(Backbone::AlexNet, &dead.collect(), Device::Cpu);
    let image = images("image").set_requires_grad(true);
    lpips.forward(&images("noisy"), &image).sum(Kind::Float).backward();
    assert_eq!(image.grad().abs().max().double_value(&[]), 0.0);
}

#[test]
fn the_smallest_image_of_each_backbone_still_has_a_distance() {
    for backbone in [Backbone::Vgg16, Backbone::AlexNet] {
        let lpips = Lpips::from_params(backbone, &params(backbone), Device::Cpu);
        let side = backbone.min_side();
        let image = |seed: i64| {
            tch::manual_seed(seed);
            Tensor::rand([1, 3, side, side], (Kind::Float, Device::Cpu)) * 2.0 - 1.0
        };
        assert!(lpips.forward(&image(1), &image(2)).double_value(&[0]) > 0.0);
        let less = Tensor::zeros([1, 3, side - 1, side - 1], (Kind::Float, Device::Cpu));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lpips.forward(&less, &less))).is_err());
    }
}
