//! `tokengrid eval samples`: quality of generated pictures.

use super::among::Among;
use super::{cut, print_absent, print_bad, show};
use crate::args::{EvalSamplesArgs, Global, ProtocolArg};
use crate::commands::ingest;
use crate::exit::CheckFailed;
use crate::terminal::{Meter, counted, print_json, seconds};
use crate::torch::model;
use crate::{files, signals};
use serde::Serialize;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Instant;
use tokengrid_eval::progress::{BadImage, Watch};
use tokengrid_eval::samples::{Compared, Measured, ReadOptions, SamplesJob, Side};
use tokengrid_eval::statistics::Saved;
use tokengrid_eval::{Inception, Protocol};
use tokengrid_ingest::{BadPolicy, Limits};
use tokengrid_train::process_group::Fact;

/// Whether an .npz file was made by this program, according to the archive's comment.
fn is_own_npz(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let (mut start, mut end) = ([0; 2], [0; files::MADE_BY.len()]);
    let has_both = file.read_exact(&mut start).is_ok()
        && file.seek(SeekFrom::End(-(end.len() as i64))).is_ok()
        && file.read_exact(&mut end).is_ok();
    Ok(has_both && start == *b"PK" && end == *files::MADE_BY.as_bytes())
}

/// With fewer pictures the covariance of 2,048 features is singular, and the FID much too high.
const ENOUGH_IMAGES: usize = 2048;

/// The report.
#[derive(Serialize)]
struct Answer<'a> {
    fid: Option<f64>,
    sfid: Option<f64>,
    inception_score: Option<f64>,
    inception_score_std: Option<f64>,
    splits: Option<usize>,
    precision: Option<f64>,
    recall: Option<f64>,
    images: usize,
    reference_images: Option<usize>,
    bad: Vec<&'a BadImage>,
    protocol: Protocol,
    seconds: f64,
}

/// Runs the command.
pub(super) fn run(args: &EvalSamplesArgs, global: &Global) -> anyhow::Result<()> {
    if let Some(path) = &args.save_stats {
        files::check_target(path, is_own_npz)?;
    }
    let started = Instant::now();
    let runtime = model::runtime(&args.device, global)?;
    let options = ReadOptions {
        cut: cut(args.size),
        limit: args.limit,
        threads: global.threads.unwrap_or(0).into(),
        limits: Limits::default(),
    };
    // Both inputs are checked before the first picture: a wrong name should fail at once, not after hours.
    let a = Side::open(&args.a, &options)?;
    let b = args.b.as_deref().map(|path| Side::open(path, &options)).transpose()?;
    let inception = Inception::open(&args.inception, runtime)?;
    let among = Among::join(&args.among, || Ok(facts(args, &a, b.as_ref())))?;
    let global = &among.speaker(global);
    let job = SamplesJob {
        inception: &inception,
        protocol: protocol(args.protocol),
        batch_size: args.batch_size as usize,
        splits: args.splits,
        precision_recall: args.precision_recall && b.is_some(),
        bad_policy: ingest::bad_policy(&args.bad, BadPolicy::default()),
        peers: &among,
    };
    let generated = measure(&job, a, true, global)?;
    if !among.0.is_first() {
        b.map(|side| measure(&job, side, false, global)).transpose()?;
        return Ok(among.0.finish()?);
    }
    if generated.images == 0 && generated.pool3.is_none() {
        return Err(CheckFailed(format!("{} has no picture that can be used", args.a.display())).into());
    }
    if let Some(path) = &args.save_stats {
        save(path, &generated)?;
    }
    let reference = b.map(|side| measure(&job, side, false, global)).transpose()?;
    among.0.finish()?;
    let compared = match &reference {
        Some(reference) => job.compare(&generated, reference)?,
        None => Compared { absent: vec![("fid", "it needs a second set, B".into())], ..Compared::default() },
    };
    print_absent(&compared.absent, global);
    warn_of_few(&generated, global);
    let answer = answer(&generated, reference.as_ref(), &compared, job.protocol, started.elapsed().as_secs_f64());
    if global.json {
        return print_json(&answer);
    }
    print(&answer);
    print_bad(&answer.bad.iter().map(|&image| image.clone()).collect::<Vec<_>>());
    Ok(())
}

/// Values that must be equal in all processes that share an evaluation.
fn facts(args: &EvalSamplesArgs, a: &Side, b: Option<&Side>) -> Vec<Fact> {
    let settings = (args.protocol, args.batch_size, args.splits, args.precision_recall);
    vec![
        Fact::new("A", a.describe()),
        Fact::new("B", b.map_or("none".into(), Side::describe)),
        Fact::new("the setting of --protocol, --batch-size, --splits and --precision-recall", format!("{settings:?}")),
    ]
}

fn protocol(typed: ProtocolArg) -> Protocol {
    match typed {
        ProtocolArg::PytorchFid => Protocol::PytorchFid,
        ProtocolArg::Adm => Protocol::Adm,
    }
}

fn measure(job: &SamplesJob, side: Side, want_score: bool, global: &Global) -> anyhow::Result<Measured> {
    let mut meter = Meter::new(global, "pictures");
    let mut watch = Watch { cancel: signals::flag(), progress: &mut show(&mut meter) };
    Ok(job.measure(side, want_score, &mut watch)?)
}

fn save(path: &std::path::Path, measured: &Measured) -> anyhow::Result<()> {
    let Some(pool3) = &measured.pool3 else {
        return Err(CheckFailed("one picture has no statistics to save; at least two are needed".into()).into());
    };
    Ok(Saved::write(path, pool3, measured.spatial.as_ref())?)
}

fn warn_of_few(measured: &Measured, global: &Global) {
    if (2..ENOUGH_IMAGES).contains(&measured.images) && !global.quiet {
        eprintln!(
            "{} pictures are few: the FID is far above that of many ({ENOUGH_IMAGES} are the least, 50,000 usual)",
            measured.images
        );
    }
}

fn answer<'a>(
    generated: &'a Measured,
    reference: Option<&'a Measured>,
    compared: &Compared,
    protocol: Protocol,
    seconds: f64,
) -> Answer<'a> {
    Answer {
        fid: compared.fid,
        sfid: compared.sfid,
        inception_score: generated.score.map(|score| score.mean),
        inception_score_std: generated.score.map(|score| score.std),
        splits: generated.score.map(|score| score.splits),
        precision: compared.manifold.map(|manifold| manifold.precision),
        recall: compared.manifold.map(|manifold| manifold.recall),
        images: generated.images,
        // Statistics do not record their number of pictures.
        reference_images: reference.map(|reference| reference.images).filter(|&images| images > 0),
        bad: generated.bad.iter().chain(reference.into_iter().flat_map(|reference| &reference.bad)).collect(),
        protocol,
        seconds,
    }
}

fn print(answer: &Answer) {
    let figures = [
        ("FID", answer.fid),
        ("sFID", answer.sfid),
        ("inception score", answer.inception_score),
        ("  its std", answer.inception_score_std),
        ("precision", answer.precision),
        ("recall", answer.recall),
    ];
    for (name, value) in figures {
        if let Some(value) = value {
            println!("{name:<16} {value:.4}");
        }
    }
    println!("{}, {}", counted(answer.images, "picture"), seconds(answer.seconds));
}
