//! Failures of libtorch as errors, where its functions panic.
//!
//! Most of its functions have a form that returns an error and one that panics. Networks use the second, for
//! readability; a call where memory may run out or a device may fail is wrapped in [`guarded`].

use crate::ModelError;
use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

thread_local! {
    /// Guards around what this thread is doing.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// What a panic of the `tch` crate says before libtorch's own words.
const MARK: &str = "Torch(\"";

/// Calls `work`, in which libtorch may fail. Other panics are passed on.
///
/// # Errors
/// [`ModelError::OutOfMemory`]; [`ModelError::DeviceFailed`], libtorch's words being its first line.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, ModelError> {
    DEPTH.set(DEPTH.get() + 1);
    let ended = catch_unwind(AssertUnwindSafe(work));
    DEPTH.set(DEPTH.get() - 1);
    ended.or_else(|payload| match words(&*payload) {
        Some(reason) => Err(error_of(reason)),
        None => resume_unwind(payload),
    })
}

/// Whether a panic of this thread with this text becomes an error of [`guarded`], so that a panic hook should not report it.
pub fn is_expected(text: &str) -> bool {
    DEPTH.get() > 0 && text.contains(MARK)
}

/// libtorch's first line.
fn words(payload: &(dyn Any + Send)) -> Option<String> {
    let text = payload.downcast_ref::<String>()?;
    let (_, words) = text.split_once(MARK)?;
    Some(words.split("\\n").next().unwrap_or_default().trim_end_matches("\")").to_owned())
}

fn error_of(reason: String) -> ModelError {
    let is_memory =
        ["out of memory", "can't allocate memory", "not enough memory"].iter().any(|words| reason.contains(words));
    if is_memory { ModelError::OutOfMemory { reason } } else { ModelError::DeviceFailed { reason } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    #[test]
    fn failures_of_libtorch_become_errors_with_its_first_line() {
        let shapes = guarded(|| {
            Tensor::zeros([2, 3], (Kind::Float, Device::Cpu)).matmul(&Tensor::zeros([2, 3], (Kind::Float, Device::Cpu)))
        });
        let text = shapes.unwrap_err().to_string();
        assert!(
            text.contains("mat1 and mat2 shapes cannot be multiplied") && !text.contains("Exception raised"),
            "{text}"
        );
        let huge = guarded(|| Tensor::zeros([1 << 50], (Kind::Float, Device::Cpu)));
        assert!(matches!(huge, Err(ModelError::OutOfMemory { .. })), "{huge:?}");
        assert_eq!(guarded(|| 7).unwrap(), 7);
        assert!(!is_expected("Torch(\"CUDA error"));
    }

    #[test]
    fn other_panics_are_passed_on() {
        let panic = std::panic::catch_unwind(|| guarded(|| panic!("a defect of ours"))).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"a defect of ours"));
    }
}
