//! From a row of logits to a token, on the host: guidance and temperature in one pass, filters, and the inverse of the
//! cumulative distribution at one uniform number. No tensor operations.
//!
//! Shape suffix: `v` vocabulary.

use crate::filter::{Scratch, top_k, top_p};

/// Temperatures below it are 0: dividing by less overflows.
const COLDEST: f64 = 1e-5;

/// How a sub-token is drawn at one position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rule {
    /// Guidance scale at this position.
    pub cfg_scale: f64,
    /// Logits are divided by it; 0 takes the most likely token.
    pub temperature: f64,
    /// Number of most likely tokens that may be drawn; 0: all.
    pub top_k: i64,
    /// Probability mass of the most likely tokens that may be drawn, 0 to 1; 1: all.
    pub top_p: f64,
}

impl Rule {
    /// Whether the most likely token is taken, for any random number.
    pub(crate) fn is_greedy(&self) -> bool {
        self.top_k == 1 || self.temperature < COLDEST
    }
}

/// Statistics of the distribution that a token was drawn from: after guidance and temperature (1 where the temperature is 0),
/// before filters.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub(crate) struct DrawStats {
    /// Entropy in nats.
    pub entropy: f64,
    /// Probability of all tokens that the filters leave, 0 to 1.
    pub kept: f64,
    /// Probability of the token that was drawn, 0 to 1.
    pub chosen: f64,
}

/// Draws from rows of logits; its memory is reused from row to row.
#[derive(Debug, Default)]
pub(crate) struct RowDraw {
    logits_v: Vec<f32>,
    scratch: Scratch,
}

impl RowDraw {
    /// The token at `uniform` (0 <= uniform < 1). `uncond_v` is the row without a class, where there is guidance. `None`
    /// when the logits are not finite, so that there is no distribution.
    pub(crate) fn draw(&mut self, cond_v: &[f32], uncond_v: Option<&[f32]>, rule: &Rule, uniform: f64) -> Option<u32> {
        let max = self.guide(cond_v, uncond_v, rule)?;
        Some(self.pick(max, rule, uniform))
    }

    /// [`RowDraw::draw`], with the statistics of the distribution.
    pub(crate) fn draw_with_stats(
        &mut self,
        cond_v: &[f32],
        uncond_v: Option<&[f32]>,
        rule: &Rule,
        uniform: f64,
    ) -> Option<(u32, DrawStats)> {
        let max = self.guide(cond_v, uncond_v, rule)?;
        let weights_v: Vec<f64> = self.logits_v.iter().map(|&logit| f64::from(logit - max).exp()).collect();
        let total: f64 = weights_v.iter().sum();
        let share = |weight: &f64| weight / total;
        // The limit of p ln p at 0 is 0; computed, it would be NaN.
        let probabilities = weights_v.iter().map(share).filter(|p| *p > 0.0);
        let entropy = -probabilities.map(|p| p * p.ln()).sum::<f64>();
        let token = self.pick(max, rule, uniform);
        let chosen = share(&weights_v[token as usize]);
        // Filters leave minus infinity, and inverting turns it to 0.
        let is_kept = |kept: f32| if rule.is_greedy() { kept == max } else { kept > 0.0 };
        let kept_v = weights_v.iter().zip(&self.logits_v).filter(|(_, kept)| is_kept(**kept));
        let kept = kept_v.map(|(weight, _)| share(weight)).sum();
        Some((token, DrawStats { entropy, kept, chosen }))
    }

    /// The token from the guided logits, whose largest is `max`.
    fn pick(&mut self, max: f32, rule: &Rule, uniform: f64) -> u32 {
        if rule.is_greedy() {
            return self.logits_v.iter().position(|&logit| logit == max).map_or(0, |token| token as u32);
        }
        top_k(&mut self.logits_v, rule.top_k as usize, &mut self.scratch);
        top_p(&mut self.logits_v, rule.top_p, max, &mut self.scratch);
        self.invert(max, uniform)
    }

    /// Computes guided logits, divided by the temperature. Returns the largest; `None` when they are no distribution.
    fn guide(&mut self, cond_v: &[f32], uncond_v: Option<&[f32]>, rule: &Rule) -> Option<f32> {
        let scale = rule.cfg_scale as f32;
        let temperature = if rule.is_greedy() { 1.0 } else { rule.temperature as f32 };
        self.logits_v.clear();
        match uncond_v {
            // At 1 the sum below is the conditional row only up to rounding.
            Some(uncond_v) if scale != 1.0 => {
                let guided = cond_v.iter().zip(uncond_v).map(|(c, u)| (u + (c - u) * scale) / temperature);
                self.logits_v.extend(guided);
            }
            _ => self.logits_v.extend(cond_v.iter().map(|c| c / temperature)),
        }
        let max = self.logits_v.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        // Minus infinity is a probability of 0 and welcome; NaN spreads to the sum, infinity is the maximum.
        (max.is_finite() && !self.logits_v.iter().sum::<f32>().is_nan()).then_some(max)
    }

    /// The first token at which the cumulative probability exceeds `uniform`: one of probability 0 is never drawn.
    fn invert(&mut self, max: f32, uniform: f64) -> u32 {
        let mut total = 0.0;
        for logit in &mut self.logits_v {
            *logit = (*logit - max).exp();
            total += f64::from(*logit);
        }
        let target = uniform * total;
        let (mut mass, mut last) = (0.0, 0);
        for (token, &weight) in self.logits_v.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
            mass += f64::from(weight);
            last = token as u32;
            if mass > target {
                break;
            }
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Rule = Rule { cfg_scale: 1.0, temperature: 1.0, top_k: 0, top_p: 1.0 };

    fn draw(cond: &[f32], uncond: Option<&[f32]>, rule: Rule, uniform: f64) -> Option<u32> {
        RowDraw::default().draw(cond, uncond, &rule, uniform)
    }

    #[test]
    fn tokens_are_drawn_as_often_as_they_are_likely() {
        let logits: Vec<f32> = [0.1f32, 0.0, 0.4, 0.3, 0.2].iter().map(|p| p.ln()).collect();
        let mut counts = [0; 5];
        for i in 0..1000 {
            counts[draw(&logits, None, PLAIN, (f64::from(i) + 0.5) / 1000.0).unwrap() as usize] += 1;
        }
        assert_eq!(counts, [100, 0, 400, 300, 200]);
        assert_eq!(draw(&logits, None, PLAIN, 1.0 - 2f64.powi(-53)), Some(4));
        assert_eq!(draw(&logits, None, PLAIN, 0.0), Some(0));
    }

    #[test]
    fn guidance_extrapolates_from_the_unconditional_logits() {
        let (cond, uncond) = ([1.0f32, 2.0, 0.0], [3.0f32, 2.0, 1.9]);
        let greedy = |cfg_scale| draw(&cond, Some(&uncond), Rule { cfg_scale, top_k: 1, ..PLAIN }, 0.9);
        assert_eq!(greedy(0.0), Some(0));
        assert_eq!(greedy(1.0), Some(1));
        assert_eq!(greedy(0.4), Some(0));
        assert_eq!(greedy(3.0), Some(1));
        // A scale of 1 draws the same tokens as the class alone.
        assert_eq!(draw(&cond, Some(&uncond), PLAIN, 0.3), draw(&cond, None, PLAIN, 0.3));
    }

    #[test]
    fn temperature_flattens_and_zero_is_greedy() {
        let logits = [0.0f32, 4.0, 0.0];
        let count = |temperature| {
            let rule = Rule { temperature, ..PLAIN };
            (0..100).filter(|i| draw(&logits, None, rule, f64::from(*i) / 100.0) == Some(1)).count()
        };
        assert_eq!(count(0.0), 100);
        assert!(count(1.0) > count(4.0) && count(4.0) > 33, "{} {}", count(1.0), count(4.0));
    }

    #[test]
    fn stats_are_of_the_distribution_before_filters() {
        let logits: Vec<f32> = [0.5f32, 0.25, 0.125, 0.125].iter().map(|p| p.ln()).collect();
        let stats = |rule: Rule, uniform| RowDraw::default().draw_with_stats(&logits, None, &rule, uniform).unwrap();
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} {b}");
        let (token, all) = stats(PLAIN, 0.6);
        near(all.entropy, 1.75 * std::f64::consts::LN_2);
        near(all.kept, 1.0);
        near(all.chosen, 0.25);
        assert_eq!(Some(token), draw(&logits, None, PLAIN, 0.6));
        let (_, two) = stats(Rule { top_k: 2, ..PLAIN }, 0.9);
        near(two.kept, 0.75);
        near(two.chosen, 0.25);
        let (_, greedy) = stats(Rule { top_k: 1, ..PLAIN }, 0.9);
        near(greedy.kept, 0.5);
        near(greedy.chosen, 0.5);
    }

    #[test]
    fn logits_that_are_not_finite_give_no_token() {
        for bad in [f32::NAN, f32::INFINITY] {
            assert_eq!(draw(&[0.0, bad, 1.0], None, PLAIN, 0.5), None);
        }
        assert_eq!(draw(&[f32::NEG_INFINITY; 3], None, PLAIN, 0.5), None);
        assert_eq!(draw(&[f32::NEG_INFINITY, 0.0], None, PLAIN, 0.5), Some(1));
    }
}
