//! Token sets of other programs, written by their own writers (numpy, json, datasets), and what Python makes of ours.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;
#[path = "common/training.rs"]
mod training;

use common::{fails, json, photos, text};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use training::{arguments, printed, rows, strs};

/// Runs a script in `folder`, if there is a Python with what it needs.
fn python(folder: &Path, needed: &str, script: &str) -> Option<String> {
    let python = tokengrid_test_support::python_with(needed)?;
    let output = Command::new(python).args(["-c", script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

fn tokens_of(cache: &Path, row: usize) -> Vec<Vec<i64>> {
    let shown = json(&["cache", "show", text(cache), "--index", &row.to_string()]);
    let rows = shown["tokens"].as_array().unwrap().iter();
    rows.map(|row| row.as_array().unwrap().iter().map(|token| token.as_i64().unwrap()).collect()).collect()
}

/// The token that the scripts below give row `row` at place `i`.
fn expected(row: usize, i: usize) -> i64 {
    ((row * 7919 + i * 104_729) % 65_536) as i64
}

#[track_caller]
fn is_as_written(cache: &Path, row: usize, side: usize) {
    let expected: Vec<Vec<i64>> = (0..side).map(|y| (0..side).map(|x| expected(row, y * side + x)).collect()).collect();
    assert_eq!(tokens_of(cache, row), expected, "row {row}");
}

/// As the scripts of RAR and LlamaGen write, with 5 images of 10 views.
const TEN_CROPS: &str = r#"
import json, numpy as np, os
row, i = np.meshgrid(np.arange(50), np.arange(16), indexing="ij")
codes = (row * 7919 + i * 104729) % 65536
with open("rar.jsonl", "w") as f:
    for r in range(50):
        json.dump({"class_id": int(r // 10 % 3), "tokens": codes[r].tolist()}, f)
        f.write("\n")
os.makedirs("llamagen/imagenet64_codes"); os.makedirs("llamagen/imagenet64_labels")
for n in range(5):
    np.save(f"llamagen/imagenet64_codes/{n}.npy", codes[10 * n:10 * n + 10].reshape(1, 10, -1))
    np.save(f"llamagen/imagenet64_labels/{n}.npy", np.array([n % 3]))
codes.astype(np.uint16).tofile("tokens.bin")
np.save("labels.npy", np.arange(5) % 3)
"#;

#[test]
fn ten_crops_of_rar_and_llamagen_come_back_byte_by_byte() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    if python(folder, "import numpy", TEN_CROPS).is_none() {
        return;
    }
    let at = |name: &str| folder.join(name);
    for (name, input, more) in [
        ("of-rar", "rar.jsonl", &["--views", "10"][..]),
        ("of-llamagen", "llamagen", &[]),
        ("of-memmap", "tokens.bin", &["--views", "10", "--grid", "4x4", "--labels", text(&at("labels.npy"))]),
    ] {
        let cache = at(name);
        json(&[&["cache", "import", text(&at(input)), "--out", text(&cache)], more].concat());
        let info = json(&["cache", "info", text(&cache)]);
        assert_eq!((&info["images"], &info["views"], &info["bits"]), (&5.into(), &10.into(), &16.into()), "{name}");
        [0, 1, 49].into_iter().for_each(|row| is_as_written(&cache, row, 4));
        assert_eq!(json(&["cache", "show", text(&cache), "--index", "49"])["label"], 1, "{name}");
    }
    let same = |a: &str, b: &str| assert!(std::fs::read(at(a)).unwrap() == std::fs::read(at(b)).unwrap(), "{a}, {b}");
    let export = |format: &str, out: &str, more: &[&str]| {
        let (cache, out) = (at("of-rar"), at(out));
        json(&[&["cache", "export", text(&cache), "--format", format, "--out", text(&out)], more].concat())
    };
    let lines = at("rar.jsonl");
    let unused =
        ["cache", "import", text(&lines), "--labels", "labels.npy", "--out", text(&at("unused"))].map(str::to_owned);
    let message = fails(&unused.each_ref().map(String::as_str), 2);
    assert!(message.contains("--labels is for npy, llamagen, memmap, not for jsonl"), "{message}");
    export("jsonl", "lines", &[]);
    same("lines/pretokenized.jsonl", "rar.jsonl");
    export("memmap", "memmap", &["--dtype", "uint16"]);
    same("memmap/tokens.bin", "tokens.bin");
    export("llamagen", "folders", &[]);
    for n in 0..5 {
        for kind in ["codes", "labels"] {
            same(&format!("folders/imagenet64_{kind}/{n}.npy"), &format!("llamagen/imagenet64_{kind}/{n}.npy"));
        }
    }
}

/// Two shards of a data set with a class label, as `push_to_hub` lays them out, and columns by other names.
const DATASETS: &str = r#"
import datasets, numpy as np, os
row, i = np.meshgrid(np.arange(10), np.arange(16), indexing="ij")
codes = (row * 7919 + i * 104729) % 65536
features = datasets.Features({"input_ids": datasets.Sequence(datasets.Value("int32")),
                              "class_label": datasets.ClassLabel(names=["a", "b", "c"])})
whole = datasets.Dataset.from_dict({"input_ids": codes.tolist(), "class_label": [r % 3 for r in range(10)]}, features=features)
os.makedirs("set/data")
for n in range(2):
    whole.shard(2, n, contiguous=True).to_parquet(f"set/data/train-{n:05}-of-00002.parquet")
whole.rename_columns({"input_ids": "vq", "class_label": "y"}).to_parquet("other.parquet")
"#;

#[test]
fn hugging_face_data_sets_are_read() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    if python(folder, "import datasets, numpy", DATASETS).is_none() {
        return;
    }
    let (set, other, cache) = (folder.join("set"), folder.join("other.parquet"), folder.join("cache"));
    json(&["cache", "import", text(&set), "--grid", "4x4", "--out", text(&cache)]);
    [0, 5, 9].into_iter().for_each(|row| is_as_written(&cache, row, 4));
    assert_eq!(json(&["cache", "show", text(&cache), "--index", "8"])["label"], 2);
    let named = folder.join("named");
    let import = ["cache", "import", text(&other), "--grid", "4x4", "--out", text(&named)];
    let message = fails(&import, 1);
    assert!(message.contains("not among vq, y") && message.contains("--tokens-column"), "{message}");
    json(&[&import[..], &["--tokens-column", "vq", "--label-column", "y"]].concat());
    let hash = |cache: &Path| json(&["cache", "info", text(cache)])["content_hash"].clone();
    assert_eq!(hash(&named), hash(&cache));
}

/// WebDataset shards as its TarWriter writes them: members of a sample side by side, named by key and ending.
const SHARDS: &str = r#"
import io, json, numpy as np, os, tarfile
row, i = np.meshgrid(np.arange(20), np.arange(16), indexing="ij")
codes = (row * 7919 + i * 104729) % 65536
def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()
os.mkdir("shards")
for shard in range(2):
    for form, name in ((tarfile.USTAR_FORMAT, "shards"), (tarfile.PAX_FORMAT, "long"), (tarfile.GNU_FORMAT, "json")):
        os.makedirs(name, exist_ok=True)
        with tarfile.open(f"{name}/{shard:05}.tar", "w", format=form) as archive:
            for n in range(5 * shard, 5 * shard + 5):
                key = f"n{n:03}/" + ("x" * 120 if name != "shards" else "x") + f"_{n}"
                tokens = codes[2 * n:2 * n + 2]
                members = {"cls": str(n % 3).encode(), "tokens.npy": npy(tokens), "txt": b"words"}
                if name == "json":
                    members = {"json": json.dumps({"tokens": tokens.tolist(), "label": n % 3}).encode()}
                for ending, content in members.items():
                    info = tarfile.TarInfo(f"{key}.{ending}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
"#;

#[test]
fn webdataset_shards_are_read_with_their_keys() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    if python(folder, "import numpy", SHARDS).is_none() {
        return;
    }
    for name in ["shards", "long", "json"] {
        let cache = folder.join(format!("of-{name}"));
        json(&["cache", "import", text(&folder.join(name)), "--grid", "4x4", "--out", text(&cache)]);
        let info = json(&["cache", "info", text(&cache)]);
        assert_eq!((&info["images"], &info["views"]), (&10.into(), &2.into()), "{name}");
        [0, 1, 19].into_iter().for_each(|row| is_as_written(&cache, row, 4));
        let last = json(&["cache", "show", text(&cache), "--index", "19"]);
        let key = if name == "shards" { "n009/x_9".to_owned() } else { format!("n009/{}_9", "x".repeat(120)) };
        assert_eq!((&last["label"], &last["key"]), (&0.into(), &key.into()));
    }
    let whole = std::fs::read(folder.join("shards/00000.tar")).unwrap();
    let damaged = folder.join("damaged.tar");
    std::fs::write(&damaged, [&whole[..100], b"!", &whole[101..]].concat()).unwrap();
    let nowhere = folder.join("nowhere");
    let import = ["cache", "import", text(&damaged), "--grid", "4x4", "--out", text(&nowhere)];
    let message = fails(&import, 1);
    assert!(message.contains("checksum") && !folder.join("nowhere").exists(), "{message}");
}

#[test]
fn inputs_are_known_by_their_names_also_where_they_are_compressed_or_empty() {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("cache");
    let refused = |name: &str, content: &[u8], more: &[&str], code: i32, words: &str| {
        let path = temp.path().join(name);
        std::fs::write(&path, content).unwrap();
        let message = fails(&[&["cache", "import", text(&path), "--out", text(&out)], more].concat(), code);
        assert!(message.contains(words) && message.contains(name) && !out.exists(), "{name}: {message}");
    };
    let zstd = b"\x28\xB5\x2F\xFDand more";
    refused("a.jsonl.zst", zstd, &[], 1, "unpack it first");
    refused("a.tar.zst", zstd, &[], 1, "unpack it first");
    refused("a.npy.gz", b"\x1F\x8B\x08", &["--grid", "4x4"], 2, "unpack it first");
    for name in ["a.npy", "a.parquet", "a.jsonl", "a.tar", "a.bin"] {
        refused(name, b"", &["--grid", "4x4"], 1, "no rows in ");
    }
    let folder = temp.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    for format in ["parquet", "webdataset"] {
        let import = ["cache", "import", text(&folder), "--format", format, "--grid", "4x4", "--out", text(&out)];
        assert!(fails(&import, 1).contains("no rows in "), "{format}");
    }
}

/// The arrays of a set as its own loader reads them.
const LOADER: &str = r#"
import json, numpy as np
metadata = json.load(open("set/metadata.json"))
shape = (metadata["num_images"], metadata["s"], metadata["s"])
data = np.memmap("set/video.bin", dtype=np.dtype(metadata.get("token_dtype", "uint32")), mode="r", shape=shape)
print(json.dumps({"tokens": data.tolist(), "vocab_size": metadata["vocab_size"]}))
"#;

/// A cache of photographs by the tokenizer that is built in, large enough for pictures to be smooth.
fn photographs(folder: &Path) -> std::path::PathBuf {
    let cache = folder.join("photographs");
    let source = photos(folder, 8, 1);
    json(&["tokenize", text(&source), "--tokenizer", "tiny", "--size", "128", "--out", text(&cache)]);
    cache
}

#[test]
fn the_order_of_bits_is_found_by_a_tokenizer_or_a_cache_and_refused_without() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    let cache = photographs(folder);
    for order in ["low-first", "high-first"] {
        let set = folder.join(order).join("set");
        json(&["cache", "export", text(&cache), "--format", "1x", "--bit-order", order, "--out", text(&set)]);
        let import = |out: &str, more: &[&str]| {
            let out = folder.join(order).join(out);
            json(&[&["cache", "import", "--format", "1x", text(&set), "--out", text(&out)], more].concat());
            let manifest: Value = serde_json::from_slice(&std::fs::read(out.join("manifest.json")).unwrap()).unwrap();
            assert_eq!(manifest["source"]["details"]["bit_order"], order);
            assert_eq!(tokens_of(&out, 5), tokens_of(&cache, 5));
        };
        import("by-tokenizer", &["--tokenizer", "tiny", "--device", "cpu"]);
        import("by-cache", &["--like", text(&cache)]);
        import("by-hand", &["--bit-order", order]);
        let nowhere = folder.join("nowhere");
        let message = fails(&["cache", "import", "--format", "1x", text(&set), "--out", text(&nowhere)], 1);
        let passes = ["cannot tell", "--like CACHE", "--tokenizer WEIGHTS", "--bit-order high-first or low-first"];
        assert!(passes.iter().all(|word| message.contains(word)) && !nowhere.exists(), "{message}");
        let message = fails(&["cache", "import", text(&set), "--out", text(&nowhere)], 2);
        assert!(message.contains("--format 1x"), "{message}");
        if let Some(read) = python(&folder.join(order), "import numpy", LOADER) {
            let read: Value = serde_json::from_str(&read).unwrap();
            let first = read["tokens"][5][3][2].as_i64().unwrap() as u32;
            let ours = tokens_of(&cache, 5)[3][2] as u32;
            assert_eq!(first, if order == "low-first" { ours } else { ours.reverse_bits() >> 14 });
            assert_eq!(read["vocab_size"], 262_144);
        }
    }
}

#[test]
fn a_set_of_frames_trains_in_any_factorization() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    let set = folder.join("set");
    std::fs::create_dir(&set).unwrap();
    let tokens = (0..24 * 16u32).flat_map(|i| (i * 40_503 % (1 << 18)).to_le_bytes()).collect::<Vec<_>>();
    std::fs::write(set.join("video.bin"), tokens).unwrap();
    std::fs::write(set.join("metadata.json"), r#"{"num_images": 24, "s": 4, "vocab_size": 262144, "hz": 30}"#).unwrap();
    let cache = folder.join("cache");
    json(&["cache", "import", "--format", "1x", text(&set), "--bit-order", "high-first", "--out", text(&cache)]);
    for bits in ["[9, 9]", "[6, 12]"] {
        let run = folder.join(bits);
        let mut typed = arguments(&cache, &run, &["max_steps=2", "batch_size=4"]);
        typed.extend(["--set".to_owned(), format!("model.factorized_bits={bits}")]);
        printed(&strs(&typed));
        let losses = rows(&run);
        assert!(losses.iter().all(|row| row["train/loss"].as_f64().is_some_and(f64::is_finite)), "{losses:?}");
    }
}
