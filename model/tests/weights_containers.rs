//! Containers and names as other programs write them: every valid zip layout, wrappers around the weights, prefixes of their
//! names, and archives that are no checkpoints.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

use std::path::PathBuf;
use tokengrid_model::{Variant, Weights};
use tokengrid_test_support::torch_save::{Saved, ZipLayout, saved_members, torch_save};

/// A folder with one file in it.
fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn open(bytes: &[u8]) -> Weights {
    let (_folder, path) = file("weights.pt", bytes);
    Weights::open(&path).unwrap()
}

fn refusal(bytes: &[u8]) -> String {
    let (_folder, path) = file("weights.pt", bytes);
    let message = Weights::open(&path).map(|_| ()).unwrap_err().to_string();
    assert_eq!(message.lines().count(), 1, "{message}");
    message
}

fn values(weights: &Weights, name: &str) -> Vec<f32> {
    Vec::try_from(weights.tensor(name).unwrap().view([-1])).unwrap()
}

const X: [f32; 6] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];

fn x() -> Saved {
    Saved::dict([("x", Saved::Tensor(vec![2, 3], X.to_vec()))])
}

#[test]
fn the_length_of_the_file_s_name_does_not_matter() {
    // The writer puts it before every member: alignment and the distances between the records depend on it.
    for len in 1..=150 {
        let weights = open(&torch_save(&"a".repeat(len), &x()));
        assert_eq!(values(&weights, "x"), X, "{len} characters");
        assert_eq!(weights.tensor("x").unwrap().size(), [2, 3]);
    }
}

#[test]
fn every_valid_layout_of_an_archive_is_read() {
    let members = |root: &str| saved_members(root, &x());
    for root_len in 1..=40 {
        for aligned in [false, true] {
            for (zip64_record, wide) in [(false, false), (true, false), (true, true)] {
                for comment in [&b""[..], b"PK\x05\x06 is how an end record begins, and this is none", &[7; 65535]] {
                    let layout = ZipLayout { aligned, zip64_record, wide, comment };
                    let weights = open(&layout.write(&members(&"r".repeat(root_len))));
                    assert_eq!(values(&weights, "x"), X, "{layout:?}, root of {root_len}");
                }
            }
        }
    }
}

#[test]
fn records_that_contradict_each_other_are_refused() {
    let good = torch_save("a", &x());
    let end = good.len() - 22;
    for (at, what) in [(end + 10, "two directories"), (end + 16, "two directories"), (end - 20 + 8, "zip64 record")] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        let message = refusal(&bytes);
        assert!(message.contains(what), "{message}");
    }
    let mut other_name = good.clone();
    other_name[30] = b'b';
    assert!(refusal(&other_name).contains("no local header"));
    // Nothing within the directory and its records makes a panic, whatever its value.
    let directory = good.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    let (_folder, path) = file("weights.pt", &good);
    for at in directory..good.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bytes = good.clone();
            bytes[at] = value;
            std::fs::write(&path, &bytes).unwrap();
            let _ = Weights::open(&path);
        }
    }
}

/// A tokenizer's state dictionary as far as names go, every value `value`.
fn state(prefix: &str, value: f32) -> Saved {
    let names = ["encoder.conv_in.weight", "encoder.conv_out.bias", "decoder.conv_in.weight"];
    Saved::dict(names.map(|name| (format!("{prefix}{name}"), Saved::Tensor(vec![2], vec![value; 2]))))
}

fn names(weights: &Weights) -> Vec<&str> {
    weights.names().filter(|name| !name.starts_with("model_ema.")).collect()
}

const NAMES: [&str; 3] = ["decoder.conv_in.weight", "encoder.conv_in.weight", "encoder.conv_out.bias"];

#[test]
fn wrappers_and_prefixes_are_seen_through_and_spoken_of() {
    let optimizer = || Saved::dict([("exp_avg", Saved::Tensor(vec![1], vec![9.0]))]);
    let wrapped = |key: &str, inner: Saved| {
        Saved::dict([
            ("epoch", Saved::Int(3)),
            ("optimizer", optimizer()),
            ("discriminator", optimizer()),
            (key, inner),
        ])
    };
    for prefix in ["module.", "_orig_mod.", "model.", "module._orig_mod.", "my_net."] {
        let weights = open(&torch_save("a", &state(prefix, 1.0)));
        assert_eq!(names(&weights), NAMES, "{prefix}");
        assert!(weights.notes()[0].contains("left out of the tensors' names"), "{:?}", weights.notes());
        let weights = open(&torch_save("a", &wrapped("state_dict", state(prefix, 1.0))));
        assert_eq!(names(&weights), NAMES, "{prefix} in a state_dict");
        let weights = open(&torch_save("a", &wrapped("model", state(prefix, 1.0))));
        assert_eq!(names(&weights), NAMES, "{prefix} in a model");
    }
    for key in ["model", "ema", "model_state_dict", "net", "generator", "params_ema"] {
        let weights = open(&torch_save("a", &wrapped(key, state("", 1.0))));
        assert_eq!((names(&weights), weights.num_other_tensors()), (NAMES.to_vec(), 2), "{key}");
        assert_eq!(weights.notes(), [format!("the weights are what it holds under `{key}`")]);
        assert_eq!(weights.fact("epoch"), Some("3"));
    }
    let weights = open(&torch_save("a", &wrapped("state_dict", state("", 1.0))));
    assert!(weights.notes().is_empty(), "as the reference has it: {:?}", weights.notes());
}

#[test]
fn a_second_set_of_weights_is_the_averages() {
    for (prefix, key) in [("", "ema"), ("module.", "ema"), ("model.", "model_ema")] {
        let both = Saved::dict([("model", state(prefix, 1.0)), (key, state(prefix, 2.0))]);
        let weights = open(&torch_save("a", &both));
        assert_eq!(names(&weights), NAMES);
        for (variant, value) in [(Variant::Raw, 1.0f32), (Variant::Ema, 2.0)] {
            let params = weights.tokenizer_params(variant).unwrap();
            assert_eq!(
                Vec::<f32>::try_from(params.get("encoder.conv_in.weight")).unwrap(),
                [value; 2],
                "{prefix}{key}"
            );
        }
    }
}

#[test]
fn weights_that_are_not_finite_are_named_and_counted() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let Saved::Dict(mut entries) = state("", 1.0) else { unreachable!() };
        entries[1].1 = Saved::Tensor(vec![3], vec![bad, 1.0, bad]);
        let weights = open(&torch_save("a", &Saved::Dict(entries)));
        let message = weights.tokenizer_params(Variant::Raw).unwrap_err().to_string();
        assert!(message.contains("2 of 3 values of tensor `encoder.conv_out.bias` are not finite"), "{message}");
    }
}

#[test]
fn other_archives_are_called_what_they_are() {
    let archive = |names: &[&str]| {
        let members: Vec<_> = names.iter().map(|name| (name.to_string(), b"bytes".to_vec())).collect();
        refusal(&ZipLayout { aligned: false, zip64_record: false, wide: false, comment: b"" }.write(&members))
    };
    for (names, what) in [
        (&["w.npy", "b.npy"][..], "NumPy arrays (.npz)"),
        (&["m/data.pkl", "m/code/__torch__.py", "m/constants.pkl", "m/data/0", "m/version"], "TorchScript"),
        (&["m/archive_format", "m/models/model.json", "m/data/weights/w"], "exported PyTorch program"),
        (&["readme.txt", "sub/net.ckpt"], "holds `sub/net.ckpt`; unpack it first"),
        (&["a.txt", "b.txt", "c.txt", "d.txt"], "it holds `a.txt`, `b.txt`, `c.txt`, ..."),
        (&[], "an empty zip archive"),
    ] {
        let message = archive(names);
        assert!(message.contains(what) && !message.contains("again;") && !message.contains("damaged"), "{message}");
    }
    let mut deflated = torch_save("a", &x());
    let directory = deflated.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    deflated[directory + 10] = 8;
    let message = refusal(&deflated);
    assert!(
        message.contains("is compressed") && message.contains("torch.save") && !message.contains("download"),
        "{message}"
    );
    for (saved, what) in
        [(Saved::Int(3), "holds no named tensors"), (Saved::Tensor(vec![1], vec![1.0]), "a single tensor")]
    {
        let message = refusal(&torch_save("a", &saved));
        assert!(
            message.contains(what) && message.contains("state_dict()") && !message.contains("download"),
            "{message}"
        );
    }
}
