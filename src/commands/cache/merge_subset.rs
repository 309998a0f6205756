//! `cache merge` and `cache subset`: caches made from caches.

use super::made::{check_apart, mode, report};
use crate::args::{Global, SubsetArgs};
use crate::exit::Usage;
use std::path::Path;
use tokengrid_cache::{MergeInput, Selection};

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
    let finished = tokengrid_cache::merge(out, &inputs, mode(overwrite))?;
    report(&finished, out, global)
}

pub(super) fn subset(args: &SubsetArgs, global: &Global) -> anyhow::Result<()> {
    let SubsetArgs { classes, limit, views, split, .. } = args;
    let selection = Selection { classes: classes.clone(), limit: *limit, views: views.clone(), split: split.clone() };
    check_apart(&args.out, &[&args.dir])?;
    if *limit == Some(0) {
        return Err(Usage("--limit 0 would leave nothing".into()).into());
    }
    let finished = tokengrid_cache::subset(&args.dir, &args.out, &selection, mode(args.overwrite))?;
    report(&finished, &args.out, global)
}
