//! `--tokenizer tiny`: the small tokenizer that is shipped inside the program.

use crate::ModelError;
use crate::weights::Weights;
use std::path::Path;

/// What it is called on the command line.
pub const NAME: &str = "tiny";

/// Half-precision safetensors, 16x downsampling, 18 bits; how it was trained is in docs/src/tiny.md.
static BYTES: &[u8] = include_bytes!("../weights/tiny.safetensors");

/// Opens what `--tokenizer` names: `tiny`, or a file.
///
/// # Errors
/// As for [`Weights::open`].
pub fn open_named(name: &Path) -> Result<Weights, ModelError> {
    if name.as_os_str() == NAME && !name.exists() { Weights::from_static(NAME, BYTES) } else { Weights::open(name) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tokenizer, Variant};

    #[test]
    fn the_shipped_tokenizer_is_whole_and_downsamples_by_16_to_18_bits() {
        let weights = open_named(Path::new(NAME)).unwrap();
        let tokenizer = Tokenizer::load(&weights, Variant::Raw, tch::Device::Cpu, tch::Kind::Float).unwrap();
        assert_eq!((tokenizer.architecture.factor(), tokenizer.architecture.z_channels), (16, 18));
    }
}
