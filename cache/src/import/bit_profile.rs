//! How the channels of a tokenizer behave: the means to tell in which order a set of tokens has its bits.
//!
//! Turning the bits round gives channels other numbers and changes nothing else, so tokens by themselves cannot tell. But
//! channels of one tokenizer differ: in their share of ones, in how often neighbours in a picture agree, and in which pairs go
//! together. Those of a cache whose order is known look like the set in one order and not in the other.

use crate::format::bit_order::BitOrder;
use crate::format::grid::GridSpec;
use crate::read::cache::TokenCache;
use std::fmt;

/// Grids of a cache that a profile is made of.
const GRIDS_MAX: usize = 1024;

/// Parts of a sample that are judged one by one, too.
const PARTS: usize = 4;

/// Likeness, a correlation, that the order which is taken must have at least: three times what two unrelated tokenizers of 18
/// channels have by chance.
const LIKENESS_MIN: f64 = 0.5;

/// By how much it must be more alike than the other one.
const LEAD_MIN: f64 = 0.25;

/// What channels do, by numbers that are 0 for fair and independent ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BitProfile {
    bits: usize,
    /// 2 * (share of ones) - 1 of each channel.
    balance: Vec<f64>,
    /// Correlation of each channel with itself one token to the right and one token below, mean of both.
    neighbours: Vec<f64>,
    /// Covariance of signs of each pair of channels, `[bits, bits]`.
    pairs: Vec<f64>,
}

/// Which order a sample has, and how sure that is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OrderFound {
    /// The order; `None`: it cannot be told.
    pub order: Option<BitOrder>,
    /// How much the sample is like the reference when channel 0 is the lowest bit, -1 to 1.
    pub low_first: f64,
    /// The same for the highest bit.
    pub high_first: f64,
}

impl fmt::Display for OrderFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "likeness of the channels {:.2} low-first, {:.2} high-first", self.low_first, self.high_first)
    }
}

impl BitProfile {
    /// The profile of `tokens`, `[grids, height, width]`, with channel 0 lowest.
    ///
    /// # Panics
    /// When `tokens` does not hold whole grids.
    pub fn of(tokens: &[u32], grid: GridSpec) -> BitProfile {
        let (bits, width, num_tokens) = (grid.bits as usize, grid.width as usize, grid.num_tokens());
        assert_eq!(tokens.len() % num_tokens, 0, "whole grids");
        let (mut ones, mut pairs) = (vec![0u64; bits], vec![0i64; bits * bits]);
        let (mut agreeing, mut num_neighbours) = (vec![0u64; bits], 0u64);
        for grid in tokens.chunks_exact(num_tokens) {
            for (place, token) in grid.iter().enumerate() {
                for channel in 0..bits {
                    ones[channel] += u64::from(token >> channel & 1);
                    // A pair agrees where the exclusive or of the token with its channel spread out is 0.
                    let spread = 0u32.wrapping_sub(token >> channel & 1);
                    let unlike = token ^ spread;
                    for (other, pair) in pairs[channel * bits..(channel + 1) * bits].iter_mut().enumerate() {
                        *pair += 1 - 2 * i64::from(unlike >> other & 1);
                    }
                }
                let right = (place % width + 1 < width).then(|| grid[place + 1]);
                for neighbour in right.into_iter().chain(grid.get(place + width).copied()) {
                    num_neighbours += 1;
                    let alike = !(token ^ neighbour);
                    (0..bits).for_each(|channel| agreeing[channel] += u64::from(alike >> channel & 1));
                }
            }
        }
        let num_tokens = tokens.len().max(1) as f64;
        let balance: Vec<f64> = ones.iter().map(|ones| 2.0 * *ones as f64 / num_tokens - 1.0).collect();
        let neighbours = (0..bits).map(|channel| {
            let product = 2.0 * agreeing[channel] as f64 / num_neighbours.max(1) as f64 - 1.0;
            correlation_of(product, balance[channel])
        });
        let neighbours = neighbours.collect();
        let pair = |i: usize| pairs[i] as f64 / num_tokens - balance[i / bits] * balance[i % bits];
        let pairs = (0..bits * bits).map(pair).collect();
        BitProfile { bits, balance, neighbours, pairs }
    }

    /// The profile of a cache.
    pub fn of_cache(cache: &TokenCache) -> BitProfile {
        let (grid, rows) = (cache.grid(), cache.num_rows());
        let count = rows.min(GRIDS_MAX);
        let mut tokens = vec![0; count * grid.num_tokens()];
        for (i, tokens) in tokens.chunks_exact_mut(grid.num_tokens()).enumerate() {
            cache.tokens_into((i as u128 * rows as u128 / count as u128) as usize, tokens);
        }
        BitProfile::of(&tokens, grid)
    }

    /// The same with the channels in reverse.
    fn reversed(&self) -> BitProfile {
        let reverse = |values: &[f64]| values.iter().rev().copied().collect::<Vec<_>>();
        BitProfile {
            bits: self.bits,
            balance: reverse(&self.balance),
            neighbours: reverse(&self.neighbours),
            pairs: reverse(&self.pairs),
        }
    }

    /// How much two profiles are alike, -1 to 1: the mean of the correlations of their three parts.
    fn likeness(&self, other: &BitProfile) -> f64 {
        let above = |profile: &BitProfile| {
            let place = |i: usize| i / profile.bits < i % profile.bits;
            profile.pairs.iter().enumerate().filter(|(i, _)| place(*i)).map(|(_, pair)| *pair).collect::<Vec<_>>()
        };
        let balance = correlation(&self.balance, &other.balance);
        let neighbours = correlation(&self.neighbours, &other.neighbours);
        (balance + neighbours + correlation(&above(self), &above(other))) / 3.0
    }

    /// In which order `tokens` (`[grids, height, width]`, as they are stored) have their bits, if this is the profile of a cache
    /// of the same tokenizer.
    ///
    /// An order is found only if it makes the sample like this profile, clearly more so than the other order, and in each
    /// quarter of the sample.
    pub fn order_of(&self, tokens: &[u32], grid: GridSpec) -> OrderFound {
        let judge = |tokens: &[u32]| {
            let profile = BitProfile::of(tokens, grid);
            (self.likeness(&profile), self.likeness(&profile.reversed()))
        };
        let (low_first, high_first) = judge(tokens);
        let grids = tokens.len() / grid.num_tokens();
        let bound = |part: usize| part * grids / PARTS * grid.num_tokens();
        let votes: Vec<bool> = (0..PARTS)
            .map(|part| &tokens[bound(part)..bound(part + 1)])
            .filter(|part| !part.is_empty())
            .map(judge)
            .map(|(low, high)| low > high)
            .collect();
        let is_low = low_first > high_first;
        let is_clear = low_first.max(high_first) >= LIKENESS_MIN && (low_first - high_first).abs() >= LEAD_MIN;
        let fits = self.bits == grid.bits as usize && is_clear && votes.iter().all(|vote| *vote == is_low);
        let order = if is_low { BitOrder::LowFirst } else { BitOrder::HighFirst };
        OrderFound { order: fits.then_some(order), low_first, high_first }
    }
}

/// The correlation of two equally distributed signs of which the mean product and the mean are known.
fn correlation_of(product: f64, mean: f64) -> f64 {
    let variance = 1.0 - mean * mean;
    if variance > 1e-9 { (product - mean * mean) / variance } else { 0.0 }
}

/// Pearson's; 0 where one side does not vary.
fn correlation(a: &[f64], b: &[f64]) -> f64 {
    if a.len() != b.len() || a.is_empty() {
        return 0.0;
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a - mean_a, b - mean_b);
        (ab, aa, bb) = (ab + a * b, aa + a * a, bb + b * b);
    }
    if aa * bb > 1e-18 { ab / (aa * bb).sqrt() } else { 0.0 }
}
