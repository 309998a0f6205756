//! `tokengrid view --tokenizer`: decoded pictures for the inspector.

use super::decoder::TokenDecoder;
use crate::args::{Global, TokenizerArgs, ViewArgs};
use crate::commands::view;
use std::path::Path;
use tokengrid_cache::Manifest;
use tokengrid_view::{Decode, Decoder};

/// Runs the command until Ctrl-C.
pub(super) fn run(args: &ViewArgs, global: &Global) -> anyhow::Result<()> {
    let of = |tokenizer: &Path, dir: &Path| decoder(tokenizer, &Manifest::read(dir)?, args, global);
    let ours = args.tokenizer.as_deref().map(|tokenizer| of(tokenizer, &args.dir)).transpose()?;
    let beside = match (&args.beside, &args.beside_tokenizer, &args.tokenizer) {
        (Some(dir), Some(tokenizer), _) => Some(of(tokenizer, dir)?),
        // Tokens of another tokenizer are no pictures to this one.
        (Some(dir), None, Some(tokenizer)) if is_of_one_tokenizer(&args.dir, dir)? => Some(of(tokenizer, dir)?),
        _ => None,
    };
    view::run(args, ours, beside, global)
}

fn is_of_one_tokenizer(a: &Path, b: &Path) -> anyhow::Result<bool> {
    let (a, b) = (Manifest::read(a)?, Manifest::read(b)?);
    Ok(a.tokenizer.fingerprint == b.tokenizer.fingerprint && a.grid_spec() == b.grid_spec())
}

fn decoder(tokenizer: &Path, manifest: &Manifest, args: &ViewArgs, global: &Global) -> anyhow::Result<Decoder> {
    let weights = TokenizerArgs { tokenizer: tokenizer.to_owned(), variant: args.variant.clone() };
    let decoder = TokenDecoder::open(manifest, &weights, &args.device, global)?;
    let (name, fingerprint) = (tokenizer.display().to_string(), decoder.fingerprint().to_owned());
    Ok(Decoder { name, fingerprint, decode: Box::new(decoder) })
}

impl Decode for TokenDecoder {
    fn decode(&mut self, tokens: &[u32]) -> tokengrid_view::Picture {
        let tokengrid_model::Picture { width, height, rgb } = self.picture(tokens);
        tokengrid_view::Picture { width, height, rgb }
    }
}
