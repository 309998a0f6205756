//! Views as PNG files: encoded by several threads, each file written atomically.

use super::names;
use crate::exit::CheckFailed;
use crate::files::write_whole;
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use tokengrid_cache::{is_system_name, is_temporary_name};
use tokengrid_ingest::{ImageViews, PngSize, Recipe, Stage, StageCounters, View, write_png};

/// Name of the file that records the recipe of a folder's PNGs. Hidden, so that the folder can be a source.
const RECIPE_FILE: &str = ".tokengrid-ingest.json";

/// Capacity in images of the queue to the encoding threads.
const QUEUE: usize = 16;

/// A folder of `<key>.<view>.png`.
pub(super) struct PngFolder {
    out: PathBuf,
    recipe: Recipe,
    /// Whether existing files are ignored and written again.
    anew: bool,
    failed: AtomicBool,
}

impl PngFolder {
    /// Opens or makes a folder for PNGs of `recipe`.
    ///
    /// # Errors
    /// The folder holds other files and `overwrite` is off, or cannot be written.
    pub(super) fn open(out: &Path, recipe: &Recipe, overwrite: bool) -> anyhow::Result<PngFolder> {
        std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
        let folder =
            PngFolder { out: out.to_owned(), recipe: *recipe, anew: overwrite, failed: AtomicBool::new(false) };
        let foreign = if folder.note().exists() { None } else { foreign_entry(out)? };
        let is_ours = foreign.is_none();
        if is_ours {
            remove_temporary(out).with_context(|| format!("cannot clean up {}", out.display()))?;
        }
        if overwrite && is_ours {
            // Until all files are made, the folder is a mixture of two recipes and must not count as either.
            write_whole(&folder.note(), format!("unfinished {recipe}").as_bytes())?;
            return Ok(folder);
        }
        let earlier = std::fs::read(folder.note()).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let problem = match earlier.as_deref() {
            Some(earlier) if earlier == recipe.to_json() => return Ok(folder),
            Some(earlier) if !is_note(earlier) && foreign_entry(out)?.is_none() => {
                folder.sign()?;
                return Ok(folder);
            }
            Some(earlier) if !is_note(earlier) => {
                format!("has a damaged {RECIPE_FILE}, so that the recipe of what lies there is not known; this one is {recipe}")
            }
            Some(earlier) => format!("holds PNGs of another recipe, {earlier}; this one is {recipe}"),
            None if is_ours => {
                folder.sign()?;
                return Ok(folder);
            }
            None => {
                let (out, found) = (out.display(), foreign.unwrap_or_default());
                let text = format!(
                    "{out} is not empty (found {found}), and was not made by `ingest --out`; give another folder"
                );
                return Err(CheckFailed(text).into());
            }
        };
        Err(CheckFailed(format!("{} {problem}. Give another folder, or --overwrite", out.display())).into())
    }

    fn note(&self) -> PathBuf {
        self.out.join(RECIPE_FILE)
    }

    fn sign(&self) -> anyhow::Result<()> {
        write_whole(&self.note(), self.recipe.to_json().as_bytes())
    }

    /// Whether all views of an image exist. They are written in order, so checking the last one is enough.
    pub(super) fn has(&self, key: &str) -> bool {
        !self.anew && is_whole_png(&self.path(key, self.recipe.num_views() - 1))
    }

    /// Runs `produce`, which passes images to the function that it receives, and returns when all of them are written. The
    /// time is added to `stages`.
    ///
    /// # Errors
    /// The error of the first file that cannot be written, else that of `produce`.
    pub(super) fn write_all(
        &self,
        stages: &StageCounters,
        produce: impl FnOnce(&mut dyn FnMut(ImageViews) -> anyhow::Result<()>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (sender, receiver) = sync_channel(QUEUE);
        let receiver = Mutex::new(receiver);
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| self.work(&receiver, stages))).collect();
            let produced = produce(&mut |image| self.hand_over(&sender, image));
            drop(sender);
            let written = workers.into_iter().map(|worker| match worker.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            // The reason why writing failed is more useful than that of `produce`, which follows from it.
            written.collect::<Vec<_>>().into_iter().collect::<anyhow::Result<()>>()?;
            produced
        })?;
        self.sign()
    }

    fn hand_over(&self, sender: &SyncSender<ImageViews>, image: ImageViews) -> anyhow::Result<()> {
        if self.failed.load(Ordering::Relaxed) || sender.send(image).is_err() {
            anyhow::bail!("writing PNGs failed");
        }
        Ok(())
    }

    fn work(&self, receiver: &Mutex<Receiver<ImageViews>>, stages: &StageCounters) -> anyhow::Result<()> {
        let next = || receiver.lock().ok()?.recv().ok();
        let mut png = Vec::new();
        let mut result = Ok(());
        while let Some(image) = next() {
            // After a failure the queue is only drained, so that senders do not block.
            if result.is_ok() {
                let mut views = image.outcome.iter().flatten();
                result = views.try_for_each(|view| self.save(&image.key, view, &mut png, stages));
            }
            if result.is_err() {
                self.failed.store(true, Ordering::Relaxed);
            }
        }
        result
    }

    fn save(&self, key: &str, view: &View, png: &mut Vec<u8>, stages: &StageCounters) -> anyhow::Result<()> {
        let path = self.path(key, view.view);
        let size = [self.recipe.size; 2];
        png.clear();
        let encode = || write_png(&view.pixels, size, PngSize::Small, &[], png);
        stages.timed(Stage::Encode, encode).with_context(|| format!("cannot encode {}", path.display()))?;
        stages.timed(Stage::Write, || {
            let folder = path.parent().unwrap_or(&self.out);
            std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
            write_whole(&path, png)
        })
    }

    fn path(&self, key: &str, view: u32) -> PathBuf {
        self.out.join(names::file_of(key, view))
    }
}

/// Whether the text names a recipe: after a crash of the system the file may be empty or zeros.
fn is_note(text: &str) -> bool {
    text.starts_with("unfinished ") || serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).is_ok()
}

/// The first entry of a folder that is neither a system file nor left by a killed start.
fn foreign_entry(folder: &Path) -> anyhow::Result<Option<String>> {
    let entries = || -> std::io::Result<Vec<String>> {
        let names = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    };
    let names = entries().with_context(|| format!("cannot read {}", folder.display()))?;
    let is_foreign = |name: &String| name != RECIPE_FILE && !is_temporary_name(name) && !is_system_name(name);
    Ok(names.into_iter().filter(is_foreign).min())
}

/// Removes the temporary files of killed processes.
fn remove_temporary(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (kind, name) = (entry.file_type()?, entry.file_name());
        let name = name.to_string_lossy();
        // Links are not followed: their targets belong to others. A system folder may not be readable.
        if kind.is_dir() && !is_system_name(&name) {
            remove_temporary(&entry.path())?;
        } else if kind.is_file() && is_temporary_name(&name) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Whether a file begins and ends as a PNG does.
fn is_whole_png(path: &Path) -> bool {
    std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"\x89PNG") && bytes.ends_with(b"IEND\xAE\x42\x60\x82"))
}
