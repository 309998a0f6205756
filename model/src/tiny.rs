//! `--tokenizer tiny` and `--checkpoint tiny`: the small models that are shipped inside the program.

use crate::ModelError;
use crate::weights::{Weights, expanded};
use flate2::read::GzDecoder;
use std::io::Read;
use std::path::Path;
use std::sync::OnceLock;

/// What both are called on the command line.
const NAME: &str = "tiny";

/// It downsamples 8 times and has 18 bits; how it was trained is in docs/src/tiny.md.
static TOKENIZER: Shipped = Shipped::new(include_bytes!("../weights/tiny.safetensors.gz"));
/// An autoregressive model of its tokens, of the twelve classes of data/photos; docs/src/tiny.md has its training, too.
static AR: Shipped = Shipped::new(include_bytes!("../weights/tiny-ar.safetensors.gz"));

/// Opens what `--tokenizer` names: `tiny`, or a file.
///
/// # Errors
/// As for [`Weights::open`].
pub fn open_tokenizer(name: &Path) -> Result<Weights, ModelError> {
    TOKENIZER.open(name)
}

/// Opens what `--checkpoint` names: `tiny`, or a file.
///
/// # Errors
/// As for [`Weights::open`].
pub(crate) fn open_ar(name: &Path) -> Result<Weights, ModelError> {
    AR.open(name)
}

/// Weights inside the program, in 8 bits, compressed with gzip.
struct Shipped {
    stored: &'static [u8],
    /// In fp32, from the first use on.
    expanded: OnceLock<Vec<u8>>,
}

impl Shipped {
    const fn new(stored: &'static [u8]) -> Shipped {
        Shipped { stored, expanded: OnceLock::new() }
    }

    /// These weights, if `name` is `tiny` and no file of the user has that name.
    fn open(&'static self, name: &Path) -> Result<Weights, ModelError> {
        if name.as_os_str() != NAME || name.exists() {
            return Weights::open(name);
        }
        if self.expanded.get().is_none() {
            let bytes = expanded(NAME, inflated(self.stored))?;
            // Another thread may have been faster, with the same bytes.
            let _ = self.expanded.set(bytes);
        }
        Weights::from_static(NAME, self.expanded.get().map_or(&[], Vec::as_slice))
    }
}

/// The file in `stored`. It stays in memory, as [`Weights::from_static`] wants it: a few MB, once.
fn inflated(stored: &[u8]) -> &'static [u8] {
    let mut bytes = Vec::new();
    GzDecoder::new(stored).read_to_end(&mut bytes).expect("the program's own file is complete");
    bytes.leak()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ar::ArWeights;
    use crate::weights::tensors_fingerprint;
    use crate::{Tokenizer, Variant};

    #[test]
    fn the_shipped_models_are_complete_and_match() {
        let weights = open_tokenizer(Path::new(NAME)).unwrap();
        let tokenizer = Tokenizer::load(&weights, Variant::Raw, tch::Device::Cpu, tch::Kind::Float).unwrap();
        assert_eq!((tokenizer.architecture.factor(), tokenizer.architecture.z_channels), (8, 18));

        let ar = ArWeights::open(Path::new(NAME), None).unwrap();
        let params = weights.tokenizer_params(Variant::Raw).unwrap();
        let encoder = tensors_fingerprint(params.iter().filter(|(name, _)| name.starts_with("encoder.")));
        assert_eq!(ar.tokenizer, Some(encoder), "it was trained on the tokens of this tokenizer");
        assert_eq!((ar.config.bits(), ar.config.block_size, ar.classes.len()), (18, 256, ar.config.class_num as usize));
    }
}
