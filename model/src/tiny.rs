//! `--tokenizer tiny` and `--tokenizer tiny-128`: the small tokenizers that are shipped inside the program.

use crate::ModelError;
use crate::weights::Weights;
use std::path::Path;

/// What they are called on the command line, and half-precision safetensors of 18 bits. The first downsamples 16 times, the
/// second, which is made for pictures of 128 pixels, 8 times. How they were trained is in docs/src/tiny.md.
static SHIPPED: [(&str, &[u8]); 2] = [
    ("tiny", include_bytes!("../weights/tiny.safetensors")),
    ("tiny-128", include_bytes!("../weights/tiny-128.safetensors")),
];

/// Opens what `--tokenizer` names: `tiny`, `tiny-128`, or a file.
///
/// # Errors
/// As for [`Weights::open`].
pub fn open_named(name: &Path) -> Result<Weights, ModelError> {
    match SHIPPED.iter().find(|(shipped, _)| name.as_os_str() == *shipped) {
        Some((shipped, bytes)) if !name.exists() => Weights::from_static(shipped, bytes),
        _ => Weights::open(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tokenizer, Variant};

    #[test]
    fn the_shipped_tokenizers_are_whole_and_have_18_bits() {
        for ((name, _), factor) in SHIPPED.iter().zip([16, 8]) {
            let weights = open_named(Path::new(name)).unwrap();
            let tokenizer = Tokenizer::load(&weights, Variant::Raw, tch::Device::Cpu, tch::Kind::Float).unwrap();
            assert_eq!((tokenizer.architecture.factor(), tokenizer.architecture.z_channels), (factor, 18), "{name}");
        }
    }
}
