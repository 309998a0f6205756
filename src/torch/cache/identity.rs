//! Which tokenizer made the tokens of another program.

use crate::args::{Global, ImportArgs, TokenizerArgs};
use crate::torch::model;
use tokengrid_cache::TokenizerInfo;

/// The tokenizer of `--tokenizer` as caches record it, and the bits of its tokens. In which precision it ran is the one thing that
/// its weights do not say.
pub(crate) fn tokenizer_identity(args: &ImportArgs, global: &Global) -> anyhow::Result<(TokenizerInfo, u32)> {
    let tokenizer = args.tokenizer.clone().expect("asked for only with a tokenizer");
    let runtime = model::runtime(&args.device, global)?;
    let weights = TokenizerArgs { tokenizer, variant: args.variant.clone() };
    let (tokenizer, info) = model::tokenizer(&weights, &runtime)?;
    let bits = u32::try_from(tokenizer.architecture.z_channels)?;
    Ok((TokenizerInfo { precision: "unknown".into(), ..info }, bits))
}
