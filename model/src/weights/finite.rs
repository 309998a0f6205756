//! Detection of weights that are not finite, as a diverged training leaves them.

use crate::ModelError;
use std::path::Path;
use tch::{Kind, Tensor};

/// Counts the values of a tensor that are infinite or NaN, and refuses it if there are any. The file's bytes may have some that
/// a strided tensor does not use.
///
/// # Errors
/// [`ModelError::NotFinite`].
pub(super) fn check(path: &Path, name: &str, tensor: &Tensor) -> Result<(), ModelError> {
    let num_finite = tensor.isfinite().sum(Kind::Int64).int64_value(&[]);
    let numel = tensor.numel() as i64;
    if num_finite == numel {
        return Ok(());
    }
    Err(ModelError::NotFinite { path: path.into(), name: name.into(), count: numel - num_finite, numel })
}

/// Whether every element of `kind` is finite. Infinite and NaN are the numbers whose exponent has all bits set.
pub(super) fn all_finite(kind: Kind, bytes: &[u8]) -> bool {
    match kind {
        Kind::Double => none_has(bytes, u64::from_le_bytes, 0x7ff0_0000_0000_0000),
        Kind::Float => none_has(bytes, u32::from_le_bytes, 0x7f80_0000),
        Kind::Half => none_has(bytes, u16::from_le_bytes, 0x7c00),
        Kind::BFloat16 => none_has(bytes, u16::from_le_bytes, 0x7f80),
        _ => true,
    }
}

/// Whether no element has all bits of `exponent` set.
fn none_has<const N: usize, T>(bytes: &[u8], number: impl Fn([u8; N]) -> T, exponent: T) -> bool
where
    T: Copy + Eq + std::ops::BitAnd<Output = T>,
{
    // Whole blocks, without leaving one early: such a loop becomes vector instructions.
    const BLOCK: usize = 4096;
    let elements = |block: &[u8]| -> bool {
        let (numbers, _) = block.as_chunks::<N>();
        numbers.iter().fold(false, |found, element| found | (number(*element) & exponent == exponent))
    };
    !bytes.chunks(BLOCK).any(elements)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_value_in_any_kind_is_found() {
        for kind in [Kind::Double, Kind::Float, Kind::Half, Kind::BFloat16] {
            for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                for at in [0, 2047, 2048, 4999] {
                    // The largest finite half-precision number must pass.
                    let x = Tensor::full([5000], 65504.0, (Kind::Double, tch::Device::Cpu)).to_kind(kind);
                    assert!(all_finite(kind, &bytes(&x)));
                    let _ = x.get(at).fill_(bad);
                    assert!(!all_finite(kind, &bytes(&x)), "{bad} of {kind:?} at {at}");
                }
            }
        }
        assert!(all_finite(Kind::Int64, &[0xff; 64]));
    }

    fn bytes(tensor: &Tensor) -> Vec<u8> {
        let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
        tensor.copy_data_u8(&mut bytes, tensor.numel());
        bytes
    }
}
