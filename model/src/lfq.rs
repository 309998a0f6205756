//! Lookup-free quantization: a token is the sign pattern of the encoder's output.
//!
//! Bit `k` of a token is 1 where channel `k` of `h` is above 0 (0 itself gives bit 0); channel 0 is the token's
//! least significant bit. A code is the same pattern as -1 / +1 values, the decoder's input.
//! Shape suffixes: `b` batch, `z` channels, `h w` grid.

use tch::{Kind, Tensor};

/// Below this |h| an implementation's rounding may flip the bit; a job counts such bits.
pub const MARGIN: f64 = 1e-3;

/// Tokens of the encoder's output: `h [B, z, H, W]` to int32 `[B, H, W]`, each in `0 .. 2^z`.
pub fn tokens_of(h_bzhw: &Tensor) -> Tensor {
    bits_to_int(&h_bzhw.gt(0.0))
}

/// For each token the bits whose |h| lies within [`MARGIN`] of 0: `h [B, z, H, W]` to int32 `[B, H, W]`.
pub fn uncertain_of(h_bzhw: &Tensor) -> Tensor {
    bits_to_int(&h_bzhw.abs().le(MARGIN))
}

/// Bool `[B, z, H, W]` to int32 `[B, H, W]`, channel 0 being the least significant bit.
fn bits_to_int(bits_bzhw: &Tensor) -> Tensor {
    let bits = bits_bzhw.size()[1];
    // Made where it is needed: an upload would wait for the device.
    let place = Tensor::arange(bits, (Kind::Int, bits_bzhw.device()));
    let weight = place.ones_like().bitwise_left_shift(&place).view([1, bits, 1, 1]);
    (bits_bzhw.to_kind(Kind::Int) * weight).sum_dim_intlist([1i64].as_slice(), false, Kind::Int)
}

/// Codes of tokens: integer `[B, H, W]` to f32 `[B, z, H, W]` of -1 / +1, row-major.
pub fn codes_of(tokens_bhw: &Tensor, bits: i64) -> Tensor {
    let shift = Tensor::arange(bits, (Kind::Int64, tokens_bhw.device()));
    let bit_bhwz =
        tokens_bhw.to_kind(Kind::Int64).unsqueeze(-1).bitwise_right_shift(&shift).bitwise_and(1).to_kind(Kind::Float);
    (bit_bhwz * 2.0 - 1.0).permute([0, 3, 1, 2]).contiguous()
}

/// Signs of `h` (any shape) as -1 / +1, same shape; 0 gives -1.
pub fn signs_of(h: &Tensor) -> Tensor {
    h.gt(0.0).to_kind(h.kind()) * 2.0 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_0_is_the_least_significant_bit_and_zero_is_no_bit() {
        let h = Tensor::from_slice(&[0.5f32, -0.1, 0.0, 2.0]).view([1, 4, 1, 1]);
        assert_eq!(tokens_of(&h).int64_value(&[0, 0, 0]), 0b1001);
        assert_eq!(uncertain_of(&h).int64_value(&[0, 0, 0]), 0b0100);
    }

    #[test]
    fn codes_invert_tokens() {
        let tokens = Tensor::from_slice(&[0i64, 1, 262_143, 131_072]).view([1, 2, 2]);
        let codes = codes_of(&tokens, 18);
        assert_eq!(codes.size(), [1, 18, 2, 2]);
        assert_eq!(codes.double_value(&[0, 0, 0, 1]), 1.0);
        assert_eq!(codes.double_value(&[0, 1, 0, 1]), -1.0);
        assert!(tokens_of(&codes).to_kind(Kind::Int64).equal(&tokens));
    }
}
