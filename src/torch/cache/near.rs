//! `cache find --near IMAGE`: rows near an image, which is encoded as the cache's own were.

use super::with_job;
use crate::args::{DeviceArgs, FindArgs, Global, MadeOfArgs, TokenizerArgs};
use crate::commands::cache::near::print_near;
use crate::exit::{CheckFailed, Usage};
use anyhow::Context;
use std::path::{Path, PathBuf};
use tokengrid_cache::{Requirement, TokenCache, pack};

pub(crate) fn find_near_image(cache: &TokenCache, args: &FindArgs, global: &Global) -> anyhow::Result<()> {
    let image = PathBuf::from(args.near.as_deref().unwrap_or_default());
    let Some(tokenizer) = args.tokenizer.clone() else {
        let near = image.display();
        return Err(Usage(format!(
            "--near {near}: for a row give its number; an image needs --tokenizer, that of the cache"
        ))
        .into());
    };
    // A source is a folder.
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let name = image.file_name().map_or(Path::new("image"), Path::new);
    std::fs::copy(&image, folder.path().join(name)).with_context(|| format!("cannot read {}", image.display()))?;
    let DeviceArgs { device, precision } = &args.device;
    let made_of = MadeOfArgs {
        source: vec![folder.path().to_owned()],
        labels: None,
        image_column: None,
        label_column: None,
        preset: None,
        exclude: Vec::new(),
        limit: None,
        tokenizer: TokenizerArgs { tokenizer, variant: args.variant.clone() },
        device: DeviceArgs { device: device.clone(), precision: precision.clone() },
    };
    let mut manifest = cache.manifest().clone();
    // The one image belongs to no split.
    manifest.splits.clear();
    let mut queries = Vec::new();
    with_job(&manifest, &args.dir, &made_of, global, |job| {
        cache.require(&Requirement { fingerprint: Some(job.info.fingerprint.clone()), ..Requirement::default() })?;
        let mut bad = None;
        job.encode_images(&[0], &mut |encoded| {
            match encoded.outcome {
                Ok(views) => queries.extend(views.iter().map(|view| packed(cache, &view.tokens))),
                Err(why) => bad = Some(format!("{}: {}", why.stage, why.reason)),
            }
            Ok(())
        })?;
        bad.map_or(Ok(()), |why| Err(CheckFailed(why).into()))
    })
    .with_context(|| format!("cannot encode {}", image.display()))?;
    print_near(cache, &queries.iter().map(Vec::as_slice).collect::<Vec<_>>(), args, global)
}

fn packed(cache: &TokenCache, tokens: &[u32]) -> Vec<u8> {
    let mut packed = vec![0; cache.grid().row_bytes()];
    pack(tokens, cache.grid().bits, &mut packed);
    packed
}
