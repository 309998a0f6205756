//! `tokengrid demo`: the whole pipeline on the built-in photographs, by running the commands that a user would type.

mod folder;
mod once;
mod photos;

use crate::args::{DemoArgs, Global};
use crate::exit::CheckFailed;
use crate::signals;
use crate::terminal::print_json;
use anyhow::Context;
use once::Measured;
use serde_json::json;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Configuration of the trained model.
const MODEL: &str = include_str!("model.toml");
/// A few photographs outside the training set, and some of the classes.
const RECONSTRUCTED: &[&str] = &[
    "unseen/colosseum.jpg",
    "unseen/sunset.jpg",
    "unseen/wren.jpg",
    "photos/n02123045/n02123045_0.JPEG",
    "photos/n07920052/n07920052_1.JPEG",
    "photos/n09818022/n09818022_0.JPEG",
    "photos/n02691156/n02691156_0.JPEG",
    "photos/n09193705/n09193705_0.JPEG",
];
/// The built-in tokenizer, and its image side in pixels.
const TOKENIZER: [&str; 2] = ["--tokenizer", "tiny"];
const SIZE: &str = "128";
/// Unlike the commands that it runs, the demo does not continue.
const STOPPED: &str = "stopped; run again, the demo starts from the beginning";
/// Interval of polling a running command and signals.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Runs the command.
pub(super) fn run(args: &DemoArgs, global: &Global) -> anyhow::Result<()> {
    let started = Instant::now();
    let demo = Demo { out: &args.out, global, program: std::env::current_exe().context("cannot find this program")? };
    folder::make_anew(&args.out)?;
    let views = demo.tokenize()?;
    demo.look()?;
    demo.reconstruct()?;
    let measured = demo.train(args.steps, views)?;
    demo.sample()?;
    demo.finish(&measured, started.elapsed())?;
    if !args.no_view && !global.json && std::io::stdout().is_terminal() && std::io::stdin().is_terminal() {
        demo.heading("The cache in a browser: open the address below; Ctrl-C ends it");
        let [cache, photos] = [demo.path("cache"), demo.path("photos")];
        let mut words: Vec<OsString> = vec!["view".into(), cache.into(), "--source".into(), photos.into()];
        words.extend(TOKENIZER.map(OsString::from));
        // Everything is made by now, and there is no other way to end the inspector.
        let ended = |error| match signals::cancelled() {
            true => anyhow::Error::new(signals::Stopped).context("the inspector has stopped"),
            false => error,
        };
        demo.step(words).map_err(ended)?;
    }
    Ok(())
}

/// The demo's folder and options.
struct Demo<'a> {
    out: &'a Path,
    global: &'a Global,
    program: PathBuf,
}

/// Seconds of the tokenizer, and number of its views.
struct Tokenized {
    seconds: f64,
    views: u64,
}

impl Demo<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.out.join(name)
    }

    fn tokenize(&self) -> anyhow::Result<Tokenized> {
        let (count, classes) = photos::counts();
        self.heading(&format!(
            "1/5  Tokenize {count} photographs of {classes} classes, once, with the tokenizer that is built in"
        ));
        photos::write(self.out)?;
        let [photos, cache] = [self.path("photos"), self.path("cache")];
        let mut words: Vec<OsString> = vec!["tokenize".into(), photos.into()];
        words.extend(TOKENIZER.map(OsString::from));
        words.extend(["--size".into(), SIZE.into(), "--out".into(), cache.clone().into()]);
        let seconds = self.step(words)?;
        Ok(Tokenized { seconds, views: tokengrid_cache::Manifest::read(&cache)?.rows as u64 })
    }

    fn look(&self) -> anyhow::Result<()> {
        self.heading("2/5  The cache: verified, and what is in it");
        self.step(["cache".into(), "verify".into(), self.path("cache").into()])?;
        self.step(["cache".into(), "info".into(), self.path("cache").into()])?;
        Ok(())
    }

    fn reconstruct(&self) -> anyhow::Result<()> {
        self.heading("3/5  Reconstruct: photograph of 128 x 128 pixels -> 256 tokens (576 bytes) -> picture");
        let mut words: Vec<OsString> = vec!["reconstruct".into()];
        words.extend(RECONSTRUCTED.iter().map(|path| self.path(path).into()));
        let folder = self.path("reconstructions");
        words.extend(TOKENIZER.map(OsString::from));
        words.extend(["--size".into(), SIZE.into(), "--out".into(), folder.clone().into()]);
        self.step(words)?;
        self.copy(&folder.join("reconstructions.png"), "reconstructions.png")
    }

    fn train(&self, steps: Option<u32>, tokenized: Tokenized) -> anyhow::Result<Measured> {
        self.heading("4/5  Train a small autoregressive model, straight from the cache");
        let [model, cache, run] = [self.path("model.toml"), self.path("cache"), self.path("run")];
        std::fs::write(&model, MODEL).with_context(|| format!("cannot write {}", model.display()))?;
        let mut words: Vec<OsString> = vec!["train".into(), "ar".into(), "--config".into(), model.into()];
        words.extend(["--cache".into(), cache.into(), "--out".into(), run.clone().into()]);
        if let Some(steps) = steps {
            words.extend(["--set".into(), format!("train.max_steps={steps}").into()]);
        }
        let train_seconds = self.step(words)?;
        self.step(["train".into(), "plot".into(), run.clone().into(), "--out".into(), self.path("loss.png").into()])?;
        let metrics = tokengrid_train::run::read_metrics(&run.join("metrics.jsonl"))?;
        let last = metrics.last().and_then(|row| row.get("epoch")?.as_f64()).unwrap_or_default();
        let views_read = (last * tokenized.views as f64).round() as u64;
        Ok(Measured { encode_seconds: tokenized.seconds, views: tokenized.views, train_seconds, views_read })
    }

    fn sample(&self) -> anyhow::Result<()> {
        self.heading(
            "5/5  Sample three pictures of every class, without guidance and with it, from the model that is built in: it was \
             trained on crops of these photographs",
        );
        for (name, guidance) in [("samples", "1,1"), ("samples-guided", "1.3,1.1")] {
            let folder = self.path(name);
            let words = format!(
                "sample --checkpoint tiny --tokenizer tiny --num-per-class 3 --batch-size 18 --seed 1 --temperature 0.5 \
                 --cfg-scale {guidance} --out"
            );
            self.step(words.split(' ').map(OsString::from).chain([folder.clone().into()]))?;
            self.copy(&folder.join("grid.png"), &format!("{name}.png"))?;
        }
        Ok(())
    }

    fn finish(&self, measured: &Measured, elapsed: Duration) -> anyhow::Result<()> {
        once::draw(measured, &self.path("once.png"))?;
        if self.global.json {
            return print_json(&json!({
                "out": self.out,
                "seconds": elapsed.as_secs_f64(),
                "encode_seconds": measured.encode_seconds,
                "views": measured.views,
                "train_seconds": measured.train_seconds,
                "views_read": measured.views_read,
                "pictures": PICTURES.map(|(name, _)| self.path(name)),
            }));
        }
        println!("\n== Done in {:.0} s. Look at", elapsed.as_secs_f64());
        for (name, what) in PICTURES {
            println!("   {:<36} {what}", self.path(name).display());
        }
        println!("\n   What next:");
        for line in NEXT {
            println!("   {line}");
        }
        Ok(())
    }

    fn heading(&self, text: &str) {
        if !self.global.json && !self.global.quiet {
            println!("\n== {text}");
        }
    }

    fn copy(&self, from: &Path, name: &str) -> anyhow::Result<()> {
        let to = self.path(name);
        std::fs::copy(from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        Ok(())
    }

    /// Prints a command as a user would type it and runs it. Returns its wall time in seconds.
    fn step(&self, words: impl IntoIterator<Item = OsString>) -> anyhow::Result<f64> {
        let words: Vec<OsString> = words.into_iter().collect();
        let typed = words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        if !self.global.json && !self.global.quiet {
            println!("$ tokengrid {typed}");
        }
        let mut command = Command::new(&self.program);
        command.args(&words).env(signals::PART, "demo");
        if let Some(threads) = self.global.threads {
            command.args(["--threads", &threads.to_string()]);
        }
        if let Some(memory) = self.global.memory {
            command.args(["--memory", &memory.to_string()]);
        }
        if self.global.quiet {
            command.arg("--quiet");
        }
        if self.global.json {
            command.stdout(Stdio::null());
        }
        let started = Instant::now();
        let mut child = command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        let status = wait(&mut child)?;
        if signals::cancelled() {
            return Err(anyhow::Error::new(signals::Stopped).context(STOPPED));
        }
        if !status.success() {
            return Err(CheckFailed(format!("`tokengrid {typed}` failed ({status})")).into());
        }
        Ok(started.elapsed().as_secs_f64())
    }
}

/// Waits for a command; a signal that reaches only this program is passed on.
fn wait(child: &mut Child) -> anyhow::Result<ExitStatus> {
    let mut is_told = false;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a command")? {
            return Ok(status);
        }
        if signals::cancelled() && !is_told {
            is_told = true;
            // SAFETY: the process is a child that has not been waited for, so the number is its own.
            unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

const PICTURES: [(&str, &str); 5] = [
    ("reconstructions.png", "pairs: what the tokenizer saw, what its tokens say"),
    ("loss.png", "the loss of the autoregressive model"),
    ("once.png", "what it saved to encode the data set once"),
    ("samples.png", "three pictures of every class, made up by the model"),
    ("samples-guided.png", "the same with classifier-free guidance"),
];

const NEXT: [&str; 4] = [
    "tokengrid ingest YOUR_IMAGES                        is the data set sound?",
    "tokengrid tokenize YOUR_IMAGES --tokenizer imagenet_256_L.ckpt --out cache",
    "tokengrid train ar --set model.preset=B --cache cache --out runs/B",
    "tokengrid --help",
];
