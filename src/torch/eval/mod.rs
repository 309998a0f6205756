//! `tokengrid eval ...`.

mod among;
mod ar;
mod features;
mod reconstruction;
mod samples;

use crate::args::{EvalCommand, Global, SizeArg};
use crate::terminal::{Meter, counted};
use tokengrid_eval::pictures::Cut;
use tokengrid_eval::progress::{BadImage, Progress};

/// Most bad images that are listed in the printed report; `--json` has all.
const NAMED_BAD: usize = 10;

/// Runs the command.
pub(super) fn run(command: &EvalCommand, global: &Global) -> anyhow::Result<()> {
    match command {
        EvalCommand::Reconstruction(args) => reconstruction::run(args, global),
        EvalCommand::Samples(args) => samples::run(args, global),
        EvalCommand::Features { a, b } => features::run(a, b, global),
        EvalCommand::Ar(args) => ar::run(args, global),
    }
}

fn cut(size: SizeArg) -> Cut {
    match size {
        SizeArg::Original => Cut::Whole,
        SizeArg::Pixels(pixels) => Cut::Center(pixels),
    }
}

/// Prints on stderr which metrics are missing, and why.
fn print_absent(absent: &[(&'static str, String)], global: &Global) {
    if !global.quiet {
        absent.iter().for_each(|(figure, why)| eprintln!("no {figure}: {why}"));
    }
}

/// Prints the first bad images.
fn print_bad(bad: &[BadImage]) {
    if bad.is_empty() {
        return;
    }
    println!("{} could not be used:", counted(bad.len(), "image"));
    bad.iter().take(NAMED_BAD).for_each(|image| println!("  {}: {}", image.key, image.reason));
    if bad.len() > NAMED_BAD {
        println!("  and {} more; --json names all", bad.len() - NAMED_BAD);
    }
}

/// Callback that shows the progress of an evaluation.
fn show(meter: &mut Meter) -> impl FnMut(&Progress) + '_ {
    |progress| meter.update(progress.done as u64, progress.total as u64, &format!("{} bad", progress.bad))
}
