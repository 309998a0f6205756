//! The encoder's part of the job: a stream of views through the encoder, image by image.

use super::assemble::Assembler;
use super::drift::DriftMeter;
use super::report::Counters;
use super::writer::Message;
use super::{EncodedImage, Job, Progress, ViewEncoder};
use crate::TokenizeError;
use crossbeam::channel::Sender;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use tokengrid_ingest::{BadCounter, BadPolicy, BatchSlot, BatchStream, IngestError, Stage, StreamConfig, ViewBatch};

impl Job<'_> {
    /// Images `order` of the source as batches of views.
    pub(super) fn stream(&self, order: impl Iterator<Item = usize> + Send + 'static) -> BatchStream {
        let in_flight = (2 * self.batch_size / self.recipe.num_views().max(1) as usize).max(8);
        let config = StreamConfig { threads: self.threads, in_flight, limits: self.limits };
        BatchStream::spawn(self.source.clone(), order, self.recipe, self.batch_size, config)
    }

    /// Decodes ahead, encodes batch by batch, hands images over in order.
    pub(super) fn encode(
        &self,
        stream: BatchStream,
        sender: &Sender<Message>,
        cancel: &AtomicBool,
        counters: &mut Counters,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<(), TokenizeError> {
        let ended = self.encode_stream(stream, false, counters, &mut |image, counters| {
            counters.done(image.index);
            // The writer's own error says why it is gone.
            if sender.send(Message::Image(image)).is_err() {
                return Ok(false);
            }
            progress(&counters.progress());
            if cancel.load(Ordering::Relaxed) { Err(TokenizeError::Cancelled) } else { Ok(true) }
        })?;
        if ended {
            let _ = sender.send(Message::Done);
        }
        Ok(())
    }

    /// Runs a stream through the encoder and calls `each` with every image, in order, until it returns false. Returns whether
    /// the stream was processed to its end.
    fn encode_stream(
        &self,
        stream: BatchStream,
        want_uncertain: bool,
        counters: &mut Counters,
        each: &mut dyn FnMut(EncodedImage, &mut Counters) -> Result<bool, TokenizeError>,
    ) -> Result<bool, TokenizeError> {
        std::thread::scope(|scope| {
            let mut drift = DriftMeter::start(scope, self.exact, self.recipe.size);
            let ended = self.encode_batches(stream, want_uncertain, counters, &mut drift, each)?;
            counters.drift = drift.finish()?;
            Ok(ended)
        })
    }

    fn encode_batches(
        &self,
        mut stream: BatchStream,
        want_uncertain: bool,
        counters: &mut Counters,
        drift: &mut DriftMeter,
        each: &mut dyn FnMut(EncodedImage, &mut Counters) -> Result<bool, TokenizeError>,
    ) -> Result<bool, TokenizeError> {
        let encoder = ViewEncoder::new(self.tokenizer, self.runtime, self.recipe.size);
        let mut assembler = Assembler::new(self.first_view, self.recipe.num_views(), self.grid()?.num_tokens());
        let stages = stream.counters();
        // Batches that a GPU has to work on while the results of the one before them are fetched and written.
        let ahead = usize::from(self.runtime.route.runs_ahead);
        let mut begun = VecDeque::new();
        for next in stream.by_ref().map(Some).chain([None]) {
            let may_wait = if next.is_some() { ahead } else { 0 };
            if let Some(batch) = next {
                self.check_reachable()?;
                counters.check(batch.images(), &self.source)?;
                let wanted = self.wanted(&batch);
                let encoding =
                    stages.timed(Stage::Encode, || encoder.begin(batch.pixels(), &wanted, want_uncertain))?;
                begun.push_back((batch, wanted, encoding));
            }
            while begun.len() > may_wait {
                let (batch, wanted, encoding) = begun.pop_front().expect("more wait than may");
                let tokens = stages.timed(Stage::Encode, || encoding.finish())?;
                drift.sample(batch.pixels(), &wanted, &tokens);
                tokens.margins.iter().for_each(|margins| counters.margins.add(margins));
                for image in assembler.add(batch.slots(), batch.images(), &tokens) {
                    if !each(image, counters)? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Stops where images are bad because an object store does not answer: they are read again by the next call.
    fn check_reachable(&self) -> Result<(), TokenizeError> {
        self.source.check_reachable().map_err(|error| match error {
            IngestError::Cancelled => TokenizeError::Cancelled,
            error => error.into(),
        })
    }

    /// Places of a batch whose views are to be encoded.
    fn wanted(&self, batch: &ViewBatch) -> Vec<usize> {
        let is_wanted = |slot: &BatchSlot| slot.view >= self.first_view && batch.images()[slot.image].outcome.is_ok();
        let slots = batch.slots();
        (0..slots.len()).filter(|&i| is_wanted(&slots[i])).collect()
    }

    /// Encodes images of the source, by their positions in it, and calls `each` with every one of them in that order: for
    /// checks and repairs, which write nothing. Uncertain bits are marked.
    ///
    /// # Errors
    /// The device fails, or what `each` returns.
    pub fn encode_images(
        &self,
        images: &[usize],
        each: &mut dyn FnMut(EncodedImage) -> Result<(), TokenizeError>,
    ) -> Result<(), TokenizeError> {
        let order: Vec<usize> = images.to_vec();
        let bad = BadCounter::new(BadPolicy::unlimited(), images.len());
        let mut counters = Counters::new(0..self.source.len(), 0, bad);
        let stream = self.stream(order.into_iter());
        self.encode_stream(stream, true, &mut counters, &mut |image, _| each(image).map(|()| true)).map(drop)
    }
}
