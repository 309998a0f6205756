//! `train ar` in several real processes: connection, results, and failures of a process.
//!
//! Deadlines are far above what a busy machine needs; no test measures a time.
#![allow(clippy::unwrap_used)] // in a test, a panic is the report
#![cfg(feature = "torch")]

mod common;
#[path = "common/ranks.rs"]
mod ranks;
#[path = "common/torchrun.rs"]
mod torchrun;

use common::{json, photos, text};
use ranks::{Ended, end, free_port, start, start_as, start_rank, wait_until};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tokengrid_model::Weights;
use tokengrid_test_support::skip_anywhere;
use torchrun::{start_torchrun, torchrun};

fn cache(folder: &Path) -> PathBuf {
    let out = folder.join("cache");
    let source = photos(folder, 3, 4);
    json(&["tokenize", text(&source), "--tokenizer", "tiny", "--size", "32", "--out", text(&out)]);
    out
}

/// A small model without dropout in the network, whose draws depend on how a step is cut. Class dropout stays: it does not.
fn arguments(cache: &Path, out: &Path, settings: &[&str]) -> Vec<String> {
    let model = ["preset=tiny", "dim=32", "n_head=2", "class_num=3", "block_size=16", "spatial_n_layer=2"];
    let rates = ["token_drop=0.0", "resid_dropout=0.0", "ffn_dropout=0.0", "class_dropout=0.2"];
    let fixed = ["train", "ar", "--cache", text(cache), "--out", text(out), "--threads", "1", "--device", "cpu"];
    let model = model.iter().chain(&rates).map(|key| format!("model.{key}"));
    let settings = model.chain(settings.iter().map(|setting| format!("train.{setting}")));
    let settings = settings.flat_map(|setting| ["--set".to_string(), setting]);
    fixed.iter().map(|word| word.to_string()).chain(settings).collect()
}

/// Trains in `world_size` processes to the end.
#[track_caller]
fn train(arguments: &[String], world_size: usize) -> Vec<Ended> {
    let ends: Vec<Ended> = start(arguments, world_size).into_iter().map(end).collect();
    assert!(ends.iter().all(|ended| ended.code == Some(0)), "{ends:#?}");
    ends
}

fn rows(run: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn values(run: &Path, key: &str) -> Vec<f64> {
    rows(run).iter().map(|row| row[key].as_f64().unwrap()).collect()
}

fn model(run: &Path) -> Weights {
    Weights::open(&run.join("checkpoints/latest/model.safetensors")).unwrap()
}

fn state(run: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(run.join("checkpoints/latest/state.json")).unwrap()).unwrap()
}

#[track_caller]
fn assert_equal_to_the_bit(a: &Path, b: &Path) {
    let (a, b) = (model(a), model(b));
    for name in a.names() {
        assert!(a.tensor(name).unwrap().equal(&b.tensor(name).unwrap()), "{name}");
    }
}

#[track_caller]
fn assert_same_run(a: &Path, b: &Path) {
    for key in ["step", "epoch", "lr"] {
        assert_eq!(values(a, key), values(b, key), "{key}");
    }
    for (a, b) in values(a, "train/loss").into_iter().zip(values(b, "train/loss")) {
        assert!((a - b).abs() <= 2e-5 * b, "{a} {b}");
    }
}

#[test]
fn two_and_four_processes_train_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path());
    let run = |name: &str, world_size: usize, settings: &[&str]| {
        let out = folder.path().join(name);
        let common = ["max_steps=6", "warmup_steps=2", "checkpoint_every=3"];
        let ends = train(&arguments(&cache, &out, &[&common[..], settings].concat()), world_size);
        assert!(ends[1..].iter().all(|ended| ended.stdout.is_empty()), "rank 0 speaks for all: {ends:#?}");
        out
    };
    let one = run("one", 1, &["batch_size=4", "grad_accum=2"]);
    let two = run("two", 2, &["batch_size=2", "grad_accum=2"]);
    assert_same_run(&one, &two);
    assert_same_run(&one, &run("four", 4, &["batch_size=2"]));
    assert_same_run(&one, &run("autograd", 2, &["batch_size=4", "fused=false"]));
    assert_eq!(state(&one)["position"], state(&two)["position"]);
    assert!(values(&one, "train/loss")[5] < values(&one, "train/loss")[0], "it learns");
    // Three processes do not divide a batch of eight.
    assert_same_run(&one, &run("three", 3, &["batch_size=3", "global_batch=8"]));
    // Shared moments: the same bits, and the same files.
    let sharded = run("sharded", 2, &["batch_size=2", "grad_accum=2", "shard_optimizer=true"]);
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let read = |run: &Path| std::fs::read(run.join("checkpoints/latest").join(file)).unwrap();
        assert!(read(&two) == read(&sharded), "{file}");
    }
    // Rounded gradients are near, and not the same.
    let rounded = run("rounded", 2, &["batch_size=4", "reduce_dtype=bf16"]);
    let [exact_loss, rounded_loss] = [&two, &rounded].map(|run| values(run, "train/loss")[5]);
    assert!((exact_loss - rounded_loss).abs() < 1e-3 * exact_loss, "{exact_loss} {rounded_loss}");
    let head = |run: &Path| model(run).tensor("head.0.weight").unwrap();
    assert!(!head(&two).equal(&head(&rounded)));
}

#[test]
fn one_two_and_four_processes_have_the_same_bits_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path());
    let run = |name: &str, world_size: usize, settings: &[&str]| {
        let out = folder.path().join(name);
        let common = ["max_steps=4", "warmup_steps=1", "deterministic_reduce=true"];
        let mut arguments = arguments(&cache, &out, &[&common[..], settings].concat());
        arguments.extend(["--set".to_string(), "model.resid_dropout=0.1".to_string()]);
        train(&arguments, world_size);
        out
    };
    let one = run("one", 1, &["batch_size=16"]);
    for (world_size, batch_size) in [(2, "batch_size=8"), (3, "batch_size=6"), (4, "batch_size=4")] {
        let other = run(&format!("run-{world_size}"), world_size, &[batch_size, "global_batch=16"]);
        assert_equal_to_the_bit(&one, &other);
        assert_eq!(values(&one, "train/loss"), values(&other, "train/loss"));
    }
    let accumulated = run("accumulated", 2, &["batch_size=4", "grad_accum=2"]);
    assert_equal_to_the_bit(&one, &accumulated);
}

#[test]
fn a_run_goes_on_with_any_number_of_processes() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path());
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    let settings = |steps: &'static str| [steps, "warmup_steps=2", "epochs=8", "peak_lr=1e-3", "wpe=1.0"];
    train(&arguments(&cache, &whole, &[&settings("max_steps=8")[..], &["batch_size=8"]].concat()), 1);
    let parted = [("max_steps=2", 8), ("max_steps=4", 3), ("max_steps=6", 2), ("max_steps=8", 1)];
    for (steps, world_size) in parted {
        train(&arguments(&cache, &parts, &[&settings(steps)[..], &["batch_size=1"]].concat()), world_size);
    }
    assert_same_run(&whole, &parts);
    assert_eq!(state(&parts)["global_batch"], 8);
}

#[test]
fn sigterm_on_one_rank_leads_to_a_checkpoint_of_all() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, run) = (cache(folder.path()), folder.path().join("run"));
    let arguments = arguments(&cache, &run, &["max_steps=1000000", "batch_size=2", "checkpoint_every=1000000"]);
    let children = start(&arguments, 2);
    wait_for_steps(&run, 3);
    signal(&children[1], libc::SIGTERM);
    let ends: Vec<Ended> = children.into_iter().map(end).collect();
    assert!(ends.iter().all(|ended| ended.code == Some(143)), "{ends:#?}");
    let step = state(&run)["step"].as_u64().unwrap();
    assert_eq!(values(&run, "step").last(), Some(&(step as f64)), "the last step is in the checkpoint");
}

/// Two tasks of a step of SLURM, as `srun` starts them in an allocation for four. Their first host is this one.
fn start_step(arguments: &[String], job: u64) -> Vec<Child> {
    let task = |rank: usize| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("tokengrid"));
        for name in ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE"] {
            command.env_remove(name);
        }
        let (rank, job) = (rank.to_string(), job.to_string());
        let of_task = [("PROCID", &*rank), ("LOCALID", &*rank), ("JOB_ID", &*job), ("NODEID", "0")];
        let of_step = [("STEP_ID", "0"), ("STEP_NUM_TASKS", "2"), ("STEP_TASKS_PER_NODE", "2")];
        let nodes =
            [("STEP_NODELIST", "127.0.0.[1-2,7],node[01-03]"), ("NTASKS", "4"), ("JOB_NODELIST", "node[01-03]")];
        for (name, value) in of_task.into_iter().chain(of_step).chain(nodes) {
            command.env(format!("SLURM_{name}"), value);
        }
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    (0..2).map(task).collect()
}

#[test]
fn a_step_of_slurm_that_is_preempted_leaves_a_checkpoint_and_goes_on_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, run) = (cache(folder.path()), folder.path().join("run"));
    let arguments = arguments(&cache, &run, &["max_steps=1000000", "batch_size=2", "checkpoint_every=1000000"]);
    // A job whose port is free.
    let is_free = |job: &u64| std::net::TcpListener::bind(("127.0.0.1", (20_000 + job * 31 % 10_000) as u16)).is_ok();
    let job = (u64::from(std::process::id())..).find(is_free).unwrap();
    let tasks = start_step(&arguments, job);
    wait_for_steps(&run, 3);
    // As `scancel --signal=TERM` and `#SBATCH --signal` do: to every task.
    tasks.iter().for_each(|task| signal(task, libc::SIGTERM));
    let ends: Vec<Ended> = tasks.into_iter().map(end).collect();
    assert!(ends.iter().all(|ended| ended.code == Some(143)), "{ends:#?}");
    let step = state(&run)["step"].as_u64().unwrap();
    assert!(step >= 3);
    let more = [&arguments[..], &["--set".into(), format!("train.max_steps={}", step + 2)]].concat();
    let ends: Vec<Ended> = start_step(&more, job).into_iter().map(end).collect();
    assert!(ends.iter().all(|ended| ended.code == Some(0)), "{ends:#?}");
    assert!(ends[1].stdout.is_empty(), "rank 0 speaks for all: {ends:#?}");
    let steps: Vec<f64> = (1..=step + 2).map(|step| step as f64).collect();
    assert_eq!(values(&run, "step"), steps, "every step once");
}

fn signal(child: &Child, number: i32) {
    // SAFETY: the process is a child that was not waited for yet.
    assert_eq!(unsafe { libc::kill(child.id() as i32, number) }, 0);
}

#[track_caller]
fn wait_for_steps(run: &Path, steps: usize) {
    let found = wait_until(|| (rows(run).len() >= steps).then_some(()));
    assert!(found.is_some(), "no {steps} steps in {}", run.display());
}

/// Two or more processes of which `victim` gets a signal in the middle of a run; how the others end.
fn lose(world_size: usize, victim: usize, number: i32) -> (tempfile::TempDir, PathBuf, Vec<String>, Vec<Ended>) {
    let folder = tempfile::tempdir().unwrap();
    let (cache, run) = (cache(folder.path()), folder.path().join("run"));
    let arguments = arguments(&cache, &run, &["max_steps=1000000", "batch_size=2", "checkpoint_every=2"]);
    let mut children = start(&arguments, world_size);
    wait_for_steps(&run, 5);
    let mut lost = children.remove(victim);
    signal(&lost, number);
    let ends = children.into_iter().map(end).collect();
    lost.kill().unwrap();
    lost.wait().unwrap();
    (folder, run, arguments, ends)
}

#[test]
fn a_killed_rank_is_named_by_all_others_and_the_run_goes_on_from_its_checkpoint() {
    for (world_size, victim) in [(2, 1), (3, 2), (3, 0)] {
        let (_folder, run, arguments, ends) = lose(world_size, victim, libc::SIGKILL);
        for ended in &ends {
            assert_eq!(ended.code, Some(1), "{ended:#?}");
            let named = format!("rank {victim}");
            assert!(ended.stderr.contains(&named) && ended.stderr.contains("is gone"), "{ended:#?}");
        }
        let step = state(&run)["step"].as_u64().unwrap();
        assert!(step >= 2 && step.is_multiple_of(2), "step {step}");
        let end = (step + 3).to_string();
        let more = [&arguments[..], &["--set".into(), format!("train.max_steps={end}")]].concat();
        train(&more, world_size);
        assert_eq!(state(&run)["step"], step + 3);
    }
}

#[test]
fn a_stopped_rank_is_named_by_all_others() {
    let (_folder, _, _, ends) = lose(3, 1, libc::SIGSTOP);
    for ended in &ends {
        assert_eq!(ended.code, Some(1), "{ended:#?}");
        assert!(ended.stderr.contains("rank 1 gave no sign of life for 8 s"), "{ended:#?}");
    }
    let (_folder, _, _, ends) = lose(2, 0, libc::SIGSTOP);
    let stderr = &ends[0].stderr;
    assert!(stderr.contains("rank 0, which holds the store, does not answer"), "{stderr}");
}

#[test]
fn a_rank_that_fails_by_itself_is_named_by_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, run) = (cache(folder.path()), folder.path().join("run"));
    std::fs::create_dir(&run).unwrap();
    std::fs::write(run.join("thesis.tex"), "not a run").unwrap();
    let ends: Vec<Ended> =
        start(&arguments(&cache, &run, &["max_steps=2", "batch_size=2"]), 2).into_iter().map(end).collect();
    assert!(ends.iter().all(|ended| ended.code == Some(1)), "{ends:#?}");
    assert!(ends[0].stderr.contains("holds no run"), "{ends:#?}");
    assert!(ends[1].stderr.contains("rank 0 is gone"), "{ends:#?}");
}

#[test]
fn ranks_that_were_started_differently_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, run) = (cache(folder.path()), folder.path().join("run"));
    let settings = |lr: &'static str| arguments(&cache, &run, &["max_steps=2", "batch_size=2", lr]);
    let port = free_port();
    let children =
        [("peak_lr=1e-3", 0), ("peak_lr=2e-3", 1)].map(|(lr, rank)| start_rank(&settings(lr), rank, 2, port));
    for ended in children.into_iter().map(end) {
        assert_eq!(ended.code, Some(1), "{ended:#?}");
        assert!(ended.stderr.contains("rank 1") && ended.stderr.contains("train.peak_lr is 0.002"), "{ended:#?}");
    }
    // Also a rank that rank 0 does not expect at all.
    for (rank, size) in [(1, 3), (3, 4)] {
        let port = free_port();
        let children =
            [(2, 0), (size, rank)].map(|(size, rank)| start_rank(&settings("peak_lr=1e-3"), rank, size, port));
        let message = format!("rank {rank} was started differently: the world size is {size} there and 2 on rank 0");
        for ended in children.into_iter().map(end) {
            assert!(ended.code == Some(1) && ended.stderr.contains(&message), "{ended:#?}");
        }
    }
    assert!(!run.exists(), "nothing is begun");
}

#[test]
fn a_rank_that_does_not_come_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, run) = (cache(folder.path()), folder.path().join("run"));
    let arguments = arguments(&cache, &run, &["max_steps=2", "batch_size=2", "timeout_secs=5"]);
    let port = free_port();
    let children = [0, 2].map(|rank| start_rank(&arguments, rank, 4, port));
    for ended in children.into_iter().map(end) {
        assert_eq!(ended.code, Some(1), "{ended:#?}");
        // On a very busy machine, a third process that starts too late for rank 0 reports that rank 0 did not arrive.
        assert!(ended.stderr.contains("of 4 did not arrive within 5 s"), "{ended:#?}");
    }
    assert!(!run.exists(), "nothing is begun");
}

#[test]
fn a_tokenizer_trains_in_two_processes() {
    let folder = tempfile::tempdir().unwrap();
    let (source, run) = (photos(folder.path(), 3, 4), folder.path().join("run"));
    let arguments = |steps: u32| -> Vec<String> {
        let max_steps = format!("train.max_steps={steps}");
        let settings =
            ["model.preset=tiny", "train.image_size=32", "train.batch_size=2", "train.log_every=1", &max_steps];
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        let fixed = ["train", "tokenizer", "--data", text(&source), "--val", text(&source), "--out", text(&run)];
        let fixed = fixed.into_iter().chain(["--threads", "1", "--device", "cpu"]);
        fixed.chain(settings).map(str::to_owned).collect()
    };
    train(&arguments(2), 2);
    train(&arguments(4), 2);
    assert_eq!(values(&run, "step"), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(state(&run)["position"], 16, "two crops of each process and step");
    assert!(values(&run, "train/reconstruct_loss").iter().all(|loss| loss.is_finite()));
    assert!(rows(&run)[3]["val/psnr"].is_number());
}

#[test]
fn torchrun_starts_a_run_and_restarts_it_from_its_checkpoint() {
    let Some(command) = torchrun() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (cache, run) = (cache(folder.path()), folder.path().join("run"));
    let settings = ["max_steps=1500", "batch_size=2", "checkpoint_every=5"];
    let torchrun = start_torchrun(command, 1, &arguments(&cache, &run, &settings));
    wait_for_steps(&run, 12);
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", torchrun.id())).unwrap();
    let victim: i32 = children.split_whitespace().next().unwrap().parse().unwrap();
    // SAFETY: a process that this test has had started.
    assert_eq!(unsafe { libc::kill(victim, libc::SIGKILL) }, 0);
    let ended = end(torchrun);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    assert_eq!(state(&run)["step"], 1500);
    let steps = values(&run, "step");
    assert_eq!(steps, (1..=1500).map(f64::from).collect::<Vec<_>>(), "each step is there once");
}

/// Two connected hosts, as network namespaces.
struct Hosts(String);

impl Hosts {
    const ADDRESSES: [&str; 2] = ["10.231.77.1", "10.231.77.2"];

    /// `None` where this user or system cannot have them.
    fn new(name: &str) -> Option<Hosts> {
        let hosts = Hosts(format!("{name}{}", std::process::id()));
        let [first, second] = [hosts.name(0), hosts.name(1)];
        let cable = format!("link add {first} netns {first} type veth peer name {second} netns {second}");
        let mut lines = vec![format!("netns add {first}"), format!("netns add {second}"), cable];
        for (host, address) in [first, second].iter().zip(Hosts::ADDRESSES) {
            lines.push(format!("-n {host} address add {address}/24 dev {host}"));
            lines.push(format!("-n {host} link set {host} up"));
            lines.push(format!("-n {host} link set lo up"));
        }
        match lines.iter().find(|line| !ip(line)) {
            None => Some(hosts),
            Some(line) => {
                skip_anywhere(&format!("no network namespaces here: `ip {line}` fails"));
                None
            }
        }
    }

    fn name(&self, host: usize) -> String {
        format!("{}{}", self.0, ["a", "b"][host])
    }

    /// One process on each host; they meet at the first.
    fn start(&self, arguments: &[String]) -> Vec<Child> {
        let start = |host: usize| {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &self.name(host)]).arg(assert_cmd::cargo::cargo_bin("tokengrid"));
            start_as(command, arguments, (host, 2), (Hosts::ADDRESSES[0], 29_500))
        };
        [0, 1].map(start).into_iter().collect()
    }

    fn cut_the_cable(&self) {
        let host = self.name(1);
        assert!(ip(&format!("-n {host} link set {host} down")));
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in [0, 1] {
            ip(&format!("netns del {}", self.name(host)));
        }
    }
}

fn ip(line: &str) -> bool {
    let output = Command::new("ip").args(line.split(' ')).output();
    output.is_ok_and(|output| output.status.success())
}

#[test]
fn two_hosts_train_together_until_the_cable_is_cut() {
    let Some(hosts) = Hosts::new("tg") else { return };
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path());
    let (one, two, cut) = (folder.path().join("one"), folder.path().join("two"), folder.path().join("cut"));
    train(&arguments(&cache, &one, &["max_steps=4", "batch_size=4"]), 1);
    let ends = hosts.start(&arguments(&cache, &two, &["max_steps=4", "batch_size=2"])).into_iter().map(end);
    let ends: Vec<Ended> = ends.collect();
    assert!(ends.iter().all(|ended| ended.code == Some(0)), "{ends:#?}");
    assert_same_run(&one, &two);
    let children = hosts.start(&arguments(&cache, &cut, &["max_steps=1000000", "batch_size=2", "checkpoint_every=2"]));
    wait_for_steps(&cut, 5);
    hosts.cut_the_cable();
    let ends: Vec<Ended> = children.into_iter().map(end).collect();
    assert!(ends.iter().all(|ended| ended.code == Some(1)), "{ends:#?}");
    assert!(ends[0].stderr.contains("rank 1 gave no sign of life"), "{ends:#?}");
    assert!(ends[1].stderr.contains("rank 0, which holds the store, does not answer"), "{ends:#?}");
    assert!(state(&cut)["step"].as_u64().unwrap() >= 2);
}
