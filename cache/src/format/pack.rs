//! Tokens to bits. The way back is [`crate::unpack`].
//!
//! Token i occupies bits `[i * bits, (i + 1) * bits)` of a packed row; bit n of a row is bit `n % 8` of byte `n / 8`
//! (least significant first); unused bits at the end are 0.

/// The widest token, in bits: what one unaligned 32-bit load can hold after a shift of up to 7.
pub const TOKEN_BITS_MAX: u32 = 24;

/// Bytes that `num_tokens` tokens of `bits` bits occupy: `ceil(num_tokens * bits / 8)`.
pub const fn packed_bytes(num_tokens: usize, bits: u32) -> usize {
    (num_tokens * bits as usize).div_ceil(8)
}

/// Packs `tokens` into `out`, least significant bit first.
///
/// `out` has exactly [`packed_bytes`]`(tokens.len(), bits)` bytes; all of them are written, spare bits as 0.
///
/// # Panics
/// When `bits` is not 1..=24, `out` has another length, or a token does not fit `bits` bits.
pub fn pack(tokens: &[u32], bits: u32, out: &mut [u8]) {
    assert!((1..=TOKEN_BITS_MAX).contains(&bits), "token width {bits} is not 1..={TOKEN_BITS_MAX}");
    let expected = packed_bytes(tokens.len(), bits);
    assert_eq!(out.len(), expected, "{} tokens of {bits} bits need another length", tokens.len());
    let mut seen = 0u32;
    let mut window = 0u64;
    let mut filled = 0u32;
    let mut position = 0;
    for &token in tokens {
        seen |= token;
        window |= u64::from(token) << filled;
        filled += bits;
        // Flushing 4 bytes at a time keeps `filled` below 32 + 24 bits, so the window never overflows.
        if filled >= 32 {
            out[position..position + 4].copy_from_slice(&(window as u32).to_le_bytes());
            position += 4;
            window >>= 32;
            filled -= 32;
        }
    }
    assert!(seen >> bits == 0, "a token does not fit {bits} bits");
    let rest = out.len() - position;
    out[position..].copy_from_slice(&window.to_le_bytes()[..rest]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These bytes must never change: they are the format.
    #[test]
    fn pinned_bytes() {
        let tokens = [0x2_5A5A, 0x1_2345, 0x3_FFFF, 0, 1];
        let mut out = [0xEEu8; 12];
        pack(&tokens, 18, &mut out);
        assert_eq!(out, [0x5A, 0x5A, 0x16, 0x8D, 0xF4, 0xFF, 0x3F, 0x00, 0x00, 0x01, 0x00, 0x00]);
    }

    #[test]
    #[should_panic(expected = "does not fit 18 bits")]
    fn a_token_that_is_too_wide_panics() {
        pack(&[1 << 18], 18, &mut [0; 3]);
    }
}
