//! The sum of squares of a tensor on the CPU: one pass over its memory by all threads, and no memory besides. libtorch's
//! `square().sum(Double)` first writes the squares, then their copy in double precision: three times the tensor, freshly mapped
//! in each step.

use tch::Tensor;
use tokengrid_model::kernels::math::LANES;
use tokengrid_model::kernels::matrix::numbers;
use tokengrid_model::kernels::threads::{Pieces, for_rows};
use tokengrid_model::multiversion;

/// Values per task.
const TASK: usize = 1 << 14;

multiversion! {
    /// Adds in f64: over millions of elements an f32 sum is off in the fifth digit.
    fn squares_of_part(part: &[f32]) -> f64 {
        let mut lanes = [0f64; LANES];
        let chunks = part.chunks_exact(LANES);
        let rest: f64 = chunks.remainder().iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        for chunk in chunks {
            for (lane, &x) in lanes.iter_mut().zip(chunk) {
                *lane += f64::from(x) * f64::from(x);
            }
        }
        lanes.iter().sum::<f64>() + rest
    }
}

/// The sum of squares of a contiguous fp32 tensor on the CPU, with the same bits for any number of threads. It is finite exactly
/// where all numbers are.
///
/// # Safety
/// Nothing writes the tensor's memory meanwhile.
pub(super) unsafe fn sum_of_squares(tensor: &Tensor) -> f64 {
    // SAFETY: the caller's promise.
    let numbers = unsafe { numbers(tensor) };
    let mut sums = vec![0f64; numbers.len().div_ceil(TASK)];
    let pieces = Pieces::of(&mut sums);
    for_rows(numbers.len(), TASK, &|from, len| {
        // SAFETY: `for_rows` hands out each task once, and each has its own sum.
        let sum = unsafe { pieces.piece(from / TASK, 1) };
        sum[0] = squares_of_part(&numbers[from..from + len]);
    });
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    fn squares(tensor: &Tensor) -> f64 {
        // SAFETY: nothing else has the tensor.
        unsafe { sum_of_squares(tensor) }
    }

    #[test]
    fn it_is_that_of_libtorch_for_all_lengths() {
        for len in [0, 1, 15, 16, 17, TASK as i64, 3 * TASK as i64 + 5] {
            let tensor = Tensor::randn([len], (Kind::Float, tch::Device::Cpu));
            let expected = tensor.to_kind(Kind::Double).square().sum(Kind::Double).double_value(&[]);
            let found = squares(&tensor);
            assert!((found - expected).abs() <= 1e-12 * expected, "{len}: {found} {expected}");
        }
    }

    #[test]
    fn it_is_finite_where_all_numbers_are() {
        let largest = Tensor::full([1 << 15], f64::from(f32::MAX), (Kind::Float, tch::Device::Cpu));
        assert!(squares(&largest).is_finite());
        for (place, value) in [(0, f64::NAN), (70, f64::INFINITY), (32_767, f64::NEG_INFINITY)] {
            let tensor = largest.copy();
            let _ = tensor.narrow(0, place, 1).fill_(value);
            assert!(!squares(&tensor).is_finite(), "{place} {value}");
        }
    }
}
