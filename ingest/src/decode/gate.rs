//! What a picture must pass once its size is known, before memory is taken for it.

use super::{DecodeError, Limits};
use crate::memory::{self, Claim, Turn};
use crate::resample::Region;

/// What is needed of a picture of the given columns and rows: a rectangle, or all of it (`None`); the error says why it is refused.
pub(crate) type Needed<'a> = &'a mut dyn FnMut(u32, u32) -> Result<Option<Region>, String>;

/// Checks a picture before it is decoded: its size, whether the caller wants it, and the memory that decoding takes.
pub(super) struct Gate<'a> {
    pub(super) limits: &'a Limits,
    needed: Needed<'a>,
    /// Further pictures of the same size that the caller makes from it.
    num_copies: u64,
    /// Memory for decoding, held until the picture is no longer used. Made when the size is known, unless the caller has
    /// claimed enough for any picture.
    pub(super) claim: Option<Claim>,
    /// When it may be claimed; at any time if there is none.
    turn: Option<Turn>,
}

/// A picture that passed.
pub(super) struct Admitted {
    /// Bytes of the whole picture as RGB.
    pub(super) rgb_bytes: usize,
    /// The part that is needed; `None`: all of it.
    pub(super) region: Option<Region>,
}

impl<'a> Gate<'a> {
    pub(super) fn new(limits: &'a Limits, needed: Needed<'a>, num_copies: u64, claim: Option<Claim>) -> Gate<'a> {
        Gate { limits, needed, num_copies, claim, turn: None }
    }

    /// Memory is claimed when it is this picture's turn.
    pub(super) fn in_turn(mut self, turn: Option<Turn>) -> Gate<'a> {
        self.turn = turn;
        self
    }

    /// Lets a picture in whose decoder takes `work_bytes` beside the picture itself. Waits for memory if others have it.
    pub(super) fn admit(&mut self, width: u32, height: u32, work_bytes: u64) -> Result<Admitted, DecodeError> {
        let rgb_bytes = self.limits.check(width, height)?;
        let region = (self.needed)(width, height).map_err(|reason| DecodeError::NoUse { reason })?;
        let bytes = (rgb_bytes as u64).saturating_mul(1 + self.num_copies).saturating_add(work_bytes);
        let (limit, budget) = (self.limits.max_decode_bytes, memory::memory_budget());
        if bytes > limit {
            return Err(DecodeError::TooMuchMemory { width, height, bytes, limit });
        }
        if bytes > budget {
            return Err(DecodeError::OverBudget { width, height, bytes, budget });
        }
        // A second try at the same file takes no more than the first.
        if self.claim.is_none() {
            let claim = self.turn.take().map_or_else(|| memory::claim(bytes), |turn| turn.claim(bytes));
            self.claim = Some(claim);
        }
        Ok(Admitted { rgb_bytes, region })
    }
}

/// Bytes of `bytes_per_pixel` for every pixel of a size that was not checked.
pub(super) fn plane_bytes(width: u32, height: u32, bytes_per_pixel: u64) -> u64 {
    (u64::from(width) * u64::from(height)).saturating_mul(bytes_per_pixel)
}
