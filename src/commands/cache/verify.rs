//! `cache verify`: checks every checksum and count.

use crate::terminal::counted;
use crate::args::Global;
use crate::exit::CheckFailed;
use crate::terminal::{Meter, bytes, print_json};
use std::path::Path;

pub(super) fn verify(dir: &Path, global: &Global) -> anyhow::Result<()> {
    let mut meter = Meter::new(global, "MB");
    let report = tokengrid_cache::verify(dir, &mut |done, total| meter.update(done / 1_000_000, total.div_ceil(1_000_000), ""))?;
    drop(meter);
    if global.json {
        let mut object = serde_json::to_value(&report)?;
        object["ok"] = report.is_ok().into();
        print_json(&object)?;
    } else {
        report.problems.iter().for_each(|problem| println!("{problem}"));
        if report.is_ok() {
            println!("ok: {}, {}, every checksum holds", counted(report.rows, "row"), bytes(report.bytes));
        }
    }
    match report.problems.len() {
        0 => Ok(()),
        count => Err(CheckFailed(format!("{}: {} found", dir.display(), counted(count, "problem"))).into()),
    }
}
