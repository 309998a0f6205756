//! The same images out of every container give the same cache.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;

use common::{PARQUET, fails, json, photos, sorted, tar, text};
use std::path::Path;
use std::process::Command;

#[track_caller]
fn content_hash(source: &Path, out: &Path) -> String {
    let fixed = ["tokenize", text(source), "--tokenizer", "tiny", "--size", "32", "--out", text(out)];
    let made = json(&fixed);
    assert_eq!((&made["images"], &made["quarantined"]), (&6.into(), &0.into()), "{}", source.display());
    made["content_hash"].as_str().unwrap().to_string()
}

#[test]
fn folders_tars_webdataset_and_parquet_give_one_content_hash() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let source = photos(dir, 2, 3);
    let expected = content_hash(&source, &dir.join("cache-folder"));

    let folders = dir.join("folders.tar");
    tar(&source, &folders);
    assert_eq!(content_hash(&folders, &dir.join("cache-tar")), expected, "a tar of class folders");

    let (classes, train) = (dir.join("classes"), dir.join("ILSVRC2012_img_train.tar"));
    std::fs::create_dir(&classes).unwrap();
    for class in sorted(&source) {
        tar(&class, &classes.join(format!("{}.tar", class.file_name().unwrap().to_str().unwrap())));
    }
    tar(&classes, &train);
    assert_eq!(content_hash(&train, &dir.join("cache-train")), expected, "a tar of class tars");
    assert_eq!(content_hash(&classes, &dir.join("cache-classes")), expected, "a folder of class tars");

    // Two shards, the images of both classes mixed, with labels beside them.
    for shard in 0..2 {
        let samples = dir.join(format!("samples-{shard}"));
        std::fs::create_dir(&samples).unwrap();
        for (label, class) in sorted(&source).iter().enumerate() {
            for image in sorted(class).iter().skip(shard).step_by(2) {
                let stem = image.file_stem().unwrap().to_str().unwrap();
                std::fs::copy(image, samples.join(image.file_name().unwrap())).unwrap();
                std::fs::write(samples.join(format!("{stem}.cls")), label.to_string()).unwrap();
            }
        }
        tar(&samples, &dir.join(format!("shard-{shard}.tar")));
    }
    let shards = dir.join("shard-{0..1}.tar");
    assert_eq!(content_hash(&shards, &dir.join("cache-webdataset")), expected, "WebDataset shards");

    let Some(python) = tokengrid_test_support::python_with("import pyarrow") else { return };
    let parquet = dir.join("train.parquet");
    let status = Command::new(python).args(["-c", PARQUET, text(&source), text(&parquet)]).status().unwrap();
    assert!(status.success());
    assert_eq!(content_hash(&parquet, &dir.join("cache-parquet")), expected, "Parquet");
}

#[test]
fn a_cache_does_not_go_into_its_source() {
    let temp = tempfile::tempdir().unwrap();
    let source = photos(temp.path(), 2, 1);
    for out in [source.clone(), source.join("cache"), source.join("a/b/../cache")] {
        let fixed = ["tokenize", text(&source), "--tokenizer", "tiny", "--size", "32", "--out", text(&out)];
        let message = fails(&fixed, 2);
        assert!(message.contains("lies in the source"), "{message}");
    }
    let run = source.join("run");
    let message = fails(
        &["train", "tokenizer", "--set", "model.preset=\"tiny\"", "--data", text(&source), "--out", text(&run)],
        2,
    );
    assert!(message.contains("lies in the source"), "{message}");
    let class = sorted(&source)[0].clone();
    let message = fails(&["reconstruct", text(&class), "--tokenizer", "tiny", "--out", text(&class)], 2);
    assert!(message.contains("one of the inputs"), "{message}");
    assert_eq!(sorted(&source).len(), 2, "nothing was written");
}

#[test]
fn an_output_folder_may_hold_what_systems_leave_there() {
    let temp = tempfile::tempdir().unwrap();
    let source = photos(temp.path(), 2, 3);
    let out = temp.path().join("cache");
    std::fs::create_dir_all(out.join("lost+found")).unwrap();
    std::fs::write(out.join(".DS_Store"), "x").unwrap();
    content_hash(&source, &out);
    json(&["cache", "verify", text(&out)]);
}
