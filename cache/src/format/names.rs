//! The names of the files in a cache's folder.

use crate::error::CacheError;
use crate::files::small::list_names;
use std::path::{Path, PathBuf};

/// Name of the manifest in a cache's folder.
pub const MANIFEST_FILE: &str = "manifest.json";

/// Name of the list of quarantined inputs in a cache's folder.
pub(crate) const QUARANTINE_FILE: &str = "quarantine.jsonl";

/// Marks an unfinished job and says which; removed when the manifest is there.
const JOB_FILE: &str = ".job.json";

/// Held while the job file or the manifest is read and written.
const FOLDER_LOCK: &str = ".lock";

/// A file of ours, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Manifest,
    Quarantine,
    Job,
    FolderLock,
    RankLock(u32),
    Done(u32),
    /// A finished shard of a rank, by number.
    Shard(u32, u32),
    /// A finished row group of a rank that no shard contains yet, by its first image.
    Part(u32, usize),
    /// A file that was being written when its process died; `None`: by the publisher.
    Temp(Option<u32>),
    /// In a bucket: who writes for a rank.
    Lease(u32),
    /// In a bucket: written and removed by a process to learn what the store can do.
    Probe(u32),
}

/// Rank and number of `shard-<rank>-<number>.parquet` (at least five digits each, written one way only).
pub(crate) fn parse_shard_name(name: &str) -> Option<(u32, u32)> {
    match parse_name(name)? {
        Name::Shard(rank, number) => Some((rank, number)),
        _ => None,
    }
}

pub(crate) fn parse_name(name: &str) -> Option<Name> {
    match name {
        MANIFEST_FILE => return Some(Name::Manifest),
        QUARANTINE_FILE => return Some(Name::Quarantine),
        JOB_FILE => return Some(Name::Job),
        FOLDER_LOCK => return Some(Name::FolderLock),
        ".tmp-publish" => return Some(Name::Temp(None)),
        _ => {}
    }
    let number = |digits: &str| digits.parse::<u32>().ok();
    let pair = |text: &str| {
        let (rank, number_of) = text.split_once('-')?;
        Some((number(rank)?, number(number_of)?))
    };
    let found = if let Some(rest) = name.strip_prefix("shard-") {
        let (rank, number) = pair(rest.strip_suffix(".parquet")?)?;
        Name::Shard(rank, number)
    } else if let Some(rest) = name.strip_prefix(".part-") {
        let (rank, image) = rest.split_once('-')?;
        Name::Part(number(rank)?, image.parse().ok()?)
    } else if let Some(rest) = name.strip_prefix(".done-") {
        Name::Done(number(rest.strip_suffix(".json")?)?)
    } else if let Some(rest) = name.strip_prefix(".lock-") {
        Name::RankLock(number(rest)?)
    } else if let Some(rest) = name.strip_prefix(".lease-") {
        Name::Lease(number(rest.strip_suffix(".json")?)?)
    } else if let Some(rest) = name.strip_prefix(".probe-") {
        Name::Probe(number(rest)?)
    } else {
        Name::Temp(Some(number(name.strip_prefix(".tmp-")?)?))
    };
    // `+1`, or `1` for `00001`, are not names that we write.
    (found.to_text() == name).then_some(found)
}

impl Name {
    pub(crate) fn to_text(self) -> String {
        match self {
            Name::Manifest => MANIFEST_FILE.to_owned(),
            Name::Quarantine => QUARANTINE_FILE.to_owned(),
            Name::Job => JOB_FILE.to_owned(),
            Name::FolderLock => FOLDER_LOCK.to_owned(),
            Name::RankLock(rank) => format!(".lock-{rank:05}"),
            Name::Done(rank) => format!(".done-{rank:05}.json"),
            Name::Shard(rank, number) => format!("shard-{rank:05}-{number:05}.parquet"),
            Name::Part(rank, image) => format!(".part-{rank:05}-{image:010}"),
            Name::Temp(Some(rank)) => format!(".tmp-{rank:05}"),
            Name::Temp(None) => ".tmp-publish".to_owned(),
            Name::Lease(rank) => format!(".lease-{rank:05}.json"),
            Name::Probe(process) => format!(".probe-{process:05}"),
        }
    }

    pub(crate) fn path(self, dir: &Path) -> PathBuf {
        dir.join(self.to_text())
    }

    /// Whether the file belongs to one rank's work (its lock aside).
    pub(crate) fn is_work_of(self, rank: u32) -> bool {
        matches!(self, Name::Done(r) | Name::Shard(r, _) | Name::Part(r, _) | Name::Temp(Some(r)) if r == rank)
    }
}

/// The files of ours in a folder.
pub(crate) fn list_ours(dir: &Path) -> Result<Vec<Name>, CacheError> {
    Ok(list_names(dir)?.iter().filter_map(|name| parse_name(name)).collect())
}

/// Whether a file of this name is of ours, and no part of a finished cache.
pub(crate) fn is_leftover(name: &str) -> bool {
    parse_name(name).is_some_and(|name| !matches!(name, Name::Manifest | Name::Quarantine | Name::Shard(..)))
}
