//! `cache find --near IMAGE`: rows near an image, which is encoded as the cache's own were.

use super::origin::with_image;
use crate::args::{FindArgs, Global, TokenizerArgs};
use crate::commands::cache::near::print_near;
use crate::exit::{CheckFailed, Usage};
use anyhow::Context;
use std::fs::File;
use std::path::PathBuf;
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
    let found = File::open(&image).and_then(|file| file.metadata());
    if found.with_context(|| format!("cannot read {}", image.display()))?.is_dir() {
        return Err(Usage(format!("--near {}: a folder; give one image", image.display())).into());
    }
    let tokenizer = TokenizerArgs { tokenizer, variant: args.variant.clone() };
    let mut queries = Vec::new();
    with_image(cache, &image, (&tokenizer, &args.device), global, |job| {
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
