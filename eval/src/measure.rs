//! Measures every picture of a set once, in the process that it is assigned to; results are in the order of the set.

use crate::BATCH_BYTES_MAX;
use crate::EvalError;
use crate::peers::{Deal, Peers, gather};
use crate::pictures::{Item, Pictures};
use crate::progress::{BadImage, Progress, Watch};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::atomic::Ordering;
use tokengrid_ingest::{AcceptSize, Bad, BadCounter, BadPolicy};
use tokengrid_model::Picture;

/// A picture of a set.
pub(crate) struct Numbered {
    /// Its place in the set.
    pub index: usize,
    /// Its name.
    pub key: String,
    /// Its pixels.
    pub picture: Picture,
}

/// A measurement of pictures.
pub(crate) trait Measure {
    /// The result for one picture.
    type Figures: Serialize + DeserializeOwned;

    /// The results for pictures of one size, in their order.
    ///
    /// # Errors
    /// The device fails.
    fn measure(&mut self, pictures: Vec<Numbered>) -> Result<Vec<Self::Figures>, EvalError>;
}

/// A pass over a set.
pub(crate) struct Survey<'a> {
    pub pictures: &'a Pictures,
    /// Sizes that are used.
    pub accept: AcceptSize,
    pub policy: BadPolicy,
    /// Pictures of one size that are measured together, at most.
    pub batch_size: usize,
    /// The processes that share the work.
    pub peers: &'a dyn Peers,
}

/// The result for a picture, or name and reason of a bad one.
type Fate<F> = Result<F, (String, Bad)>;

impl Survey<'_> {
    /// Measures every picture that can be used, and passes its result to `add` in the order of the set, at rank 0. Returns
    /// the bad ones, in all processes.
    ///
    /// # Errors
    /// More bad images than the policy allows; what `measure` and `add` return; [`EvalError::Stopped`], in all processes;
    /// another process is gone.
    pub(crate) fn run<M: Measure>(
        &self,
        measure: &mut M,
        watch: &mut Watch,
        add: &mut dyn FnMut(M::Figures) -> Result<(), EvalError>,
    ) -> Result<Vec<BadImage>, EvalError> {
        let total = self.pictures.len();
        let deal = Deal::new(self.peers, total, self.batch_size);
        let mut tally = Tally { counter: BadCounter::new(self.policy, total), bad: vec![], add };
        let mut own = Own { survey: self, measure, batch: vec![], fates: vec![], round: 0 };
        let (mut numbers, mut seen) = (deal.own(), 0);
        self.pictures.each(deal.own(), self.accept.clone(), &mut |item| {
            let index = numbers.next().expect("as many pictures as were dealt");
            own.take(index, item)?;
            seen += 1;
            if self.peers.world_size() == 1 {
                own.fates.drain(..).try_for_each(|fate| tally.count(fate, true))?;
            }
            // The other processes are about as far.
            let done = (seen * self.peers.world_size()).min(total);
            (watch.progress)(&Progress { done, total, bad: tally.counter.bad_count() });
            let stop = watch.cancel.load(Ordering::Relaxed);
            if stop || index + 1 == deal.of_round(own.round).end {
                own.end_round(stop, &mut tally)?;
            }
            Ok(())
        })?;
        // A round in which this process has no picture.
        while own.round < deal.rounds() {
            own.end_round(watch.cancel.load(Ordering::Relaxed), &mut tally)?;
        }
        Ok(tally.bad)
    }
}

/// The state of this process's pass.
struct Own<'a, M: Measure> {
    survey: &'a Survey<'a>,
    measure: &'a mut M,
    /// Pictures of one size that wait to be measured.
    batch: Vec<Numbered>,
    /// Results of this round's pictures.
    fates: Vec<Fate<M::Figures>>,
    round: usize,
}

impl<M: Measure> Own<'_, M> {
    fn take(&mut self, index: usize, item: Item) -> Result<(), EvalError> {
        let Item { key, outcome } = item;
        let picture = match outcome {
            Ok(picture) => picture,
            Err(bad) => {
                // Fates stay in the order of the set.
                self.flush()?;
                self.fates.push(Err((key, bad)));
                return Ok(());
            }
        };
        let size = |picture: &Picture| (picture.width, picture.height);
        if self.batch.first().is_some_and(|first| size(&first.picture) != size(&picture)) {
            self.flush()?;
        }
        self.batch.push(Numbered { index, key, picture });
        let bytes: usize = self.batch.iter().map(|numbered| numbered.picture.rgb.len()).sum();
        let is_full = self.batch.len() >= self.survey.batch_size || bytes >= BATCH_BYTES_MAX;
        if is_full { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), EvalError> {
        if !self.batch.is_empty() {
            let figures = self.measure.measure(std::mem::take(&mut self.batch))?;
            self.fates.extend(figures.into_iter().map(Ok));
        }
        Ok(())
    }

    fn end_round(&mut self, stop: bool, tally: &mut Tally<M::Figures>) -> Result<(), EvalError> {
        if !stop {
            self.flush()?;
        }
        self.round += 1;
        let fates = std::mem::take(&mut self.fates);
        let (stops, fates) = exchange(self.survey.peers, stop, fates)?;
        if stops {
            return Err(EvalError::Stopped);
        }
        fates.into_iter().try_for_each(|fate| tally.count(fate, self.survey.peers.is_first()))
    }
}

/// Whether any process wants to stop, and the fates of all pictures of a round.
fn exchange<F: Serialize + DeserializeOwned>(
    peers: &dyn Peers,
    stop: bool,
    fates: Vec<Fate<F>>,
) -> Result<(bool, Vec<Fate<F>>), EvalError> {
    if peers.world_size() == 1 {
        return Ok((stop, fates));
    }
    let gathered = gather(peers, &(stop, fates))?;
    let stops = gathered.iter().any(|(stop, _)| *stop);
    Ok((stops, gathered.into_iter().flat_map(|(_, fates)| fates).collect()))
}

/// Counts and results over all processes.
struct Tally<'a, F> {
    counter: BadCounter,
    bad: Vec<BadImage>,
    add: &'a mut dyn FnMut(F) -> Result<(), EvalError>,
}

impl<F> Tally<'_, F> {
    fn count(&mut self, fate: Fate<F>, adds: bool) -> Result<(), EvalError> {
        match fate {
            Ok(figures) => {
                self.counter.good();
                if adds { (self.add)(figures) } else { Ok(()) }
            }
            Err((key, bad)) => {
                self.counter.bad(&key, &bad)?;
                self.bad.push(BadImage { key, reason: bad.to_string() });
                Ok(())
            }
        }
    }
}
