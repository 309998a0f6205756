//! Exchanges on file systems without atomic exchange, killed between any two steps.

use super::*;
use std::cell::Cell;
use std::rc::Rc;
use tempfile::TempDir;
use tokengrid_cache::write_synthetic_cache;

/// A file system without exchange, on which the process ends after a number of renames.
struct Killed(Rc<Cell<usize>>);

impl Names for Killed {
    fn exchange(&self, _: &Path, _: &Path) -> io::Result<bool> {
        Ok(false)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let left = self.0.get().checked_sub(1).ok_or_else(|| io::Error::other("killed"))?;
        self.0.set(left);
        fs::rename(from, to)
    }
}

struct Case {
    folder: TempDir,
    renames: Rc<Cell<usize>>,
}

impl Case {
    /// A cache of one image, the added part of another, and both merged.
    fn new(renames: usize) -> Case {
        let case = Case { folder: tempfile::tempdir().unwrap(), renames: Rc::new(Cell::new(renames)) };
        let folders = case.folders();
        for (dir, images) in [(&folders.cache, 1), (&folders.adding, 2), (&folders.merged, 3)] {
            write_synthetic_cache(dir, images, 1).unwrap();
        }
        case
    }

    fn folders(&self) -> Folders {
        let names = Box::new(Killed(Rc::clone(&self.renames)));
        Folders { names, ..Folders::of(&self.folder.path().join("cache")).unwrap() }
    }

    /// Rows of the cache under the name; `None` if there is none.
    fn rows(&self) -> Option<usize> {
        Manifest::read(&self.folders().cache).ok().map(|manifest| manifest.rows)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[test]
fn two_renames_replace_an_exchange() {
    let case = Case::new(2);
    case.folders().exchange().unwrap();
    assert_eq!((case.rows(), case.renames.get()), (Some(3), 0));
    assert_eq!(case.names(), ["cache"], "nothing is left beside it");
}

#[test]
fn the_next_start_continues_after_a_kill_at_any_rename() {
    for (renames, rows) in [(0, Some(1)), (1, None)] {
        let case = Case::new(renames);
        case.folders().exchange().unwrap_err();
        assert_eq!(case.rows(), rows, "after {renames} renames");
        case.renames.set(2);
        case.folders().finish_exchange().unwrap();
        assert_eq!(case.rows(), Some(3), "after {renames} renames");
        assert_eq!(case.names(), ["cache"]);
    }
}

#[test]
fn a_users_folder_under_the_name_for_the_old_cache_is_not_changed() {
    let case = Case::new(2);
    let folders = case.folders();
    fs::create_dir(&folders.before).unwrap();
    fs::write(folders.before.join("notes.txt"), "mine").unwrap();
    let refused = format!("{:#}", folders.exchange().unwrap_err());
    assert!(refused.contains("in the way of the old cache"), "{refused}");
    assert_eq!(case.rows(), Some(1), "the cache is where it was");
    fs::remove_dir_all(&folders.before).unwrap();
    case.folders().finish_exchange().unwrap();
    assert_eq!((case.rows(), case.names()), (Some(3), vec!["cache".to_owned()]));
}

#[test]
fn a_file_system_with_atomic_exchange_exchanges_in_one_step() {
    let case = Case::new(0);
    let folders = Folders { names: Box::new(System), ..case.folders() };
    if !exchange_names(&folders.adding, &folders.merged).unwrap() {
        tokengrid_test_support::skip_anywhere(&format!("{} cannot exchange names", case.folder.path().display()));
        return;
    }
    assert!(exchange_names(&folders.adding, &folders.merged).unwrap(), "back again");
    folders.exchange().unwrap();
    assert_eq!((case.rows(), case.names()), (Some(3), vec!["cache".to_owned()]));
}
