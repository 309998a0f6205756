//! The built-in photographs: those of `data/`.

use anyhow::Context;
use std::path::Path;

// `PHOTOS`: path below `data/`, bytes. Made by build.rs.
include!(concat!(env!("OUT_DIR"), "/photos.rs"));

/// Number of those in class folders, and of class folders.
pub(super) fn counts() -> (usize, usize) {
    let classes: Vec<&str> =
        PHOTOS.iter().filter_map(|(path, _)| path.strip_prefix("photos/")?.split('/').next()).collect();
    let different: std::collections::BTreeSet<&&str> = classes.iter().collect();
    (classes.len(), different.len())
}

/// Writes all photographs below `folder`.
pub(super) fn write(folder: &Path) -> anyhow::Result<()> {
    for (path, bytes) in PHOTOS {
        let file = folder.join(path);
        let parent = file.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
        std::fs::write(&file, bytes).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twelve_classes_are_built_in_and_written_byte_for_byte() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        let (photos, classes) = counts();
        assert!(classes == 12 && photos > 100, "{photos} in {classes}");
        for (path, bytes) in PHOTOS {
            let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(path);
            assert_eq!(std::fs::read(folder.path().join(path)).unwrap(), *bytes);
            assert_eq!(std::fs::read(shipped).unwrap(), *bytes);
        }
    }
}
