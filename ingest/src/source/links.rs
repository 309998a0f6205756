//! Targets of links to folders: each is walked once, by any number of links.

use super::keys::is_hidden;
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Which folders behind links were taken. Folders that are reached without a link need no note: they are in no circle.
#[derive(Debug)]
pub(super) struct Links {
    /// The root, with links resolved.
    root: PathBuf,
    /// Folders behind links, by device and inode.
    taken: HashSet<(u64, u64)>,
    /// Folders that links lead to, with links resolved.
    pub(super) targets: Vec<PathBuf>,
    /// Links to folders that are walked elsewhere.
    pub(super) skipped: usize,
}

impl Links {
    pub(super) fn new(root: &Path) -> Links {
        Links {
            root: fs::canonicalize(root).unwrap_or_else(|_| root.to_owned()),
            taken: HashSet::new(),
            targets: Vec::new(),
            skipped: 0,
        }
    }

    /// Whether the link at `path`, in `folder`, is to be walked.
    pub(super) fn take_link(&mut self, path: &Path, folder: &Path) -> bool {
        let is_new = |target: &PathBuf| !self.is_walked_anyway(target) && !leads_back(target, folder);
        let target = fs::canonicalize(path).ok().filter(is_new).filter(|target| self.take(target));
        let take = target.is_some();
        self.targets.extend(target);
        self.skipped += usize::from(!take);
        take
    }

    /// Whether a folder behind a link is reached for the first time.
    pub(super) fn take(&mut self, folder: &Path) -> bool {
        folder.metadata().is_ok_and(|metadata| self.taken.insert((metadata.dev(), metadata.ino())))
    }

    /// Whether the walk meets a folder without any link, or the folder contains the root.
    fn is_walked_anyway(&self, target: &Path) -> bool {
        let is_visible = |below: &Path| !below.iter().any(|part| is_hidden(part.as_encoded_bytes()));
        self.root.starts_with(target) || target.strip_prefix(&self.root).is_ok_and(is_visible)
    }
}

/// Whether `target` contains the folder in which a link to it lies.
fn leads_back(target: &Path, folder: &Path) -> bool {
    fs::canonicalize(folder).is_ok_and(|folder| folder.starts_with(target))
}

/// Whether `path`, which need not exist, is the folder or lies in it, through any links.
pub fn lies_in(path: &Path, folder: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).ok();
    let existing = std::path::absolute(path).ok().and_then(|path| path.ancestors().find_map(real));
    matches!((existing, real(folder)), (Some(path), Some(folder)) if path.starts_with(&folder))
}
