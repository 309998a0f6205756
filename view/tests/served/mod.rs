//! Caches of every kind, and servers that show them.
#![allow(clippy::unwrap_used, dead_code, missing_docs)] // in a test, a panic is the report

use serde_json::json;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use tokengrid_cache::{
    CacheWriter, GridSpec, ImportOptions, JobSpec, MergeInput, OpenMode, Row, TokenizerInfo, import_npy, merge,
};
use tokengrid_view::{Decode, Decoder, Picture, Server, ViewConfig};

/// A server that answers until this is dropped.
pub(crate) struct Served {
    pub address: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    pub(crate) fn start(config: ViewConfig) -> Served {
        let server = Server::bind(ViewConfig { port: 0, ..config }).unwrap();
        let address: SocketAddr = server.address();
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || server.run(&flag));
        // A server at all addresses is asked at one of them.
        let address =
            if address.ip().is_unspecified() { format!("127.0.0.1:{}", address.port()) } else { address.to_string() };
        Served { address, stop, thread: Some(thread) }
    }

    pub(crate) fn of(dir: &Path) -> Served {
        Self::start(ViewConfig::new(dir.to_owned()))
    }

    /// With pictures.
    pub(crate) fn decoded(dir: &Path) -> Served {
        let decoder = Decoder { name: "stub".into(), fingerprint: "5a17".into(), decode: Box::new(Stub) };
        Self::start(ViewConfig { decoder: Some(decoder), ..ViewConfig::new(dir.to_owned()) })
    }

    /// Ends it, and waits for that.
    pub(crate) fn end(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.end();
    }
}

/// A decoder of grey pictures, which panics at the token 13.
pub(crate) struct Stub;

impl Decode for Stub {
    fn decode(&mut self, tokens: &[u32]) -> Picture {
        assert_ne!(tokens[0], 13, "token 13");
        Picture { width: 16, height: 16, rgb: vec![tokens[0] as u8; 16 * 16 * 3] }
    }
}

/// A cache that the writer makes: its images as (key, label); `None` for those in quarantine.
pub(crate) fn written(dir: &Path, images: &[Option<(&str, i32)>], change: impl FnOnce(&mut JobSpec)) -> PathBuf {
    let mut job = JobSpec::new(GridSpec { height: 4, width: 4, bits: 18 }, images.len(), 1);
    job.classes = ["cat", "catfish", "dog"].map(str::to_owned).to_vec();
    job.tokenizer = TokenizerInfo { fingerprint: "f00d".into(), name: "tiny".into(), ..Default::default() };
    job.recipe = json!({ "size": 64, "views": "center" });
    (job.rows_per_group, job.groups_per_shard) = (8, 2);
    change(&mut job);
    let mut writer = CacheWriter::open(dir, job, OpenMode::Resume).unwrap();
    for (image, entry) in images.iter().enumerate() {
        let Some((key, label)) = entry else {
            writer.quarantine(image, &format!("bad/{image}.jpg"), "decode", "no image").unwrap();
            continue;
        };
        let noise = |i: usize| ((image * 16 + i + 100) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let tokens: Vec<u32> = (0..16).map(|i| (noise(i) >> 40) as u32 & 0x3FFFF).collect();
        let row = Row { tokens: &tokens, label: *label, key, view: 0, crop_x: 0, crop_y: 0, flip: false };
        writer.push_image(image, &[row]).unwrap();
    }
    assert!(writer.finish().unwrap().published);
    dir.to_owned()
}

/// `count` images of three classes in turn, with keys that begin with `prefix`.
pub(crate) fn labelled(dir: &Path, prefix: &str, count: usize) -> PathBuf {
    let keys: Vec<String> = (0..count).map(|image| format!("{prefix}/{image}.jpg")).collect();
    let images: Vec<_> = keys.iter().enumerate().map(|(image, key)| Some((key.as_str(), image as i32 % 3))).collect();
    written(dir, &images, |_| {})
}

/// A cache of each kind, by its name.
pub(crate) fn every_kind(temp: &Path) -> Vec<(&'static str, PathBuf)> {
    let at = |name: &str| temp.join(name);
    let (train, val) = (labelled(&at("train"), "train", 20), labelled(&at("val"), "val", 5));
    merge(&at("merged"), &[MergeInput::new(&train), MergeInput::new(&val)], OpenMode::Resume).unwrap();
    let split = |dir: &Path, name: &str| MergeInput { dir: dir.to_owned(), split: Some(name.to_owned()) };
    merge(&at("split"), &[split(&train, "train"), split(&val, "val")], OpenMode::Resume).unwrap();
    vec![
        ("labelled", train),
        ("imported", imported(&at("imported"))),
        // `sample --cache-out` knows the tokenizer and no recipe.
        ("sampled", written(&at("sampled"), &[Some(("0", 2)), Some(("1", 2))], |job| job.recipe = json!(null))),
        ("merged", at("merged")),
        ("split", at("split")),
        ("one row", written(&at("one"), &[Some(("a.jpg", 0))], |_| {})),
        ("empty", written(&at("empty"), &[], |job| job.classes.clear())),
        ("unlabelled", written(&at("unlabelled"), &[Some(("a", -1)), Some(("b", -1))], |job| job.classes.clear())),
        ("quarantine only", written(&at("quarantine"), &[None, None], |_| {})),
    ]
}

/// A cache of an array of integers, with nothing else known.
fn imported(dir: &Path) -> PathBuf {
    let tokens: Vec<i32> = (0..5 * 16).map(|i| i * 997 % 5000).collect();
    let header = "{'descr': '<i4', 'fortran_order': False, 'shape': (5, 16), }";
    let padded = format!("{header:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((padded.len() as u16).to_le_bytes());
    bytes.extend(padded.as_bytes());
    bytes.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
    let file = dir.with_extension("npy");
    std::fs::write(&file, bytes).unwrap();
    let options = ImportOptions { grid: (4, 4), views: 1, ..ImportOptions::default() };
    import_npy(&file, None, None, &options, dir, OpenMode::Resume).unwrap();
    dir.to_owned()
}
