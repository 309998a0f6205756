//! Views through the encoder.

use super::margins::{below_edges, margins_of};
use std::cell::Cell;
use std::ops::Range;
use tch::{Kind, Tensor};
use tokengrid_cache::{MARGIN_EDGES, Margins};
use tokengrid_model::guard::guarded;
use tokengrid_model::transfer::Fetch;
use tokengrid_model::{ModelError, Runtime, Tokenizer, lfq, pixels};

/// The encoder as a function from pixels to tokens.
///
/// On the CPU every view is a separate call, so that its tokens depend on its pixels and on nothing else: libraries choose
/// their algorithms by the size of a batch, and their roundings differ. On a GPU a call is a whole batch, or as much of it as
/// the memory allows.
pub struct ViewEncoder<'a> {
    tokenizer: &'a Tokenizer,
    runtime: Runtime,
    /// Side of a view, in pixels.
    side: u32,
    /// Largest number of views per call: all of a batch, until memory ran out.
    most: Cell<usize>,
}

/// Tokens of some views, and the margins of their bits.
#[derive(Debug, Default)]
pub struct Tokens {
    /// Tokens view by view, each in raster order.
    pub tokens: Vec<u32>,
    /// For each token the bits whose |h| lay within [`lfq::MARGIN`] of 0; empty unless requested.
    pub uncertain: Vec<u32>,
    /// Histograms of |h|, one per view.
    pub margins: Vec<Margins>,
}

/// A pending encoding: tokens are fetched when they are needed, so that the device can work on the next batch meanwhile.
pub struct Encoding {
    calls: Vec<Call>,
}

/// Pending results of a call: tokens, histograms of |h| and, if requested, uncertain bits.
struct Call {
    results: Fetch,
    /// Those of its views that are wanted.
    wanted: Vec<usize>,
    views: usize,
    bits_per_view: u64,
}

impl<'a> ViewEncoder<'a> {
    /// For views of `side` pixels.
    pub fn new(tokenizer: &'a Tokenizer, runtime: Runtime, side: u32) -> ViewEncoder<'a> {
        ViewEncoder { tokenizer, runtime, side, most: Cell::new(usize::MAX) }
    }

    /// Encodes the views at the places `wanted` of `batch`, ascending; bytes `[n][side][side][3]`.
    ///
    /// # Errors
    /// As [`ViewEncoder::begin`] and [`Encoding::finish`].
    ///
    /// # Panics
    /// When a place is not in the batch.
    pub fn encode(&self, batch: &[u8], wanted: &[usize], want_uncertain: bool) -> Result<Tokens, ModelError> {
        self.begin(batch, wanted, want_uncertain)?.finish()
    }

    /// As [`ViewEncoder::encode`], but a GPU is only given its work. When its memory does not suffice for a batch, this one and
    /// those that follow are cut into calls of half as many views, and again.
    ///
    /// # Errors
    /// [`ModelError::OutOfMemory`] for a single view; [`ModelError::DeviceFailed`].
    ///
    /// # Panics
    /// When a place is not in the batch.
    pub fn begin(&self, batch: &[u8], wanted: &[usize], want_uncertain: bool) -> Result<Encoding, ModelError> {
        let _no_grad = tch::no_grad_guard();
        let bytes = |views: Range<usize>| &batch[views.start * self.view_bytes()..views.end * self.view_bytes()];
        let calls = if wanted.is_empty() {
            vec![]
        } else if self.runtime.route.whole_batches {
            // Always the whole batch, so that algorithms are those of its size, also where some places are not wanted.
            in_calls(batch.len() / self.view_bytes(), &self.most, |views| {
                let places =
                    wanted.iter().filter(|place| views.contains(place)).map(|place| place - views.start).collect();
                guarded(|| self.call(bytes(views), places, want_uncertain))
            })?
        } else {
            let view = |&place: &usize| guarded(|| self.call(bytes(place..place + 1), vec![0], want_uncertain));
            wanted.iter().map(view).collect::<Result<_, _>>()?
        };
        Ok(Encoding { calls })
    }

    fn call(&self, bytes: &[u8], wanted: Vec<usize>, want_uncertain: bool) -> Call {
        let h_bzhw = self.forward(bytes);
        let uncertain_bhw = want_uncertain.then(|| lfq::uncertain_of(&h_bzhw));
        let results = [Some(lfq::tokens_of(&h_bzhw)), Some(below_edges(&h_bzhw)), uncertain_bhw];
        Call {
            results: Fetch::begin(&results.iter().flatten().collect::<Vec<_>>()),
            wanted,
            views: bytes.len() / self.view_bytes(),
            bits_per_view: h_bzhw.size()[1..].iter().product::<i64>() as u64,
        }
    }

    /// `[n, side, side, 3]` bytes to `h [n, z, H, W]`.
    fn forward(&self, bytes: &[u8]) -> Tensor {
        let (count, side) = (bytes.len() / self.view_bytes(), i64::from(self.side));
        let images_bchw = pixels::to_input(bytes, count as i64, side, side, self.runtime);
        self.tokenizer.encoder.forward(&images_bchw)
    }

    fn view_bytes(&self) -> usize {
        self.side as usize * self.side as usize * 3
    }
}

/// Takes `views` views in calls of at most `most`, which becomes half of what a call ran out of memory with.
fn in_calls<T>(
    views: usize,
    most: &Cell<usize>,
    mut call: impl FnMut(Range<usize>) -> Result<T, ModelError>,
) -> Result<Vec<T>, ModelError> {
    let (mut calls, mut from) = (vec![], 0);
    while from < views {
        let until = views.min(from.saturating_add(most.get()));
        match call(from..until) {
            Ok(done) => {
                calls.push(done);
                from = until;
            }
            Err(ModelError::OutOfMemory { reason }) if until - from > 1 => {
                most.set((until - from) / 2);
                tracing::warn!("{} views did not fit, now {} at a time: {reason}", until - from, most.get());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(calls)
}

impl Encoding {
    /// Waits for the device and takes the results from it.
    ///
    /// # Errors
    /// [`ModelError::DeviceFailed`]; [`ModelError::Torch`] when a result cannot be copied.
    pub fn finish(self) -> Result<Tokens, ModelError> {
        let mut done = Tokens::default();
        for Call { results, wanted, views, bits_per_view } in self.calls {
            let results = guarded(|| results.wait())?.into_iter().map(|tensor| integers(&tensor));
            let results = results.collect::<Result<Vec<_>, _>>()?;
            let of_view = |values: &[i64], place: usize| {
                let each = values.len() / views;
                values[place * each..][..each].to_vec()
            };
            for place in wanted {
                done.tokens.extend(of_view(&results[0], place).into_iter().map(|token| token as u32));
                let below = of_view(&results[1], place);
                debug_assert_eq!(below.len(), MARGIN_EDGES.len());
                done.margins.push(margins_of(&below, bits_per_view));
                if let Some(uncertain) = results.get(2) {
                    done.uncertain.extend(of_view(uncertain, place).into_iter().map(|bits| bits as u32));
                }
            }
        }
        Ok(done)
    }
}

/// An integer tensor's values, row-major.
fn integers(tensor: &Tensor) -> Result<Vec<i64>, ModelError> {
    Vec::<i64>::try_from(&tensor.to_kind(Kind::Int64).view([-1])).map_err(ModelError::torch("copying tokens"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_does_not_fit_is_halved_and_so_are_those_after_it() {
        let (most, fits) = (Cell::new(usize::MAX), 3);
        let mut call = |views: Range<usize>| match views.len() {
            len if len > fits => Err(ModelError::OutOfMemory { reason: "tried to allocate".into() }),
            _ => Ok(views),
        };
        assert_eq!(in_calls(8, &most, &mut call).unwrap(), [0..2, 2..4, 4..6, 6..8]);
        assert_eq!(most.get(), 2);
        assert_eq!(in_calls(3, &most, &mut call).unwrap(), [0..2, 2..3]);
        let none = in_calls(2, &most, |_| Err::<(), _>(ModelError::OutOfMemory { reason: "not even one".into() }));
        assert!(none.unwrap_err().to_string().contains("not even one"));
    }
}
