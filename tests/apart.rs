//! No output is written where its source would find it in the next run, through links and lists too.
#![cfg(all(unix, feature = "torch"))] // links
#![allow(clippy::unwrap_used)] // in a test, a panic is the report

mod common;

use common::{fails, json, photos, sorted, text};
use std::path::{Path, PathBuf};

/// A folder of images, and sources that lead into it from elsewhere: a folder with a linked class, a list, and a link to all.
fn sources(folder: &Path) -> (PathBuf, Vec<PathBuf>) {
    let source = photos(folder, 1, 1);
    let class = sorted(&source)[0].clone();
    let (linked, list, alias) = (folder.join("linked"), folder.join("list.txt"), folder.join("alias"));
    std::fs::create_dir(&linked).unwrap();
    std::os::unix::fs::symlink(&class, linked.join("class")).unwrap();
    std::fs::write(&list, text(&sorted(&class)[0])).unwrap();
    std::os::unix::fs::symlink(&source, &alias).unwrap();
    (class, vec![source, linked, list, alias])
}

#[test]
fn a_tokenizers_run_does_not_lie_among_its_images() {
    let folder = tempfile::tempdir().unwrap();
    let (class, sources) = sources(folder.path());
    let (inside, outside) = (class.join("run"), folder.path().join("run"));
    let elsewhere = photos(&folder.path().join("elsewhere"), 1, 1);
    let settings = ["model.preset=tiny", "loss.perceptual_weight=0", "train.max_steps=1", "train.image_size=32"];
    let settings: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let train = |data: &Path, val: &Path, out: &Path| -> Vec<String> {
        let fixed =
            ["train", "tokenizer", "--device", "cpu", "--data", text(data), "--val", text(val), "--out", text(out)];
        [&fixed[..], &settings].concat().into_iter().map(str::to_owned).collect()
    };
    let refused = |arguments: Vec<String>| fails(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), 2);
    for source in &sources {
        for (data, val) in [(source, &elsewhere), (&elsewhere, source)] {
            let message = refused(train(data, val, &inside));
            assert!(message.contains("lies in") && message.contains("elsewhere"), "{message}");
        }
        assert!(!inside.exists(), "nothing is begun");
    }
    let arguments = train(&sources[1], &sources[2], &outside);
    assert_eq!(json(&arguments.iter().map(String::as_str).collect::<Vec<_>>())["step"], 1);
}

#[test]
fn pictures_of_an_evaluation_do_not_lie_among_the_evaluated() {
    let folder = tempfile::tempdir().unwrap();
    let (class, sources) = sources(folder.path());
    let (inside, outside) = (class.join("look"), folder.path().join("look"));
    for source in &sources {
        let fixed = ["eval", "reconstruction", text(source), "--tokenizer", "tiny", "--size", "32", "--out"];
        let message = fails(&[&fixed[..], &[text(&inside)]].concat(), 2);
        assert!(message.contains("lies in") && !inside.exists(), "{message}");
        json(&[&fixed[..], &[text(&outside)]].concat());
        assert!(outside.join("worst-00.png").is_file());
    }
}
