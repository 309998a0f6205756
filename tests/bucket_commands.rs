//! Commands that read a source or a cache read it from a bucket as well, and say the same as of a local one.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;
#[path = "common/training.rs"]
mod training;
#[path = "common/viewer.rs"]
mod viewer;
#[path = "common/buckets.rs"]
mod world;

use common::{json, photos, text};
use serde_json::Value;
use std::path::Path;
use viewer::Viewer;
use world::{World, local_hash, tokenize};

const SOURCE: &str = "s3://bucket/photos";
const CACHE: &str = "s3://bucket/cache";

/// Photographs and their cache, in folders and in a bucket.
#[track_caller]
fn world() -> Option<(World, String, String)> {
    let world = World::new()?;
    let source = photos(world.folder.path(), 3, 4);
    local_hash(&source, &world.path("local"));
    world.server.put_folder(&source, "photos");
    world.json(&tokenize(SOURCE, CACHE));
    let (source, local) = (text(&source).to_owned(), text(&world.path("local")).to_owned());
    Some((world, source, local))
}

/// The outputs of two runs, without what differs from run to run.
#[track_caller]
fn assert_same(mut remote: Value, mut local: Value, apart_from: &[&str]) {
    for name in apart_from {
        remote.as_object_mut().unwrap().remove(*name);
        local.as_object_mut().unwrap().remove(*name);
    }
    assert_eq!(remote, local);
}

#[test]
fn caches_are_looked_at_and_copied() {
    let Some((world, source, local)) = world() else { return };
    assert_same(world.json(&["cache", "classes", CACHE]), json(&["cache", "classes", &local]), &[]);
    let none = ["cache", "subset", CACHE, "--classes", "unicorn", "--out", "none"];
    let said = world.fails_by(world.command(world.server.address(), "stage"), &none);
    assert!(said.contains(CACHE) && said.contains("unicorn"), "{said}");
    let out = ["exported", "exported-local", "subset", "subset-local"].map(|name| world.path(name));
    let [exported, exported_local, subset, subset_local] = out.each_ref().map(|path| text(path));
    let export = |cache, out| ["cache", "export", cache, "--format", "npy", "--out", out].to_vec();
    world.json(&export(CACHE, exported));
    json(&export(&local, exported_local));
    let arrays = common::sorted(Path::new(exported_local));
    for array in arrays.iter().filter(|file| file.extension().is_some_and(|end| end == "npy")) {
        let ours = Path::new(exported).join(array.file_name().unwrap());
        assert!(std::fs::read(array).unwrap() == std::fs::read(&ours).unwrap(), "{}", ours.display());
    }
    let select = |cache, out| ["cache", "subset", cache, "--classes", "0,1", "--out", out].to_vec();
    world.json(&select(CACHE, subset));
    json(&select(&local, subset_local));
    assert_eq!(json(&["cache", "diff", subset, subset_local])["same"], true);
    let merged = world.path("merged");
    let inputs = [format!("train={CACHE}"), format!("val={local}")];
    world.json(&["cache", "merge", text(&merged), &inputs[0], &inputs[1]]);
    assert_eq!(json(&["cache", "info", text(&merged)])["rows"], 24);
    let check = world.json(&["cache", "check", CACHE, "--source", SOURCE, "--tokenizer", "tiny", "--sample", "4"]);
    assert_eq!(check["ok"], true, "{check}");
    // A damaged copy is repaired from the images in the bucket.
    let shard = common::sorted(Path::new(&local)).into_iter().find(|file| text(file).ends_with(".parquet")).unwrap();
    let mut bytes = std::fs::read(&shard).unwrap();
    let whole = bytes.clone();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    std::fs::write(&shard, &bytes).unwrap();
    world.json(&["cache", "repair", &local, "--source", SOURCE, "--tokenizer", "tiny"]);
    assert!(std::fs::read(&shard).unwrap() == whole);
    drop(source);
}

#[test]
fn files_that_are_attached_to_a_cache_are_checked_and_exported() {
    let Some(world) = World::new() else { return };
    let (set, local, out) = (world.path("set"), world.path("local"), world.path("out"));
    std::fs::create_dir_all(set.join("actions")).unwrap();
    let tokens: Vec<u8> = (0..12 * 16u32).flat_map(|i| (i * 40_503 % (1 << 18)).to_le_bytes()).collect();
    let metadata = r#"{"num_images": 12,  "s": 4, "vocab_size": 262144, "hz": 30}"#;
    let files =
        [("video.bin", &tokens[..]), ("metadata.json", metadata.as_bytes()), ("actions/joint_pos.bin", &[7; 500])];
    for (name, content) in files {
        std::fs::write(set.join(name), content).unwrap();
    }
    json(&["cache", "import", "--format", "1x", text(&set), "--bit-order", "high-first", "--out", text(&local)]);
    world.server.put_folder(&local, "frames");
    let frames = "s3://bucket/frames";
    let info = world.json(&["cache", "info", frames]);
    assert_eq!(info["source"]["attached"]["actions/joint_pos.bin"]["bytes"], 500, "{info}");
    assert_eq!(world.json(&["cache", "verify", frames])["ok"], true);
    world.json(&["cache", "export", frames, "--format", "1x", "--out", text(&out)]);
    for (name, content) in files {
        assert!(std::fs::read(out.join(name)).unwrap() == content, "{name}");
    }
    assert_eq!(world.json(&["cache", "clean", frames])["objects"], 0, "they are no leftovers");
    // Another content of the same size; the copy of the good one in the stage folder is not what the bucket holds.
    world.server.put("frames/attached/actions/joint_pos.bin", &[8; 500]);
    let problem = || {
        let mut command = world.command(world.server.address(), "another-machine");
        let output = command.args(["cache", "verify", frames, "--json"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let said = problem();
    assert!(said.contains("attached/actions/joint_pos.bin") && said.contains("checksum"), "{said}");
    let none = world.path("none");
    let export = ["cache", "export", frames, "--format", "1x", "--out", text(&none)];
    let fails = || world.fails_by(world.command(world.server.address(), "a-third-machine"), &export);
    let said = fails();
    assert!(said.contains("s3://bucket/frames/attached/actions/joint_pos.bin") && said.contains("checksum"), "{said}");
    world.server.delete("frames/attached/actions/joint_pos.bin");
    let said = problem();
    assert!(said.contains("attached/actions/joint_pos.bin") && said.contains("missing"), "{said}");
    assert!(fails().contains("s3://bucket/frames/attached/actions/joint_pos.bin"));
}

#[test]
fn models_are_trained_and_measured() {
    let Some((world, source, local)) = world() else { return };
    let settings = ["max_steps=2", "batch_size=2", "precision=fp32"];
    let run = |out: &str, cache: &str| {
        let out = world.path(out);
        let arguments = training::arguments(Path::new(cache), &out, &settings);
        let mut command = world.command(world.server.address(), "stage");
        let output = command.args(&arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        out
    };
    let (ours, theirs) = (run("run", CACHE), run("run-local", &local));
    let losses =
        |run: &Path| -> Vec<Value> { training::rows(run).iter().map(|row| row["train/loss"].clone()).collect() };
    assert_eq!(losses(&ours), losses(&theirs));
    let ar = |cache| ["eval", "ar", "--checkpoint", text(&ours), "--cache", cache, "--device", "cpu", "--threads", "1"];
    assert_eq!(world.json(&ar(CACHE))["loss"], json(&ar(&local))["loss"]);
    let psnr = |source| {
        let fixed = ["eval", "reconstruction", source, "--tokenizer", "tiny", "--size", "32", "--device", "cpu"];
        world.json(&[&fixed[..], &["--threads", "1"]].concat())["psnr"].clone()
    };
    assert_eq!(psnr(SOURCE), psnr(&source));
    let out = world.path("tokenizer");
    let mut command = world.command(world.server.address(), "stage");
    command.args(["train", "tokenizer", "--data", SOURCE, "--val", SOURCE, "--out", text(&out), "--device", "cpu"]);
    command.args(["--set", "model.preset=tiny", "--set", "train.max_steps=1", "--set", "train.batch_size=2"]);
    command.args(["--set", "train.image_size=32", "--threads", "1"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(training::rows(&out)[0]["train/total_loss"].is_number());
}

#[test]
fn the_inspector_shows_a_cache_and_its_images() {
    let Some((world, _, local)) = world() else { return };
    let mut variables = world.server.variables(world.server.address());
    variables.push(("TOKENGRID_STAGE_DIR", text(&world.path("stage")).to_owned()));
    variables.push(("XDG_CACHE_HOME", text(&world.path("user-cache")).to_owned()));
    let ours = Viewer::start_with(Path::new(CACHE), &["--source", SOURCE], &variables);
    let theirs = Viewer::start(Path::new(&local), &[]);
    let (status, _, page) = ours.get("/");
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&page));
    let tokens = |viewer: &Viewer| viewer.json("/api/row/5")["tokens"].clone();
    assert_eq!(tokens(&ours), tokens(&theirs));
}
