//! Sources as they are typed: opened until the program is to stop, and kept apart from outputs.

use crate::exit::Usage;
use crate::signals::{self, Stopped};
use std::path::Path;
use tokengrid_ingest::{IngestError, Source, SourceOptions, lies_in};

/// Opens a source and logs what may not be as it was meant.
pub(crate) fn open_source(path: &Path, options: &SourceOptions) -> anyhow::Result<Source> {
    let source = match Source::open_until(path, options, signals::flag()) {
        Err(IngestError::Cancelled) => return Err(Stopped.into()),
        opened => opened?,
    };
    source.notes().iter().for_each(|note| tracing::warn!("{}: {note}", path.display()));
    Ok(source)
}

/// Refuses an output folder that is the source, or lies in it: what is written would belong to the source the next time, as
/// images or as a class without any.
pub(crate) fn check_apart(out: &Path, source: &Path) -> anyhow::Result<()> {
    if source.is_dir() && lies_in(out, source) { Err(refusal(out, "the source")) } else { Ok(()) }
}

/// Refuses an output folder in a folder that belongs to an opened source without lying in it: links of class folders lead
/// elsewhere, and so do the lines of a list.
pub(crate) fn check_apart_from_linked(out: &Path, source: &Source) -> anyhow::Result<()> {
    match source.linked_folder_around(out) {
        Some(folder) => Err(refusal(out, &format!("{}, which belongs to the source", folder.display()))),
        None => Ok(()),
    }
}

fn refusal(out: &Path, what: &str) -> anyhow::Error {
    Usage(format!("--out {} lies in {what}; give a folder elsewhere", out.display())).into()
}
