//! Whole pictures in order, decoded ahead of the consumer within the memory budget.

use super::ahead::read_ahead;
use super::loader::LARGE_FILE_BYTES;
use super::ordered::{Claims, Ordered, Work};
use super::{StreamConfig, internal_error};
use crate::decode::{Limits, Reservation, RgbImage, decode_whole};
use crate::error::{Bad, Stage};
use crate::memory::{Claim, Turn, Turns};
use crate::source::Source;
use crate::stages::StageCounters;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A whole picture of a source, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholeImage {
    /// Position in the source.
    pub index: usize,
    /// The image's name in the source.
    pub key: String,
    /// The picture, in its own size.
    pub outcome: Result<RgbImage, Bad>,
}

/// Whether a picture of the given columns and rows is wanted; the error says why not.
pub type AcceptSize = Arc<dyn Fn(u32, u32) -> Result<(), String> + Send + Sync>;

/// The whole pictures of a source, in the order given. Those that are being decoded and those that wait for the consumer share the
/// [memory budget](crate::memory_budget); what the consumer has taken is its own.
///
/// Dropping it stops the workers and waits for them.
pub struct WholeStream {
    images: Ordered<WholeWorker>,
}

impl WholeStream {
    /// Starts to decode in `order`, positions in `source`. Sizes that `accept` refuses are bad images, found out before their
    /// pixels are decoded.
    pub fn spawn(
        source: Arc<Source>,
        order: impl Iterator<Item = usize> + Send + 'static,
        accept: AcceptSize,
        config: StreamConfig,
    ) -> WholeStream {
        let counters = Arc::new(StageCounters::default());
        let worker = || WholeWorker {
            source: Arc::clone(&source),
            accept: Arc::clone(&accept),
            limits: config.limits,
            file: Vec::new(),
        };
        let (turns, mut number) = (Arc::new(Turns::default()), 0);
        let reserve = move || {
            number += 1;
            turns.turn(number - 1)
        };
        let claims = Claims { order: read_ahead(&source, order), reserve: Box::new(reserve) };
        WholeStream { images: Ordered::spawn(claims, worker, config.num_threads(), config.in_flight, counters) }
    }
}

impl Iterator for WholeStream {
    type Item = WholeImage;

    fn next(&mut self) -> Option<WholeImage> {
        // Here the picture's claim ends.
        self.images.next().map(|(image, _claim)| image)
    }
}

struct WholeWorker {
    source: Arc<Source>,
    accept: AcceptSize,
    limits: Limits,
    file: Vec<u8>,
}

impl Work for WholeWorker {
    type Reserved = Turn;
    type Output = (WholeImage, Option<Claim>);

    fn work(&mut self, index: usize, turn: Turn) -> (WholeImage, Option<Claim>) {
        let key = self.source.key(index).to_owned();
        let loaded = catch_unwind(AssertUnwindSafe(|| self.load(index, turn)));
        let loaded = loaded.unwrap_or_else(|panic| Err(internal_error(Stage::Read, &*panic)));
        if self.file.capacity() as u64 > LARGE_FILE_BYTES {
            self.file = Vec::new();
        }
        match loaded {
            Ok((image, claim)) => (WholeImage { index, key, outcome: Ok(image) }, claim),
            Err(bad) => (WholeImage { index, key, outcome: Err(bad) }, None),
        }
    }
}

impl WholeWorker {
    fn load(&mut self, index: usize, turn: Turn) -> Result<(RgbImage, Option<Claim>), Bad> {
        let WholeWorker { source, accept, limits, file } = self;
        let mut reservation = Reservation { claim: None, turn: Some(turn) };
        let mut before = |bytes: u64| {
            if bytes > LARGE_FILE_BYTES {
                reservation.claim = reservation.turn.take().map(|turn| turn.claim(bytes + limits.max_decode_bytes));
            }
        };
        source.read_after(index, file, &mut before).map_err(|e| Bad::new(Stage::Read, &e))?;
        let mut ask = |width, height| accept(width, height);
        let decoded = decode_whole(file, limits, &mut ask, reservation);
        let (image, mut claim) = decoded.map_err(|error| Bad::new(Stage::Decode, &error))?;
        if let Some(claim) = &mut claim {
            claim.shrink(image.pixels.len() as u64);
        }
        Ok((image, claim))
    }
}
