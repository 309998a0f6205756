//! What happens when images are bad: set aside, up to a share, or stop.

use crate::error::Bad;

/// Bad images that the default policy always allows: in a small data set one of them is already more than 1 %.
const ALWAYS_ALLOWED: usize = 10;

/// Share of bad images beyond which the default policy stops.
const DEFAULT_MAX_FRACTION: f64 = 0.01;

/// What to do with an image that cannot be turned into views.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnBad {
    /// Record it and continue.
    #[default]
    Quarantine,
    /// Stop at the first.
    Fail,
}

/// How many bad images a job tolerates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BadPolicy {
    /// What to do with each.
    pub on_bad: OnBad,
    /// Share of bad images, of all images of the source, beyond which the job stops, 0 to 1.
    pub max_fraction: f64,
    /// Number of bad images that is allowed at any share.
    pub always_allowed: usize,
}

impl Default for BadPolicy {
    /// Set aside up to 1 % of all images, and ten in any case.
    fn default() -> Self {
        BadPolicy { on_bad: OnBad::Quarantine, max_fraction: DEFAULT_MAX_FRACTION, always_allowed: ALWAYS_ALLOWED }
    }
}

impl BadPolicy {
    /// Set aside at most this share, strictly.
    pub fn at_most(max_fraction: f64) -> BadPolicy {
        BadPolicy { max_fraction, always_allowed: 0, ..BadPolicy::default() }
    }

    /// Set aside whatever is bad.
    pub fn unlimited() -> BadPolicy {
        BadPolicy::at_most(1.0)
    }
}

/// Why a job stops.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TooBad {
    /// An image is bad, and the policy is [`OnBad::Fail`].
    #[error("cannot {stage} `{key}`: {reason}; leave out `--on-bad fail` to quarantine bad images and continue", stage = .bad.stage, reason = .bad.reason)]
    Image {
        /// The image's name.
        key: String,
        /// What is wrong with it.
        bad: Bad,
    },
    /// More images are bad than the policy allows.
    #[error(
        "{bad} of the first {seen} images are bad, more than {percent} % of all {total} (the last one: cannot {stage} \
         `{key}`: {reason}); this is hardly the data set that was meant: `tokengrid ingest SOURCE` lists every bad \
         image, `--exclude` leaves images out, and a higher `--max-bad-fraction` lets the job go on",
        stage = .last.stage, reason = .last.reason
    )]
    TooMany {
        /// Bad images so far.
        bad: usize,
        /// Images seen so far.
        seen: usize,
        /// Images of the source.
        total: usize,
        /// The limit, in percent of `total`.
        percent: f64,
        /// The last bad image's name.
        key: String,
        /// What is wrong with it.
        last: Bad,
    },
}

/// Counts images and applies a policy.
#[derive(Debug, Clone)]
pub struct BadCounter {
    policy: BadPolicy,
    total: usize,
    seen: usize,
    bad: usize,
}

impl BadCounter {
    /// For a source of `total` images.
    pub fn new(policy: BadPolicy, total: usize) -> BadCounter {
        BadCounter { policy, total, seen: 0, bad: 0 }
    }

    /// Continues from a count of earlier runs: bad images stay bad.
    pub fn resume(self, bad: usize) -> BadCounter {
        BadCounter { bad, ..self }
    }

    /// Takes note of a good image.
    pub fn good(&mut self) {
        self.seen += 1;
    }

    /// Takes note of a bad image.
    ///
    /// # Errors
    /// [`TooBad`] at the first bad image under [`OnBad::Fail`], else when there are more than the policy allows.
    pub fn bad(&mut self, key: &str, bad: &Bad) -> Result<(), Box<TooBad>> {
        self.seen += 1;
        self.bad += 1;
        if self.policy.on_bad == OnBad::Fail {
            return Err(Box::new(TooBad::Image { key: key.to_owned(), bad: bad.clone() }));
        }
        let allowed = (self.policy.max_fraction * self.total as f64).max(self.policy.always_allowed as f64);
        if self.bad as f64 <= allowed {
            return Ok(());
        }
        Err(Box::new(TooBad::TooMany {
            bad: self.bad,
            seen: self.seen,
            total: self.total,
            percent: 100.0 * self.policy.max_fraction,
            key: key.to_owned(),
            last: bad.clone(),
        }))
    }

    /// Bad images so far.
    pub fn bad_count(&self) -> usize {
        self.bad
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Stage;

    fn bad() -> Bad {
        Bad { stage: Stage::Decode, reason: "broken".into() }
    }

    #[test]
    fn a_share_is_relative_to_all_images_and_may_be_reached() {
        let mut counter = BadCounter::new(BadPolicy::at_most(0.1), 40);
        for _ in 0..4 {
            counter.good();
            counter.bad("k", &bad()).expect("four of forty");
        }
        let message = counter.bad("n1/x.jpg", &bad()).expect_err("five of forty").to_string();
        assert!(message.starts_with("5 of the first 9 images are bad, more than 10 % of all 40"), "{message}");
        assert!(message.contains("n1/x.jpg") && message.contains("--max-bad-fraction"), "{message}");
    }

    #[test]
    fn a_small_data_set_may_have_ten_unless_a_share_is_given() {
        let mut counter = BadCounter::new(BadPolicy::default(), 20);
        (0..10).for_each(|_| counter.bad("k", &bad()).expect("ten are always allowed"));
        assert!(counter.bad("k", &bad()).is_err());
        assert!(BadCounter::new(BadPolicy::at_most(0.0), 20).bad("k", &bad()).is_err());
        let mut counter = BadCounter::new(BadPolicy::unlimited(), 20);
        (0..20).for_each(|_| counter.bad("k", &bad()).expect("no limit"));
    }

    #[test]
    fn fail_stops_at_the_first() {
        let policy = BadPolicy { on_bad: OnBad::Fail, ..BadPolicy::unlimited() };
        let error = BadCounter::new(policy, 20).bad("a.png", &bad()).expect_err("the first");
        assert!(error.to_string().starts_with("cannot decode `a.png`: broken"), "{error}");
    }
}
