//! Weights as the x86 kernels want them.
//!
//! A weight has up to 23 bits. Split into its low 15 and its high 8 bits, both halves fit an i16, and `madd` multiplies and
//! adds two taps at once; the sum of the high products is shifted back by 15. Intermediate sums may wrap, the total fits
//! 32 bits, and addition modulo 2^32 is exact, so the result equals the scalar kernel's to the bit.

use super::coefficients::Coefficients;

/// Low bits of a weight that the kernels multiply apart from the high ones: both halves then fit in an i16.
pub(super) const LOW_BITS: u32 = 15;

/// Bytes that a step of the horizontal kernels loads: 2 pixels are 6, the rest is ignored.
const LOAD_BYTES: usize = 16;
/// Taps of a step of the horizontal kernels.
const STEP_TAPS: usize = 2;
/// Bytes from step to step.
pub(super) const STEP_BYTES: usize = STEP_TAPS * 3;

/// Weights of a step of the horizontal kernels: the low halves, `w0 w1` for red, green, blue and nothing, and the high ones.
pub(super) type Step = [[i16; 8]; 2];

fn low(weight: i32) -> i16 {
    (weight & ((1 << LOW_BITS) - 1)) as i16
}

fn high(weight: i32) -> i16 {
    (weight >> LOW_BITS) as i16
}

/// Weights laid out for the horizontal kernels.
#[derive(Debug, Default)]
pub(crate) struct Across {
    /// For all outputs, one after the other, their steps.
    pub(super) steps: Vec<Step>,
    /// For every output: bytes from the row's beginning to its first pixel, and its steps.
    pub(super) outputs: Vec<(usize, usize)>,
    /// Outputs, from the first, whose steps stay within the row. The rest is left to the scalar kernel.
    pub(super) within: usize,
}

impl Across {
    /// Lays out the weights for rows that begin and end with the first and last pixel that the outputs read.
    pub(crate) fn pack(&mut self, coefficients: &Coefficients) {
        self.steps.clear();
        self.outputs.clear();
        let source = coefficients.source();
        let row_bytes = source.len() * 3;
        let mut all_within = true;
        self.within = 0;
        for (first, weights) in coefficients.iter() {
            let (start, steps) = ((first - source.start as usize) * 3, weights.len().div_ceil(STEP_TAPS));
            all_within &= start + steps.saturating_sub(1) * STEP_BYTES + LOAD_BYTES <= row_bytes;
            self.within += usize::from(all_within);
            self.outputs.push((start, steps));
            self.steps.extend(weights.chunks(STEP_TAPS).map(pack_step));
        }
    }
}

fn pack_step(weights: &[i32]) -> Step {
    let (first, second) = (weights[0], weights.get(1).copied().unwrap_or(0));
    let words = |half: fn(i32) -> i16| {
        let (a, b) = (half(first), half(second));
        [a, b, a, b, a, b, 0, 0]
    };
    [words(low), words(high)]
}

/// Weights laid out for the vertical kernels.
#[derive(Debug, Default)]
pub(crate) struct Down {
    /// For every two taps the low halves and the high halves, each pair in one word. A last single tap is paired with 0.
    pub(super) pairs: Vec<(i32, i32)>,
    /// For every output: where its pairs begin, and its taps.
    pub(super) outputs: Vec<(usize, usize)>,
}

impl Down {
    pub(crate) fn pack(&mut self, coefficients: &Coefficients) {
        self.pairs.clear();
        self.outputs.clear();
        for (_, weights) in coefficients.iter() {
            self.outputs.push((self.pairs.len(), weights.len()));
            self.pairs.extend(weights.chunks(2).map(|pair| {
                let second = pair.get(1).copied().unwrap_or(0);
                (two_words(low(pair[0]), low(second)), two_words(high(pair[0]), high(second)))
            }));
        }
    }

    /// Pairs and number of taps of output `o`: rows of a source of `source_bytes` bytes, `stride` bytes apart.
    ///
    /// # Panics
    /// If these rows of `out_bytes` bytes do not fit in the source: the kernels read them unchecked.
    pub(super) fn checked(
        &self,
        o: usize,
        source_bytes: usize,
        stride: usize,
        out_bytes: usize,
    ) -> (&[(i32, i32)], usize) {
        let (start, taps) = self.outputs[o];
        let reach = if taps == 0 { 0 } else { (taps - 1) * stride + out_bytes };
        assert!(source_bytes >= reach, "the rows that the weights ask for are there");
        (&self.pairs[start..start + taps.div_ceil(2)], taps)
    }
}

/// Two i16 in an i32, the first in the low half.
fn two_words(first: i16, second: i16) -> i32 {
    (i32::from(second) << 16) | i32::from(first as u16)
}
