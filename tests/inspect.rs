//! The commands that inspect caches: their findings, plots and tables.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;

use common::{fails, json, photos, text, tokengrid};

#[test]
fn rows_classes_differences_and_pictures() {
    let temp = tempfile::tempdir().unwrap();
    let source = photos(temp.path(), 3, 4);
    let (cache, smaller) = (temp.path().join("cache"), temp.path().join("smaller"));
    let tokenize = |source: &std::path::Path, out| {
        let fixed = ["tokenize", text(source), "--tokenizer", "tiny", "--size", "32", "--views", "center+flip"];
        json(&[&fixed[..], &["--out", text(out)]].concat());
    };
    tokenize(&source, &cache);

    let head = json(&["cache", "head", text(&cache), "-n", "3"]);
    assert_eq!(head["rows"].as_array().unwrap().len(), 3);
    assert_eq!(head["rows"][1], {
        let mut row = json(&["cache", "show", text(&cache), "--index", "1"]);
        row.as_object_mut().unwrap().remove("tokens");
        row
    });

    let name = head["rows"][0]["class"].as_str().unwrap().to_owned();
    let found = json(&["cache", "find", text(&cache), "--class", &name, "--view", "1", "--limit", "2"]);
    assert_eq!((&found["found"], found["rows"].as_array().unwrap().len()), (&4.into(), 2));
    let by_key = json(&["cache", "find", text(&cache), "--class", "0", "--key", "_1.JPEG"]);
    assert_eq!((&by_key["found"], &by_key["rows"][0]["index"]), (&2.into(), &2.into()));
    assert_eq!(json(&["cache", "find", text(&cache), "--class", "-1"])["found"], 0);
    let message = fails(&["cache", "find", text(&cache), "--class", "unicorn"], 2);
    assert!(message.contains("unicorn") && message.contains("3 are listed"), "{message}");

    // Counted once, and kept; pictures on request.
    let stats = json(&["cache", "stats", text(&cache)]);
    assert!(cache.join("inspect.json").is_file());
    assert_eq!(json(&["cache", "stats", text(&cache)])["code_histogram"], stats["code_histogram"]);
    assert_eq!(stats["label_conflicts"]["compared"], 12);
    let plot = temp.path().join("classes.png");
    let classes = json(&["cache", "classes", text(&cache), "--sort", "entropy", "--plot", text(&plot)]);
    let entropies: Vec<f64> =
        classes["classes"].as_array().unwrap().iter().map(|c| c["code_entropy_bits"].as_f64().unwrap()).collect();
    assert!(entropies.len() == 3 && entropies.is_sorted(), "{entropies:?}");
    assert!(std::fs::read(&plot).unwrap().starts_with(b"\x89PNG"));

    json(&["cache", "subset", text(&cache), "--out", text(&smaller), "--limit", "5"]);
    assert_eq!(json(&["cache", "diff", text(&cache), text(&cache)])["same"], true);
    let output = tokengrid().args(["cache", "diff", text(&cache), text(&smaller), "--json"]).output().unwrap();
    let diff: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &diff["same"], &diff["common_rows"]), (Some(1), &false.into(), &10.into()));
    assert_eq!(
        (&diff["only_in"][0], &diff["tokens_differ"], &diff["labels_differ"]),
        (&14.into(), &0.into(), &0.into())
    );

    for how in ["--image", "--image=auto", "--image=blocks"] {
        let output = tokengrid().args(["cache", "show", text(&cache), "--tokenizer", "tiny", how]).output().unwrap();
        let shown = String::from_utf8(output.stdout).unwrap();
        assert!(shown.starts_with("row 0: ") && shown.contains("\n\x1b[38;2;"), "{how}: {}", &shown[..80]);
    }
    let message = fails(&["cache", "show", text(&cache), "--tokenizer", "tiny", "--image=kitty"], 2);
    assert!(message.contains("removed") && message.contains("half blocks"), "{message}");
    let message = fails(&["cache", "show", text(&cache), "--image"], 2);
    assert!(message.contains("--tokenizer"), "{message}");
}
