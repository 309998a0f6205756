//! The demo's folder: replaced each time; folders with other contents are refused.

use crate::exit::Usage;
use anyhow::Context;
use std::path::Path;

/// Name of the file that marks a demo's folder.
const MARK: &str = "DEMO.txt";
const MARK_TEXT: &str =
    "Made by `tokengrid demo`, which removes this folder when it is run again with the same --out.\n";

/// Makes an empty folder with the mark, and removes that of an earlier demo.
pub(super) fn make_anew(folder: &Path) -> anyhow::Result<()> {
    if folder.join(MARK).is_file() {
        std::fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    if folder.exists() && std::fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_some()) {
        let text = format!("{} exists and was not made by a demo: give another folder with --out", folder.display());
        return Err(Usage(text).into());
    }
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    std::fs::write(folder.join(MARK), MARK_TEXT).with_context(|| format!("cannot write below {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demo_is_replaced_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let demo = folder.path().join("demo");
        make_anew(&demo).unwrap();
        std::fs::write(demo.join("old"), "").unwrap();
        make_anew(&demo).unwrap();
        assert!(!demo.join("old").exists() && demo.join(MARK).exists());

        let mine = folder.path().join("mine");
        std::fs::create_dir(&mine).unwrap();
        std::fs::write(mine.join("thesis"), "").unwrap();
        assert!(make_anew(&mine).unwrap_err().to_string().contains("--out"));
        assert!(mine.join("thesis").exists());
    }
}
