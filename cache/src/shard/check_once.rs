//! A check that is made once, however many threads ask for it.

use crate::error::CacheError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Whether a check was passed. One that fails is made again by the next who asks.
#[derive(Debug, Default)]
pub(crate) struct CheckOnce {
    is_passed: AtomicBool,
    making: Mutex<()>,
}

impl CheckOnce {
    /// Makes the check, unless it was passed before. Who comes while it is made waits for it.
    ///
    /// # Errors
    /// As the check.
    pub(crate) fn make(&self, check: impl FnOnce() -> Result<(), CacheError>) -> Result<(), CacheError> {
        if self.is_passed.load(Ordering::Acquire) {
            return Ok(());
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_passed.load(Ordering::Acquire) {
            check()?;
            self.is_passed.store(true, Ordering::Release);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_made_until_it_is_passed() {
        let once = CheckOnce::default();
        assert!(once.make(|| Err(CacheError::Cancelled)).is_err());
        assert!(once.make(|| Err(CacheError::Cancelled)).is_err(), "a failed one is made again");
        assert!(once.make(|| Ok(())).is_ok());
        assert!(once.make(|| Err(CacheError::Cancelled)).is_ok(), "a passed one is not");
    }
}
