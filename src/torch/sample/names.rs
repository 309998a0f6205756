//! What classes are called: on the grid, and in `--classes`.

use crate::exit::{CheckFailed, Usage};
use anyhow::Context;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use tokengrid_cache::{ClassNames, TokenCache};
use tokengrid_model::ar::ArWeights;
use tokengrid_train::ar::ArConfig;
use tokengrid_train::config::{Typed, resolve};

/// Names longer than that are not names.
const CLASS_NAME_BYTES_MAX: usize = 4096;
/// A file of the longest names for more classes than any data set has.
const CLASS_NAMES_BYTES_MAX: u64 = 64 << 20;

/// Classes of which a message lists all names.
const LISTED: usize = 24;
/// Classes of the same name that a message lists.
const CANDIDATES: usize = 8;

/// Names of classes by index.
pub(super) struct Names {
    /// What the training cache calls them, or a list of names: the class list of `--cache-out`.
    pub(super) classes: Vec<String>,
    /// What they mean.
    readable: ClassNames,
}

impl Names {
    /// Those of the file, else those that the checkpoint has, else of the cache that its run was trained on.
    pub(super) fn of(file: Option<&Path>, checkpoint: &ArWeights) -> anyhow::Result<Names> {
        // Names are a nicety: a cache that has moved is not an error.
        let cache = || TokenCache::open(&training_cache(&checkpoint.path)?).ok();
        let (known, kept) = if checkpoint.classes.is_empty() {
            cache().map_or_else(Default::default, |cache| {
                let classes = cache.manifest().classes.clone();
                let kept = ClassNames::load(cache.local_dir(), &classes);
                (classes, kept)
            })
        } else {
            (checkpoint.classes.clone(), None)
        };
        match file {
            Some(path) => Names::read(path, known),
            None => Ok(Names { classes: known, readable: kept.unwrap_or_default() }),
        }
    }

    /// Names from a file, for a model whose classes are called `known`, if that is known.
    fn read(path: &Path, known: Vec<String>) -> anyhow::Result<Names> {
        let text = read_text(path)?;
        let parsed = ClassNames::parse(&text, &known);
        if text.trim_start().starts_with(['{', '[']) {
            let readable = parsed.map_err(|what| CheckFailed(format!("{}: {what}", path.display())))?;
            return Ok(Names { classes: known, readable });
        }
        let lines = checked_lines(path, &text)?;
        let is_line = |(label, line): (i32, &String)| {
            parsed.as_ref().is_ok_and(|names| names.get(label).unwrap_or_default() == line.trim())
        };
        // Names alone are a list of classes in its own right, with any number of lines.
        match &parsed {
            Ok(readable) if !(0..).zip(&lines).all(is_line) => Ok(Names { classes: known, readable: readable.clone() }),
            _ => Ok(Names { classes: lines, readable: ClassNames::default() }),
        }
    }

    /// What stands above the images, by class index.
    pub(super) fn captions(&self) -> Vec<String> {
        let classes = 0..self.classes.len().max(self.readable.len());
        classes.map(|label| self.caption(label as i32).unwrap_or_default().to_owned()).collect()
    }

    fn caption(&self, label: i32) -> Option<&str> {
        let class = self.classes.get(usize::try_from(label).ok()?).map(String::as_str);
        self.readable.get(label).or(class)
    }

    /// `--classes`: all, or indices and names. Names may have commas in them: the longest piece that is a name counts.
    pub(super) fn classes(&self, text: &str, class_num: i64) -> anyhow::Result<Vec<i64>> {
        if text == "all" {
            return Ok((0..class_num).collect());
        }
        let parts: Vec<&str> = text.split(',').collect();
        let mut classes: Vec<i64> = Vec::new();
        let mut next = 0;
        while next < parts.len() {
            let (class, taken) = self.class(text, &parts[next..])?;
            if classes.contains(&class) {
                let twice = format!("class {class} stands there twice; --num-per-class makes more");
                return Err(Usage(format!("--classes {text}: {twice}")).into());
            }
            classes.push(class);
            next += taken;
        }
        Ok(classes)
    }

    /// The class that the first of `parts` name, and how many of them.
    fn class(&self, typed: &str, parts: &[&str]) -> anyhow::Result<(i64, usize)> {
        if let Ok(index) = parts[0].trim().parse() {
            return Ok((index, 1));
        }
        for taken in (1..=parts.len()).rev() {
            let name = parts[..taken].join(",");
            match self.called(name.trim()).as_slice() {
                [] => {}
                [label] => return Ok((i64::from(*label), taken)),
                several => {
                    let each = |label: &i32| format!("{label} ({})", self.caption(*label).unwrap_or_default());
                    let listed: Vec<String> = several.iter().take(CANDIDATES).map(each).collect();
                    let (name, count) = (name.trim(), several.len());
                    let text =
                        format!("--classes: {count} classes are called {name}; give an index: {}", listed.join("; "));
                    return Err(Usage(text).into());
                }
            }
        }
        let known = match self.classes.len().max(self.readable.len()) {
            0 => "; names need --class-names FILE".to_owned(),
            number @ 1..=LISTED => {
                let all: Vec<_> = (0..number as i32).filter_map(|label| self.caption(label)).collect();
                format!(", or names: {}; none is called {}", all.join(", "), parts[0].trim())
            }
            number => format!(", or names among {number} classes: none is called {}", parts[0].trim()),
        };
        Err(Usage(format!("--classes {typed}: expected `all` or class indices such as 207,88{known}")).into())
    }

    fn called(&self, name: &str) -> Vec<i32> {
        match self.classes.iter().position(|class| class == name) {
            Some(label) => vec![label as i32],
            None => self.readable.find(name),
        }
    }
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    let reading = || format!("cannot read {}", path.display());
    let mut text = String::new();
    let file = File::open(path).with_context(reading)?;
    file.take(CLASS_NAMES_BYTES_MAX + 1).read_to_string(&mut text).with_context(reading)?;
    if text.len() as u64 > CLASS_NAMES_BYTES_MAX {
        let most = CLASS_NAMES_BYTES_MAX >> 20;
        return Err(CheckFailed(format!("{} is larger than {most} MiB: not class names", path.display())).into());
    }
    Ok(text)
}

/// One name per line.
fn checked_lines(path: &Path, text: &str) -> anyhow::Result<Vec<String>> {
    let names = text.trim_start_matches('\u{feff}').lines().map(str::to_string).collect::<Vec<_>>();
    if let Some(line) = names.iter().position(|name| name.len() > CLASS_NAME_BYTES_MAX) {
        let (path, bytes) = (path.display(), names[line].len());
        let text = format!(
            "{path}, line {}: a class name of {bytes} bytes; expected one name per line, of at most {CLASS_NAME_BYTES_MAX} \
             bytes",
            line + 1
        );
        return Err(CheckFailed(text).into());
    }
    Ok(names)
}

/// The cache that the configuration beside a checkpoint names.
fn training_cache(checkpoint: &Path) -> Option<PathBuf> {
    let config = checkpoint.parent()?.join("config.toml");
    let typed = Typed { file: Some(&config), ..Typed::default() };
    let config = config.is_file().then(|| resolve::<ArConfig>(&typed).ok())??;
    (!config.data.cache.is_empty()).then(|| config.data.cache.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(readable: &str) -> Names {
        let classes: Vec<String> = ["n0", "n1", "n2", "n3"].map(str::to_owned).to_vec();
        let readable = ClassNames::parse(readable, &classes).unwrap();
        Names { classes, readable }
    }

    #[test]
    fn classes_are_typed_by_index_class_and_name() {
        let names = names("n0 tench, Tinca tinca\nn1 crane\nn2 crane, machine\nn3 great white shark, man-eater, white");
        let of = |text: &str| names.classes(text, 4).map_err(|error| error.to_string());
        assert_eq!(of("all"), Ok(vec![0, 1, 2, 3]));
        assert_eq!(of("3, 0"), Ok(vec![3, 0]));
        assert_eq!(of("tench,n2,3"), Ok(vec![0, 2, 3]));
        assert_eq!(of("tench, Tinca tinca,GREAT white shark"), Ok(vec![0, 3]));
        assert_eq!(of("great white shark, man-eater, white,1"), Ok(vec![3, 1]));
        let twice = of("tench,0").unwrap_err();
        assert!(twice.contains("class 0 stands there twice"), "{twice}");
        let several = of("crane").unwrap_err();
        assert!(several.contains("2 classes") && several.contains("1 (crane); 2 (crane, machine)"), "{several}");
        let none = of("tench,unicorn").unwrap_err();
        assert!(none.contains("expected `all` or class indices such as 207,88") && none.contains("unicorn"), "{none}");
        assert_eq!(names.captions()[2], "crane, machine");
        let unnamed = Names { classes: Vec::new(), readable: ClassNames::default() };
        let message = unnamed.classes("tench", 4).unwrap_err().to_string();
        assert!(message.contains("--class-names FILE"), "{message}");
    }

    #[test]
    fn a_list_of_names_stays_the_list_of_classes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("names.txt");
        std::fs::write(&path, "a b\nc\n").unwrap();
        let known: Vec<String> = ["n0", "n1", "n2"].map(str::to_owned).to_vec();
        for known in [Vec::new(), known.clone()] {
            let names = Names::read(&path, known).unwrap();
            assert_eq!(
                (names.classes.as_slice(), names.captions()),
                (&["a b", "c"].map(str::to_owned)[..], vec!["a b".into(), "c".into()])
            );
        }
        std::fs::write(&path, "n1 one\nn2 two\n").unwrap();
        let names = Names::read(&path, known.clone()).unwrap();
        assert_eq!((names.captions(), names.classes), (["n0", "one", "two"].map(str::to_owned).to_vec(), known));
    }
}
