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

/// What MAR's loader does, for tokens: a file per image, class folders in order; and one that holds MAR's own arrays.
const NPZ: &str = r#"
import json, numpy as np, os
row, i = np.meshgrid(np.arange(8), np.arange(16), indexing="ij")
codes = (row * 7919 + i * 104729) % 65536
for n in range(4):
    os.makedirs(f"set/n{n % 2}", exist_ok=True)
    save = np.savez if n < 2 else np.savez_compressed
    # Sorted as the rows are: class by class.
    image = 2 * (n % 2) + n // 2
    save(f"set/n{n % 2}/{n}.JPEG.npz", codes=codes[2 * image].reshape(4, 4), codes_flip=codes[2 * image + 1].reshape(4, 4))
os.makedirs("latents/n0")
np.savez("latents/n0/0.JPEG.npz", moments=np.zeros((32, 16, 16), np.float32), moments_flip=np.zeros((32, 16, 16), np.float32))
"#;

/// Reads what was exported.
const READ_NPZ: &str = r#"
import json, numpy as np
data = np.load("out/npz/n1/3.JPEG.npz")
print(json.dumps({"names": data.files, "tokens": data["tokens"].tolist(), "flip": data["tokens_flip"].tolist(), "dtype": str(data["tokens"].dtype)}))
"#;

#[test]
fn an_npz_per_image_is_read_and_written() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    if python(folder, "import numpy", NPZ).is_none() {
        return;
    }
    let (cache, out) = (folder.join("cache"), folder.join("out"));
    json(&["cache", "import", text(&folder.join("set")), "--out", text(&cache)]);
    (0..8).for_each(|row| is_as_written(&cache, row, 4));
    let last = json(&["cache", "show", text(&cache), "--index", "7"]);
    assert_eq!((&last["key"], &last["label"], &last["flip"]), (&"n1/3.JPEG".into(), &1.into(), &true.into()));
    json(&["cache", "export", text(&cache), "--format", "npz", "--out", text(&out)]);
    let read: Value = serde_json::from_str(&python(folder, "import numpy", READ_NPZ).unwrap()).unwrap();
    assert_eq!(read["names"], serde_json::json!(["tokens", "tokens_flip"]));
    assert_eq!((&read["tokens"][1][2], &read["dtype"]), (&expected(6, 6).into(), &"int32".into()));
    assert_eq!(read["flip"][3][3], expected(7, 15));
    let nowhere = folder.join("nowhere");
    let message = fails(&["cache", "import", text(&folder.join("latents")), "--out", text(&nowhere)], 1);
    assert!(message.contains("latents of a VAE") && message.contains("0.JPEG.npz") && !nowhere.exists(), "{message}");
}

/// A dictionary of data sets, several files and several batches of rows; lists, lists of lists, and columns nobody needs.
const SAVED: &str = r#"
import datasets, numpy as np, shutil
row, i = np.meshgrid(np.arange(30), np.arange(16), indexing="ij")
codes = (row * 7919 + i * 104729) % 65536
def made(rows, tokens, kind, **more):
    features = datasets.Features({"caption": datasets.Sequence(datasets.Value("string")), "tokens": tokens,
                                  "size": {"height": datasets.Value("float32")}, "label": datasets.ClassLabel(names=["cat", "dog"]), **kind})
    lists = codes[rows] if more.get("flat", True) else codes[rows].reshape(-1, 4, 4)
    keys = {"key": [f"a/{r}.png" for r in rows]} if kind else {}
    return datasets.Dataset.from_dict({"caption": [["x"] * (r % 3) for r in rows], "tokens": lists.tolist(),
        "size": [{"height": float(r)} for r in rows], "label": [r % 2 if r % 5 else None for r in rows], **keys}, features=features)
lists = datasets.Sequence(datasets.Value("uint16"))
# A batch of 3 rows after the other, as map() leaves them.
train = made(range(20), lists, {}).map(lambda batch: batch, batched=True, batch_size=3, writer_batch_size=3)
datasets.DatasetDict({"train": train, "test": made(range(20, 30), lists, {})}).save_to_disk("dictionary", num_shards={"train": 3, "test": 1})
made(range(30), datasets.Array2D((4, 4), "int64"), {"key": datasets.Value("string")}, flat=False).save_to_disk("grids")
made(range(30), datasets.Sequence(datasets.Value("int32"), length=16), {}).save_to_disk("fixed")
made(range(30), datasets.LargeList(datasets.Value("int32")), {}).select(range(5, 30)).save_to_disk("cut")
shutil.copytree("fixed", "damaged")
"#;

#[test]
fn what_save_to_disk_writes_is_read() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    if python(folder, "import datasets, numpy", SAVED).is_none() {
        return;
    }
    let import = |name: &str| {
        let out = folder.join(format!("of-{name}"));
        json(&["cache", "import", text(&folder.join(name)), "--out", text(&out)]);
        json(&["cache", "verify", text(&out)]);
        out
    };
    let manifest = |cache: &Path| -> Value {
        serde_json::from_slice(&std::fs::read(cache.join("manifest.json")).unwrap()).unwrap()
    };
    for name in ["dictionary", "grids", "fixed"] {
        let cache = import(name);
        [0, 1, 2, 3, 19, 20, 29].into_iter().for_each(|row| is_as_written(&cache, row, 4));
        let label = |row: usize| json(&["cache", "show", text(&cache), "--index", &row.to_string()])["label"].clone();
        assert_eq!([label(1), label(22), label(25)], [1, 0, -1], "{name}");
        assert_eq!(manifest(&cache)["classes"], serde_json::json!(["cat", "dog"]));
    }
    let splits = manifest(&folder.join("of-dictionary"))["splits"].clone();
    assert_eq!(splits, serde_json::json!([{"name": "train", "images": [0, 20]}, {"name": "test", "images": [20, 30]}]));
    assert_eq!(json(&["cache", "show", text(&folder.join("of-grids")), "--index", "7"])["key"], "a/7.png");
    // Rows from the sixth on.
    let cut = import("cut");
    let expected: Vec<i64> = (0..4).map(|i| expected(5, i)).collect();
    assert_eq!(tokens_of(&cut, 0)[0], expected);

    let file = folder.join("damaged/data-00000-of-00001.arrow");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let nowhere = folder.join("nowhere");
    let message = fails(&["cache", "import", text(&folder.join("damaged")), "--out", text(&nowhere)], 1);
    assert!(message.contains("data-00000-of-00001.arrow") && message.contains("truncated"), "{message}");
    std::fs::remove_file(&file).unwrap();
    let message = fails(&["cache", "import", text(&folder.join("damaged")), "--out", text(&nowhere)], 1);
    assert!(message.contains("data-00000-of-00001.arrow") && !nowhere.exists(), "{message}");
}

/// Shards as `webdataset` reads them, and as the standard library does.
const READ_SHARDS: &str = r#"
import glob, json, tarfile
names = [member.name for path in sorted(glob.glob("out/*.tar")) for member in tarfile.open(path)]
print(json.dumps(names))
"#;

const READ_SAMPLES: &str = r#"
import glob, json, webdataset
data = webdataset.WebDataset(sorted(glob.glob("out/*.tar")), shardshuffle=False, empty_check=False).decode()
print(json.dumps([[s["__key__"], s["cls"], s["json"]["key"], s["json"]["view"], str(s["tokens.npy"].dtype), s["tokens.npy"].tolist()] for s in data]))
"#;

#[test]
fn exported_shards_are_read_by_others_and_give_the_same_cache() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    if python(folder, "import numpy", TEN_CROPS).is_none() {
        return;
    }
    let (cache, out, again) = (folder.join("cache"), folder.join("out"), folder.join("again"));
    json(&[
        "cache",
        "import",
        text(&folder.join("rar.jsonl")),
        "--views",
        "10",
        "--key-prefix",
        "a.b",
        "--out",
        text(&cache),
    ]);
    let export = ["cache", "export", text(&cache), "--format", "webdataset", "--shard-rows", "20", "--out", text(&out)];
    assert_eq!(json(&export)["files"].as_array().unwrap().len(), 3);
    let names: Vec<String> = serde_json::from_str(&python(folder, "import numpy", READ_SHARDS).unwrap()).unwrap();
    assert_eq!(names[..3], ["tokens.npy", "cls", "json"].map(|ending| format!("a%2Eb/00000000-v0.{ending}")));
    assert_eq!(names.len(), 150);
    json(&["cache", "import", text(&out), "--out", text(&again)]);
    let hash = |cache: &Path| json(&["cache", "info", text(cache)])["content_hash"].clone();
    assert_eq!(hash(&again), hash(&cache));
    if let Some(read) = python(folder, "import webdataset", READ_SAMPLES) {
        let samples: Vec<Value> = serde_json::from_str(&read).unwrap();
        assert_eq!(samples.len(), 50);
        let (last, row) = (&samples[49], 49);
        assert_eq!(last[0], "a%2Eb/00000004-v9");
        assert_eq!((&last[1], &last[2], &last[3]), (&1.into(), &"a.b/00000004".into(), &9.into()));
        assert_eq!((&last[4], &last[5][3][3]), (&"int32".into(), &expected(row, 15).into()));
    }
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
fn imported_tokens_have_the_tokenizer_that_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    let (cache, arrays) = (photographs(folder), folder.join("arrays"));
    json(&["cache", "export", text(&cache), "--out", text(&arrays)]);
    let tokens = arrays.join("tokens.npy");
    let import = |name: &str, more: &[&str]| {
        let out = folder.join(name);
        json(&[&["cache", "import", text(&tokens), "--grid", "16x16", "--out", text(&out)], more].concat());
        out
    };
    let info = |cache: &Path| json(&["cache", "info", text(cache)]);
    let made_by = info(&cache)["tokenizer"].clone();
    let hash = made_by["fingerprint"].as_str().unwrap();
    let unknown = import("unknown", &["--bits", "18"]);
    let message = fails(&["cache", "leak", text(&cache), text(&unknown)], 1);
    assert!(message.contains("unknown does not say which tokenizer") && message.contains(hash), "{message}");
    for (name, more, expected) in [
        ("by-cache", vec!["--like", text(&cache)], "tiny"),
        ("by-weights", vec!["--tokenizer", "tiny", "--device", "cpu"], "tiny"),
        ("by-hash", vec!["--tokenizer-hash", hash, "--bits", "18"], "imported"),
    ] {
        let imported = import(name, &more);
        let found = info(&imported);
        // The tokenizer says how wide its tokens are, whatever the largest one is.
        assert_eq!((&found["bits"], &found["tokenizer"]["fingerprint"]), (&18.into(), &hash.into()), "{name}");
        assert_eq!(found["tokenizer"]["name"], expected, "{name}");
        let found = json(&["cache", "leak", text(&cache), text(&imported), "--distance", "0"]);
        assert_eq!(found["rows"], found["rows_compared"], "{name}");
    }
    let nowhere = folder.join("nowhere");
    let import = ["cache", "import", text(&tokens), "--grid", "16x16", "--out", text(&nowhere)];
    let message = fails(&[&import[..], &["--like", text(&cache), "--bits", "17"]].concat(), 1);
    assert!(message.contains("18 bits") && message.contains("17"), "{message}");
    let message = fails(&[&import[..], &["--tokenizer-hash", "the tiny one"]].concat(), 2);
    assert!(message.contains("hexadecimal"), "{message}");
    assert!(!nowhere.exists());
}

#[test]
fn sets_with_the_same_keys_are_merged_under_names() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    let tokens = (0..6 * 16u32).flat_map(|i| (i * 40_503 % (1 << 18)).to_le_bytes()).collect::<Vec<_>>();
    std::fs::write(folder.join("tokens.bin"), tokens).unwrap();
    let cache = |name: &str, more: &[&str]| {
        let (tokens, out) = (folder.join("tokens.bin"), folder.join(name));
        let import = ["cache", "import", text(&tokens), "--dtype", "uint32", "--grid", "4x4", "--bits", "18"];
        json(&[&import[..], &["--out", text(&out)], more].concat());
        out
    };
    let (a, b, both) = (cache("a", &[]), cache("b", &[]), folder.join("both"));
    let message = fails(&["cache", "merge", text(&both), text(&a), text(&b)], 1);
    assert!(message.contains("00000000 is both in") && message.contains("--key-prefix NAME"), "{message}");
    let named = cache("named", &["--key-prefix", "second/"]);
    assert_eq!(json(&["cache", "show", text(&named), "--index", "5"])["key"], "second/00000005");
    assert_eq!(json(&["cache", "merge", text(&both), text(&a), text(&named)])["rows"], 12);
    json(&["cache", "verify", text(&both)]);
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

#[test]
fn what_is_not_there_or_of_no_use_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    let out = folder.join("out");
    let import = |input: &Path, code: i32| fails(&["cache", "import", text(input), "--out", text(&out)], code);
    for name in ["nothing", "nothing.tar", "nothing.npz", "nothing.arrow"] {
        let message = import(&folder.join(name), 1);
        assert!(message.contains(&format!("{name}: there is no such file or folder")), "{message}");
    }
    std::fs::create_dir(folder.join("empty")).unwrap();
    let message = import(&folder.join("empty"), 2);
    assert!(message.contains("empty: a folder of no known format") && message.contains("--format"), "{message}");
    let tokens = folder.join("tokens.bin");
    std::fs::write(&tokens, [1u8, 0, 0, 0].repeat(32)).unwrap();
    let cache = folder.join("cache");
    json(&[
        "cache",
        "import",
        text(&tokens),
        "--dtype",
        "uint32",
        "--grid",
        "4x4",
        "--bits",
        "18",
        "--out",
        text(&cache),
    ]);
    for flag in [["--dtype", "int64"], ["--bit-order", "low-first"], ["--shard-rows", "7"]] {
        let export = ["cache", "export", text(&cache), "--format", "jsonl", flag[0], flag[1], "--out", text(&out)];
        assert!(fails(&export, 2).contains(&format!("{} has no effect", flag[0])));
    }
    let message = fails(&["cache", "subset", text(&cache), "--classes", "0", "--out", text(&out)], 1);
    assert!(message.contains("selection is nothing") && !out.exists(), "{message}");
}
