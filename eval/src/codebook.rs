//! Statistics of codes and bits of the codebook.

use serde::Serialize;

/// Counts of every code.
#[derive(Debug)]
pub(crate) struct CodeCounter {
    counts: Vec<u64>,
    bits: u32,
}

/// Use of the codebook by some tokens.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CodebookUse {
    /// Tokens that were counted.
    pub tokens: u64,
    /// Number of codes: 2^bits.
    pub codebook_size: usize,
    /// Number of codes that occur.
    pub distinct_codes: usize,
    /// `distinct_codes / codebook_size`, 0 to 1.
    pub codebook_utilization: f64,
    /// For every bit of a token, from the least significant one: the fraction of tokens in which it is 1.
    pub bit_balance: Vec<f64>,
    /// Bits that have the same value in every token.
    pub dead_bits: Vec<u32>,
}

impl CodeCounter {
    /// A counter for tokens of `bits` bits.
    pub(crate) fn new(bits: u32) -> CodeCounter {
        CodeCounter { counts: vec![0; 1 << bits], bits }
    }

    /// Counts tokens, each below 2^bits.
    pub(crate) fn push(&mut self, tokens: &[i64]) {
        tokens.iter().for_each(|&token| self.counts[token as usize] += 1);
    }

    /// The statistics so far.
    pub(crate) fn finish(&self) -> CodebookUse {
        let tokens: u64 = self.counts.iter().sum();
        let distinct_codes = self.counts.iter().filter(|&&count| count > 0).count();
        let ones = |bit: u32| -> u64 {
            let with_bit = self.counts.iter().enumerate().filter(|(code, _)| code >> bit & 1 == 1);
            with_bit.map(|(_, count)| count).sum()
        };
        let ones: Vec<u64> = (0..self.bits).map(ones).collect();
        let is_dead = |bit: &u32| matches!(ones[*bit as usize], n if n == 0 || n == tokens);
        CodebookUse {
            tokens,
            codebook_size: self.counts.len(),
            distinct_codes,
            codebook_utilization: distinct_codes as f64 / self.counts.len() as f64,
            bit_balance: ones.iter().map(|&ones| ones as f64 / tokens.max(1) as f64).collect(),
            dead_bits: (0..self.bits).filter(is_dead).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_codes_are_counted() {
        let mut counter = CodeCounter::new(3);
        counter.push(&[0b001, 0b011, 0b001]);
        counter.push(&[0b001]);
        let used = counter.finish();
        assert_eq!((used.tokens, used.codebook_size, used.distinct_codes), (4, 8, 2));
        assert_eq!(used.bit_balance, [1.0, 0.25, 0.0]);
        assert_eq!(used.dead_bits, [0, 2]);
    }
}
