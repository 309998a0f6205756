//! Waiting for an exchange: until it is done or has failed, a process is known to be gone, or the deadline has passed.

use super::ffi::Failure;
use super::verdict::Verdict;
use std::time::{Duration, Instant};

/// Poll interval of the verdict while waiting for an exchange.
pub(crate) const SLICE: Duration = Duration::from_millis(100);

/// A pending exchange.
pub(crate) trait Work {
    /// Waits for at most `time`; whether the exchange is done.
    ///
    /// # Errors
    /// It has failed.
    fn wait(&self, time: Duration) -> Result<bool, Failure>;
}

/// Finds out which process failed.
pub(crate) trait Judge {
    /// The verdict so far.
    fn verdict(&self) -> Option<Verdict>;

    /// The verdict after an exchange failed with `text`.
    fn inquire(&self, text: String) -> Verdict;

    /// The verdict after an exchange exceeded its deadline of `time`.
    fn inquire_late(&self, time: Duration) -> Verdict;
}

/// Waits for `work`, for at most `timeout`. If it does not end well, `abort` ends it in this process: an exchange that waits for
/// a process that is gone never ends by itself, and on a GPU everything that was started after it waits as well.
///
/// # Errors
/// The verdict on the processes that did not take part.
pub(crate) fn complete(work: &dyn Work, judge: &dyn Judge, abort: &dyn Fn(), timeout: Duration) -> Result<(), Verdict> {
    let started = Instant::now();
    let verdict = loop {
        match work.wait(SLICE) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(Failure(text)) => break judge.inquire(text),
        }
        if let Some(verdict) = judge.verdict() {
            break verdict;
        }
        if started.elapsed() >= timeout {
            break judge.inquire_late(timeout);
        }
    };
    abort();
    Err(verdict)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// An exchange that ends at the given poll, if it does.
    struct Fake {
        ends_at: Option<(usize, Result<(), &'static str>)>,
        looks: Cell<usize>,
    }

    impl Fake {
        fn new(ends_at: Option<(usize, Result<(), &'static str>)>) -> Fake {
            Fake { ends_at, looks: Cell::new(0) }
        }
    }

    impl Work for Fake {
        fn wait(&self, _: Duration) -> Result<bool, Failure> {
            self.looks.set(self.looks.get() + 1);
            match self.ends_at {
                Some((look, end)) if look == self.looks.get() => {
                    end.map(|()| true).map_err(|text| Failure(text.into()))
                }
                _ => Ok(false),
            }
        }
    }

    /// Rank 2 is behind; after `gone_at` polls, rank 1 is known to be gone.
    struct Bench {
        gone_at: Option<usize>,
        looks: Cell<usize>,
    }

    impl Judge for Bench {
        fn verdict(&self) -> Option<Verdict> {
            self.looks.set(self.looks.get() + 1);
            (self.gone_at == Some(self.looks.get())).then_some(Verdict::Gone { rank: 1, step: 7 })
        }

        fn inquire(&self, text: String) -> Verdict {
            Verdict::Broken { rank: 0, step: 7, text }
        }

        fn inquire_late(&self, time: Duration) -> Verdict {
            Verdict::Behind { ranks: vec![(2, 11)], exchange: 12, step: 7, seconds: time.as_secs() }
        }
    }

    /// The outcome, and how often the exchange was aborted.
    fn wait_for(work: &Fake, gone_at: Option<usize>, timeout: Duration) -> (Result<(), String>, usize) {
        let (bench, aborts) = (Bench { gone_at, looks: Cell::new(0) }, Cell::new(0));
        let outcome = complete(work, &bench, &|| aborts.set(aborts.get() + 1), timeout);
        (outcome.map_err(|verdict| verdict.to_string()), aborts.get())
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn an_exchange_that_ends_is_waited_for_and_not_aborted() {
        let work = Fake::new(Some((3, Ok(()))));
        assert_eq!(wait_for(&work, None, LONG), (Ok(()), 0));
        assert_eq!(work.looks.get(), 3);
    }

    #[test]
    fn an_exchange_beyond_its_deadline_is_aborted_and_the_rank_that_is_behind_is_named() {
        let (outcome, aborts) = wait_for(&Fake::new(None), None, Duration::ZERO);
        let message = outcome.unwrap_err();
        assert_eq!(message, "alive but behind after 0 s in step 8: rank 2 (exchange 11 of 12)");
        assert_eq!(aborts, 1);
    }

    #[test]
    fn a_verdict_ends_the_wait_before_the_deadline() {
        let work = Fake::new(None);
        let (outcome, aborts) = wait_for(&work, Some(4), LONG);
        assert!(outcome.unwrap_err().starts_with("rank 1 is gone (after step 7)"));
        assert_eq!((aborts, work.looks.get()), (1, 4));
    }

    #[test]
    fn a_failed_exchange_gets_a_verdict_and_its_group_is_aborted() {
        let (outcome, aborts) = wait_for(&Fake::new(Some((2, Err("connection reset")))), None, LONG);
        assert!(outcome.unwrap_err().contains("connection reset"));
        assert_eq!(aborts, 1);
    }
}
