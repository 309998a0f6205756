//! Batches whose tokens are drawn on the host, from any [`Decoder`].
//!
//! Shape suffixes: `b` batch (images), `c` sequences, `n` positions, `p` the two parts of a token, `v` vocabulary.

use crate::SampleError;
use crate::decoder::Decoder;
use crate::draw::{DrawStats, RowDraw};
use crate::guidance::GuidanceMode;
use crate::sampler::SamplerConfig;

/// Every position of a batch that was started: tokens `[B, N]`, row-major. `uniform_bnp` `[B, N, 2]`. `stats_bn`, where
/// they are wanted, become those of every token: low bits, then high bits.
///
/// # Errors
/// The decoder's, and logits that are not finite.
pub(crate) fn sample(
    decoder: &mut dyn Decoder,
    config: &SamplerConfig,
    mode: GuidanceMode,
    uniform_bnp: &[f64],
    stats_bn: Option<&mut Vec<[DrawStats; 2]>>,
) -> Result<Vec<u32>, SampleError> {
    let (n, low_bits) = (decoder.config().block_size as usize, decoder.config().factorized_bits[0]);
    let batch = uniform_bnp.len() / (2 * n);
    let stats_bn = stats_bn.map(|stats_bn| {
        stats_bn.resize(batch * n, Default::default());
        stats_bn.as_mut_slice()
    });
    let mut drawing = Drawing { config, mode, uniform_bnp, batch, n, drawer: RowDraw::default(), stats_bn };
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
    mode: GuidanceMode,
    uniform_bnp: &'a [f64],
    batch: usize,
    n: usize,
    drawer: RowDraw,
    stats_bn: Option<&'a mut [[DrawStats; 2]]>,
}

impl Drawing<'_> {
    /// One sub-token of every image, given to all of its sequences.
    fn draw_c(&mut self, part: usize, t: usize, logits_cv: &[f32]) -> Result<Vec<u32>, SampleError> {
        let rule = self.config.rule(part, t as i64, self.n as i64);
        let sequences = self.batch * self.mode.count();
        let vocab = logits_cv.len() / sequences;
        let row = |c: usize| &logits_cv[c * vocab..(c + 1) * vocab];
        let mut token_c = Vec::with_capacity(sequences);
        for image in 0..self.batch {
            let uncond_v = (self.mode == GuidanceMode::Both).then(|| row(self.batch + image));
            let uniform = self.uniform_bnp[(image * self.n + t) * 2 + part];
            let token = match &mut self.stats_bn {
                None => self.drawer.draw(row(image), uncond_v, &rule, uniform),
                Some(stats_bn) => {
                    let drawn = self.drawer.draw_with_stats(row(image), uncond_v, &rule, uniform);
                    drawn.map(|(token, stats)| {
                        stats_bn[image * self.n + t][part] = stats;
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
