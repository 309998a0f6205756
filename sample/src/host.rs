//! Batches whose tokens are drawn on the host, from any [`Decoder`].
//!
//! Shape suffixes: `b` batch (images), `c` sequences, `n` positions, `p` the two parts of a token, `v` vocabulary.

use crate::SampleError;
use crate::decoder::Decoder;
use crate::draw::{Facts, RowDraw};
use crate::guidance::Halves;
use crate::sampler::SamplerConfig;

/// Every position of a batch that was started: tokens `[B, N]`, row-major. `uniform_bnp` `[B, N, 2]`. `facts_bn`, where
/// they are wanted, become those of every token: low bits, then high bits.
///
/// # Errors
/// The decoder's, and logits that are not finite.
pub(crate) fn sample(
    decoder: &mut dyn Decoder,
    config: &SamplerConfig,
    halves: Halves,
    uniform_bnp: &[f64],
    facts_bn: Option<&mut Vec<[Facts; 2]>>,
) -> Result<Vec<u32>, SampleError> {
    let (n, low_bits) = (decoder.config().block_size as usize, decoder.config().factorized_bits[0]);
    let batch = uniform_bnp.len() / (2 * n);
    let facts_bn = facts_bn.map(|facts_bn| {
        facts_bn.resize(batch * n, Default::default());
        facts_bn.as_mut_slice()
    });
    let mut drawing = Drawing { config, halves, uniform_bnp, batch, n, drawer: RowDraw::default(), facts_bn };
    let mut tokens_bn = vec![0; batch * n];
    for t in 0..n {
        let pre_c = drawing.draw_c(0, t, decoder.pre_logits()?)?;
        let post_c = drawing.draw_c(1, t, decoder.post_logits(&pre_c)?)?;
        if t + 1 < n {
            decoder.accept(&pre_c, &post_c);
        }
        for ((tokens_n, pre), post) in tokens_bn.chunks_exact_mut(n).zip(&pre_c).zip(&post_c) {
            tokens_n[t] = pre | (post << low_bits);
        }
    }
    Ok(tokens_bn)
}

struct Drawing<'a> {
    config: &'a SamplerConfig,
    halves: Halves,
    uniform_bnp: &'a [f64],
    batch: usize,
    n: usize,
    drawer: RowDraw,
    facts_bn: Option<&'a mut [[Facts; 2]]>,
}

impl Drawing<'_> {
    /// One sub-token of every image, given to all of its sequences.
    fn draw_c(&mut self, part: usize, t: usize, logits_cv: &[f32]) -> Result<Vec<u32>, SampleError> {
        let rule = self.config.rule(part, t as i64, self.n as i64);
        let sequences = self.batch * self.halves.count();
        let vocab = logits_cv.len() / sequences;
        let row = |c: usize| &logits_cv[c * vocab..(c + 1) * vocab];
        let mut token_c = Vec::with_capacity(sequences);
        for image in 0..self.batch {
            let uncond_v = (self.halves == Halves::Both).then(|| row(self.batch + image));
            let uniform = self.uniform_bnp[(image * self.n + t) * 2 + part];
            let token = match &mut self.facts_bn {
                None => self.drawer.draw(row(image), uncond_v, &rule, uniform),
                Some(facts_bn) => {
                    let drawn = self.drawer.draw_with_facts(row(image), uncond_v, &rule, uniform);
                    drawn.map(|(token, facts)| {
                        facts_bn[image * self.n + t][part] = facts;
                        token
                    })
                }
            };
            token_c.push(token.ok_or(SampleError::NotLogits { position: t })?);
        }
        token_c.extend_from_within(..sequences - self.batch);
        Ok(token_c)
    }
}
