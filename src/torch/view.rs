//! `tokengrid view --tokenizer`: decoded pictures for the inspector.

use super::decoder::TokenDecoder;
use crate::args::{Global, TokenizerArgs, ViewArgs};
use crate::commands::view;
use tokengrid_view::{Decode, Decoder};

/// Runs the command until Ctrl-C.
pub(super) fn run(args: &ViewArgs, global: &Global) -> anyhow::Result<()> {
    view::run(args, decoder(args, global)?, global)
}

fn decoder(args: &ViewArgs, global: &Global) -> anyhow::Result<Option<Decoder>> {
    let Some(tokenizer) = &args.tokenizer else { return Ok(None) };
    let manifest = tokengrid_cache::Manifest::read(&args.dir)?;
    let weights = TokenizerArgs { tokenizer: tokenizer.clone(), variant: args.variant.clone() };
    let decoder = TokenDecoder::open(&manifest, &weights, &args.device, global)?;
    let (name, fingerprint) = (tokenizer.display().to_string(), decoder.fingerprint().to_owned());
    Ok(Some(Decoder { name, fingerprint, decode: Box::new(decoder) }))
}

impl Decode for TokenDecoder {
    fn decode(&mut self, tokens: &[u32]) -> tokengrid_view::Picture {
        let tokengrid_model::Picture { width, height, rgb } = self.picture(tokens);
        tokengrid_view::Picture { width, height, rgb }
    }
}
