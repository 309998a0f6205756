//! Sources from the command line: opened (until cancelled), and kept apart from output folders.

use super::listing::list;
use crate::exit::Usage;
use crate::signals::Stopped;
use std::path::Path;
use tokengrid_ingest::{IngestError, Source, SourceOptions, lies_in};

/// Opens a source and logs its warnings.
pub(crate) fn open_source(path: &Path, options: &SourceOptions) -> anyhow::Result<Source> {
    let source = match list(path, options) {
        Err(IngestError::Cancelled) => return Err(Stopped.into()),
        opened => opened?,
    };
    source.notes().iter().for_each(|note| tracing::warn!("{}: {note}", path.display()));
    Ok(source)
}

/// Refuses an output folder that is the source or lies in it: its files would be part of the source in the next run, as
/// images or as an empty class.
pub(crate) fn check_apart(out: &Path, source: &Path) -> anyhow::Result<()> {
    if source.is_dir() && lies_in(out, source) { Err(refusal(out, "the source")) } else { Ok(()) }
}

/// Refuses an output folder inside a folder that an opened source refers to elsewhere: by links to class folders, or by the
/// lines of a list.
pub(crate) fn check_apart_from_linked(out: &Path, source: &Source) -> anyhow::Result<()> {
    match source.linked_folder_around(out) {
        Some(folder) => Err(refusal(out, &format!("{}, which belongs to the source", folder.display()))),
        None => Ok(()),
    }
}

fn refusal(out: &Path, what: &str) -> anyhow::Error {
    Usage(format!("--out {} lies in {what}; give a folder elsewhere", out.display())).into()
}
