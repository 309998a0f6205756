//! `--tokenizer tiny`: the small tokenizer that is shipped inside the program.

use crate::ModelError;
use crate::weights::Weights;
use std::path::Path;

/// What it is called on the command line.
const NAME: &str = "tiny";
/// Safetensors. It downsamples 8 times and has 18 bits; how it was trained is in docs/src/tiny.md.
static BYTES: &[u8] = include_bytes!("../weights/tiny.safetensors");

/// Opens what `--tokenizer` names: `tiny`, or a file.
///
/// # Errors
/// As for [`Weights::open`].
pub fn open_named(name: &Path) -> Result<Weights, ModelError> {
    if name.as_os_str() == NAME && !name.exists() {
        return Weights::from_static(NAME, BYTES);
    }
    Weights::open(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tokenizer, Variant};

    #[test]
    fn the_shipped_tokenizer_is_whole_downsamples_8_times_and_has_18_bits() {
        let weights = open_named(Path::new(NAME)).unwrap();
        let tokenizer = Tokenizer::load(&weights, Variant::Raw, tch::Device::Cpu, tch::Kind::Float).unwrap();
        assert_eq!((tokenizer.architecture.factor(), tokenizer.architecture.z_channels), (8, 18));
    }
}
