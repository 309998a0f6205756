//! `cache merge` and `cache subset`: caches made from caches.

use super::made::{check_apart, mode, report};
use crate::args::{Global, SubsetArgs};
use crate::exit::Usage;
use crate::files::read_list;
use crate::terminal::Copying;
use std::path::Path;
use tokengrid_cache::{Manifest, MergeInput, Selection, TokenCache, images_of_keys};

pub(super) fn merge(out: &Path, inputs: &[String], overwrite: bool, global: &Global) -> anyhow::Result<()> {
    // A folder's name may contain an equals sign: an existing path is taken as a path.
    let input = |text: &String| match text.split_once('=') {
        Some((split, dir)) if !Path::new(text).exists() && !split.is_empty() => {
            MergeInput { split: Some(split.to_string()), ..MergeInput::new(dir) }
        }
        _ => MergeInput::new(text),
    };
    let inputs: Vec<MergeInput> = inputs.iter().map(input).collect();
    check_apart(out, &inputs.iter().map(|input| input.dir.as_path()).collect::<Vec<_>>())?;
    let copying = Copying::shown(global);
    let finished = tokengrid_cache::merge(out, &inputs, mode(overwrite))?;
    drop(copying);
    report(&finished, out, global)
}

pub(super) fn subset(args: &SubsetArgs, global: &Global) -> anyhow::Result<()> {
    let SubsetArgs { classes, limit, views, split, keys, .. } = args;
    check_apart(&args.out, &[&args.dir])?;
    let images = keys.as_ref().map(|keys| images(&args.dir, keys)).transpose()?;
    let (classes, views, split) = (classes.clone(), views.clone(), split.clone());
    let selection = Selection { classes, limit: *limit, views, split, images, ..Selection::default() };
    if *limit == Some(0) {
        return Err(Usage("--limit 0 would leave nothing".into()).into());
    }
    let copying = Copying::shown(global);
    let finished = tokengrid_cache::subset(&args.dir, &args.out, &selection, mode(args.overwrite))?;
    drop(copying);
    if !global.quiet {
        note_whole_files(&Manifest::read(&args.out)?, &TokenCache::open(&args.dir)?);
    }
    report(&finished, &args.out, global)
}

/// Says which of the files beside the rows still describe the whole set.
fn note_whole_files(part: &Manifest, whole: &TokenCache) {
    let files = &whole.manifest().source.attached;
    let is_same = |name: &&String| part.source.attached.get(*name) == files.get(*name);
    let names: Vec<&str> = files.keys().filter(is_same).map(String::as_str).collect();
    if part.rows < whole.num_rows() && !names.is_empty() {
        eprintln!("note: files that have no entry per frame are kept and describe the whole set: {}", names.join(", "));
    }
}

/// The images of the keys in a file.
fn images(dir: &Path, keys: &Path) -> anyhow::Result<Vec<usize>> {
    let listed = read_list(keys)?;
    if listed.is_empty() {
        return Err(Usage(format!("--keys {}: there is no key in it", keys.display())).into());
    }
    Ok(images_of_keys(&TokenCache::open(dir)?, &listed.into_iter().collect())?)
}
