//! Which tokenizer made the tokens that are imported.

use crate::args::{Global, ImportArgs};
use crate::exit::CheckFailed;
use tokengrid_cache::{TokenCache, TokenizerInfo};

/// Name and fingerprint where the tokenizer is unknown, and the name where only its fingerprint is known.
pub(super) const UNKNOWN_TOKENIZER: &str = "imported";

/// A tokenizer, as far as it is known.
pub(super) struct MadeBy {
    pub(super) tokenizer: TokenizerInfo,
    /// Bits of its tokens.
    bits: Option<u32>,
}

impl MadeBy {
    /// The tokenizer that the flags name.
    pub(super) fn of(args: &ImportArgs, global: &Global) -> anyhow::Result<MadeBy> {
        if args.tokenizer.is_some() {
            let (tokenizer, bits) = crate::torch::tokenizer_identity(args, global)?;
            return Ok(MadeBy { tokenizer, bits: Some(bits) });
        }
        if let Some(like) = &args.like {
            let cache = TokenCache::open(like)?;
            return Ok(MadeBy { tokenizer: cache.manifest().tokenizer.clone(), bits: Some(cache.grid().bits) });
        }
        let fingerprint = args.tokenizer_hash.clone().unwrap_or_else(|| UNKNOWN_TOKENIZER.into());
        let tokenizer = TokenizerInfo {
            name: UNKNOWN_TOKENIZER.into(),
            fingerprint,
            variant: "unknown".into(),
            precision: "unknown".into(),
            ..TokenizerInfo::default()
        };
        Ok(MadeBy { tokenizer, bits: None })
    }

    /// The bits of a token: `given` ones must be the tokenizer's.
    ///
    /// # Errors
    /// They differ.
    pub(super) fn bits(&self, given: Option<u32>) -> anyhow::Result<Option<u32>> {
        match (self.bits, given) {
            (Some(bits), Some(given)) if bits != given => {
                let name = &self.tokenizer.name;
                Err(CheckFailed(format!("the tokenizer {name} has tokens of {bits} bits, the set of {given}")).into())
            }
            (known, given) => Ok(given.or(known)),
        }
    }
}
