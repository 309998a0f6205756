//! The Python package: made as by `make wheel`, installed in a separate environment, and tested there (python/tests).
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;

use common::{repository, text};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tokengrid_cache::{Batch, Loader, LoaderConfig, TokenCache, write_synthetic_cache};
use tokengrid_test_support::buckets::{Kind, ObjectServer};

/// Packages that the tests import besides numpy.
const PACKAGES: &[&str] = &["pytest", "pyarrow", "polars", "duckdb", "datasets"];

/// Packages that ask for PyTorch.
const TRAINERS: &[&str] = &["lightning", "accelerate"];

/// Runs a command; what it said where it failed.
fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {said}")) }
}

fn pip(environment: &Path, arguments: &[&str]) -> Result<(), String> {
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    run(Command::new(environment.join("bin/python")).args(install).args(arguments))
}

/// The folder `target`.
fn target() -> PathBuf {
    let program = assert_cmd::cargo::cargo_bin("tokengrid");
    program.ancestors().nth(2).unwrap().to_owned()
}

/// The packages, made of the programs that these tests run.
fn wheels(out: &Path) -> Result<Vec<PathBuf>, String> {
    let script = repository("scripts/wheel.py");
    let mut command = Command::new("python3");
    run(command.args(["-B", text(&script), "--out", text(out)]).current_dir(repository(".")))?;
    Ok(common::sorted(out).into_iter().filter(|path| path.extension().is_some_and(|end| end == "whl")).collect())
}

/// An environment with the package, those of its tests, and PyTorch if available.
fn environment(wheels: &[PathBuf], torch: Option<&Path>) -> Result<PathBuf, String> {
    let folder = target().join("python-env");
    if !folder.join("bin/python").exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    }
    let packages = glob(&folder.join("lib"), "python3").join("site-packages");
    let beside = packages.join("torch-env.pth");
    match torch {
        Some(torch) => {
            let theirs = glob(&torch.join("lib"), "python3").join("site-packages");
            std::fs::write(beside, format!("{}\n", theirs.display())).unwrap();
            pip(&folder, &["--no-deps", "torchdata"])?;
            pip(&folder, TRAINERS)?;
        }
        None => drop(std::fs::remove_file(beside)),
    }
    pip(&folder, PACKAGES)?;
    // The second package asks for PyTorch, which is elsewhere.
    let files: Vec<&str> = wheels.iter().map(|wheel| text(wheel)).collect();
    pip(&folder, &["numpy"])?;
    pip(&folder, &[&["--no-deps", "--force-reinstall"], &files[..]].concat())?;
    Ok(folder)
}

/// Builds the source distribution as pip does where there is no wheel, and reads a cache with what it gives.
fn source_distribution_reads(dist: &Path, cache: &Path) -> Result<(), String> {
    let tools = target().join("wheel-env/bin");
    // Below the repository, where the flags are those of the other builds: only crates of the workspace are compiled again.
    let folder = target().join("wheel/sources");
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir_all(&folder).unwrap();
    let archive =
        common::sorted(dist).into_iter().find(|path| path.extension().is_some_and(|end| end == "gz")).unwrap();
    run(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(&folder))?;
    let sources = glob(&folder, "tokengrid-");
    let built = folder.join("built");
    let mut pip = Command::new(tools.join("python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(tools.clone()).chain(std::env::split_paths(&path))).unwrap();
    pip.env("PATH", path).env("CARGO_TARGET_DIR", target()).env("CARGO_NET_OFFLINE", "true");
    run(pip.arg("--target").arg(&built).arg(sources))?;
    let script = "import sys, tokengrid; assert tokengrid.TokenCache(sys.argv[1]).verify() and sys.argv[2] in tokengrid.__file__";
    let mut python = Command::new(target().join("python-env/bin/python"));
    run(python.args(["-B", "-c", script]).arg(cache).arg(&built).env("PYTHONPATH", &built))
}

fn glob(folder: &Path, start: &str) -> PathBuf {
    let begins = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(start);
    common::sorted(folder).into_iter().find(begins).unwrap()
}

/// What the loader of Rust takes from a cache: whole epochs, ranks, positions in the middle.
fn stream(folder: &Path) -> PathBuf {
    let dir = folder.join("cache");
    write_synthetic_cache(&dir, 37, 3).unwrap();
    let cache = Arc::new(TokenCache::open(&dir).unwrap());
    let case = |seed, batch_size, rank, world_size, position| -> Value {
        let config = LoaderConfig { seed, batch_size, rank, world_size };
        let mut loader = Loader::new(Arc::clone(&cache), config).unwrap();
        loader.seek(position);
        let mut batches = vec![Batch::default(); 5];
        batches.iter_mut().for_each(|batch| loader.next_batch(batch));
        let [rows, labels, tokens] = [
            json!(batches.iter().map(|batch| &batch.rows).collect::<Vec<_>>()),
            json!(batches.iter().map(|batch| &batch.labels).collect::<Vec<_>>()),
            json!(batches.iter().map(|batch| &batch.tokens).collect::<Vec<_>>()),
        ];
        json!({
            "seed": seed, "batch_size": batch_size, "rank": rank, "world_size": world_size, "position": position,
            "rows": rows, "labels": labels, "tokens": tokens,
        })
    };
    let streams = [case(0, 8, 0, 1, 0), case(7, 20, 0, 1, 0), case(7, 5, 3, 4, 60), case(u64::MAX, 3, 1, 2, 1_000_003)];
    let file = folder.join("stream.json");
    std::fs::write(&file, json!({ "cache": dir, "streams": streams }).to_string()).unwrap();
    file
}

#[test]
fn the_package_passes_its_tests() {
    let folder = tempfile::tempdir().unwrap();
    let python = Command::new("python3").args(["-c", "import sys, venv; assert sys.version_info >= (3, 10)"]).output();
    if !python.is_ok_and(|output| output.status.success()) {
        return tokengrid_test_support::skip("python3 is no Python 3.10 or newer with venv");
    }
    let torch = tokengrid_test_support::torch_environment();
    let dist = folder.path().join("dist");
    let made = wheels(&dist).and_then(|wheels| environment(&wheels, torch.as_deref()));
    let environment = match made {
        Ok(environment) => environment,
        // Without a network, for one.
        Err(said) => return tokengrid_test_support::skip(&said),
    };
    let tests = repository("python/tests");
    let mut pytest = Command::new(environment.join("bin/python"));
    pytest.args(["-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-ra", text(&tests)]);
    pytest.env("TOKENGRID_STREAM", stream(folder.path())).current_dir(folder.path());
    for name in ["RANK", "WORLD_SIZE", "LD_LIBRARY_PATH", "PYTHONPATH"] {
        pytest.env_remove(name);
    }
    // Where there is none, the reason is noted.
    let server = ObjectServer::start(Kind::Moto);
    if let Some(server) = &server {
        pytest.env("TOKENGRID_BUCKET", "s3://bucket").envs(server.variables(server.address()));
    }
    let output = pytest.output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    println!("{report}");
    assert!(output.status.success(), "{report}{}", String::from_utf8_lossy(&output.stderr));
    if torch.is_some() && server.is_some() {
        assert!(!report.contains(" skipped"), "{report}");
    }
    source_distribution_reads(&dist, &folder.path().join("cache")).unwrap();
}
