//! Which texts a block of keys may hold, in two bytes per key.
//!
//! Every run of [`GRAM_BYTES`] bytes of every key sets a bit. A text can only be part of a key of the block where the bits of
//! all of its own runs are set.

/// Bytes of a run. A shorter text may be in any block.
const GRAM_BYTES: usize = 5;

/// Size of a block's signature: a sixth of the bits are set by keys that differ in five digits.
pub(super) const SIGNATURE_BYTES: usize = 2048;

/// The bits of a text.
fn bits(text: &[u8]) -> impl Iterator<Item = usize> {
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
    text.windows(GRAM_BYTES).map(|gram| {
        let number = gram.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        (number.wrapping_mul(FACTOR) >> 32) as usize % (8 * SIGNATURE_BYTES)
    })
}

/// Adds a key, of which the bytes before `known` are those of a key that was added.
pub(super) fn add(signature: &mut [u8], key: &[u8], known: usize) {
    let first = known.saturating_sub(GRAM_BYTES - 1);
    bits(&key[first..]).for_each(|bit| signature[bit / 8] |= 1 << (bit % 8));
}

/// A text that is looked for.
pub(super) struct Wanted {
    bits: Vec<usize>,
}

impl Wanted {
    pub(super) fn new(text: &[u8]) -> Wanted {
        Wanted { bits: bits(text).collect() }
    }

    /// Whether a block with this signature may hold the text.
    pub(super) fn may_be_in(&self, signature: &[u8]) -> bool {
        self.bits.iter().all(|bit| signature[bit / 8] >> (bit % 8) & 1 == 1)
    }

    /// Whether it may be in any block.
    pub(super) fn is_anywhere(&self) -> bool {
        self.bits.is_empty()
    }
}
