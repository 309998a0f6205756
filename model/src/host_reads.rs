//! How often the host waits for what a device computes.
//!
//! On tensors of the CPU nothing waits, so nobody would see a read that a GPU pays for. libtorch tells its observers of every
//! operator: those that read a value on the host (`item`, `nonzero`, ...) and copies between devices are counted, in this thread;
//! and so is each [`Fetch`](crate::transfer::Fetch).

use crate::ModelError;
use crate::foreign::{Text, outcome};
use std::ffi::{CStr, c_char};

unsafe extern "C" {
    fn host_reads_begin(before: *mut i64) -> Text;
    fn host_reads_note(name: *const c_char);
    fn host_reads_end(before: i64, first: *mut *const c_char) -> i64;
}

/// What was read on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostReads {
    /// How often.
    pub count: u64,
    /// By which operator for the first time.
    pub first: Option<String>,
}

/// Does `work` and counts what this thread reads on the host meanwhile. Counts may be nested.
///
/// # Errors
/// libtorch refuses to be observed.
pub fn count<T>(work: impl FnOnce() -> T) -> Result<(T, HostReads), ModelError> {
    let mut before = 0;
    // SAFETY: the pointer lives through the call.
    outcome(unsafe { host_reads_begin(&raw mut before) })?;
    let counting = Counting { before };
    let done = work();
    Ok((done, counting.end()))
}

/// A count under way, which ends with it if `work` panics.
struct Counting {
    before: i64,
}

impl Counting {
    fn end(self) -> HostReads {
        let (count, first) = finish(self.before);
        std::mem::forget(self);
        HostReads { count, first }
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let _ = finish(self.before);
    }
}

fn finish(before: i64) -> (u64, Option<String>) {
    let mut first = std::ptr::null();
    // SAFETY: the innermost count of this thread; the pointer lives through the call.
    let count = unsafe { host_reads_end(before, &raw mut first) };
    // SAFETY: not null, and a text that ends with a zero, which lives until this thread reads again.
    let name = (!first.is_null()).then(|| unsafe { CStr::from_ptr(first) }.to_string_lossy().into_owned());
    (count.max(0) as u64, name)
}

/// Counts a read that no operator of libtorch does.
pub(crate) fn note(name: &CStr) {
    // SAFETY: a text that ends with a zero and lives through the call.
    unsafe { host_reads_note(name.as_ptr()) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::Fetch;
    use tch::{Device, Kind, Tensor};

    #[test]
    fn operators_that_have_the_host_wait_are_counted_and_others_are_not() {
        let x = Tensor::arange(6, (Kind::Float, Device::Cpu));
        let of = |work: &dyn Fn() -> Tensor| count(work).unwrap().1;
        assert_eq!(of(&|| (&x * 2.0).softmax(-1, Kind::Float).cumsum(-1, Kind::Float)), HostReads::default());
        let item = of(&|| Tensor::from(x.double_value(&[2])));
        assert_eq!(item, HostReads { count: 1, first: Some("aten::_local_scalar_dense".into()) });
        assert_eq!(of(&|| x.nonzero()).first.as_deref(), Some("aten::nonzero"));
        assert_eq!(of(&|| Fetch::begin(&[&x]).wait().remove(0)).count, 1);
        // Outside nothing is counted, and what was is forgotten.
        let _ = x.double_value(&[0]);
        assert_eq!(of(&|| x.shallow_clone()), HostReads::default());
    }

    #[test]
    fn counts_may_be_nested_and_end_with_a_panic() {
        let x = Tensor::from(1.0f32);
        let (inner, outer) = count(|| {
            let _ = x.double_value(&[]);
            let panic =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| count(|| panic!("stop")).map(|((), _)| ())));
            assert!(panic.is_err());
            count(|| x.int64_value(&[])).unwrap().1
        })
        .unwrap();
        assert_eq!((inner.count, outer.count), (1, 2));
    }

    #[test]
    fn reads_of_the_backward_pass_are_counted() {
        let x = Tensor::ones([3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let (_, reads) = count(|| Tensor::run_backward(&[&x.square().sum(Kind::Float)], &[&x], false, false)).unwrap();
        assert_eq!(reads, HostReads::default());
    }
}
