//! What the system says and does about files, without an error of our own.

use std::fs::File;
use std::path::Path;
use std::{fs, io};

/// Makes renames and creations in `folder` durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    // Only Unix lets a folder be opened and synced; elsewhere the rename itself is all there is.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Whether an open file is still the one at `path`.
#[cfg(unix)]
pub(crate) fn is_same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
pub(crate) fn is_same_file(_: &File, path: &Path) -> bool {
    path.exists()
}
