//! Mean and covariance of many feature vectors, in one pass and in f64.
//!
//! Vectors are taken in blocks of a fixed number of rows: a block's scatter about its own mean is one matrix product, and
//! blocks are joined by the pairwise rule of Chan, Golub and LeVeque (1983), which loses no digits to a large mean. The
//! result depends on the order of the rows only, not on how many were pushed at a time. 50,000 vectors of 2,048 values need
//! 40 MB, where the matrix would take 800.

use crate::EvalError;
use tch::{Device, Kind, Tensor};
use tokengrid_model::ModelError;

/// Rows of a block.
const BLOCK_ROWS: usize = 256;

/// Mean and scatter of the vectors so far.
#[derive(Debug)]
pub struct Moments {
    dims: usize,
    count: u64,
    /// `[D]`, f64.
    mean: Tensor,
    /// Sum of `(x - mean) (x - mean)^T`, `[D, D]`, f64.
    scatter: Tensor,
    /// Rows of the block that is not full.
    pending: Vec<f64>,
}

/// Mean and covariance of a set of vectors, all that a Frechet distance needs.
#[derive(Debug)]
pub struct Gaussian {
    /// `[D]`, f64, on the CPU.
    pub mean: Tensor,
    /// `[D, D]`, f64, with N - 1 in the denominator.
    pub covariance: Tensor,
}

impl Moments {
    /// Empty moments of vectors of `dims` values.
    pub fn new(dims: usize) -> Moments {
        let size = dims as i64;
        let options = (Kind::Double, Device::Cpu);
        let (mean, scatter) = (Tensor::zeros([size], options), Tensor::zeros([size, size], options));
        Moments { dims, count: 0, mean, scatter, pending: Vec::with_capacity(BLOCK_ROWS * dims) }
    }

    /// Length of a vector.
    pub fn dims(&self) -> usize {
        self.dims
    }

    /// Number of vectors so far.
    pub fn count(&self) -> u64 {
        self.count + (self.pending.len() / self.dims.max(1)) as u64
    }

    /// Adds whole vectors, one after the other.
    ///
    /// # Panics
    /// When the values do not fill whole vectors.
    pub fn push(&mut self, rows: impl IntoIterator<Item = f64>) {
        for value in rows {
            self.pending.push(value);
            if self.pending.len() == BLOCK_ROWS * self.dims {
                self.flush();
            }
        }
        assert!(self.pending.len().is_multiple_of(self.dims.max(1)), "whole vectors");
    }

    /// Adds the vectors of `other`, as if they had been pushed after these.
    ///
    /// # Panics
    /// When the vectors differ in length.
    pub fn merge(&mut self, mut other: Moments) {
        assert_eq!(self.dims, other.dims, "vectors of one length");
        self.flush();
        other.flush();
        self.join(other.count, &other.mean, &other.scatter);
    }

    /// Replaces these moments by those of the vectors of all processes. `sum` replaces a tensor by its sum over the processes;
    /// the result is the same in all of them if that sum is.
    ///
    /// # Errors
    /// Those of `sum`.
    pub fn share<E>(&mut self, mut sum: impl FnMut(&Tensor) -> Result<(), E>) -> Result<(), E> {
        self.flush();
        let own = self.count as f64;
        // Count, and the sum of all values.
        let totals = Tensor::cat(&[Tensor::from_slice(&[own]), &self.mean * own], 0);
        sum(&totals)?;
        let total = totals.double_value(&[0]);
        let mean = totals.narrow(0, 1, self.dims as i64) / total.max(1.0);
        // Each process's scatter, moved to the common mean.
        let delta = &self.mean - &mean;
        let scatter = &self.scatter + delta.outer(&delta) * own;
        sum(&scatter)?;
        (self.count, self.mean, self.scatter) = (total as u64, mean, scatter);
        Ok(())
    }

    fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let rows = self.pending.len() / self.dims;
        let block_nd = Tensor::from_slice(&self.pending).view([rows as i64, self.dims as i64]);
        let mean = block_nd.mean_dim([0i64].as_slice(), false, Kind::Double);
        let centred_nd = block_nd - &mean;
        let scatter = centred_nd.tr().mm(&centred_nd);
        self.join(rows as u64, &mean, &scatter);
        self.pending.clear();
    }

    fn join(&mut self, count: u64, mean: &Tensor, scatter: &Tensor) {
        if count == 0 {
            return;
        }
        let total = (self.count + count) as f64;
        let share = count as f64 / total;
        let delta = mean - &self.mean;
        self.scatter += scatter + delta.outer(&delta) * (self.count as f64 * share);
        self.mean += delta * share;
        self.count += count;
    }

    /// Mean and covariance.
    ///
    /// # Errors
    /// Fewer than two vectors have no covariance; values that are not finite.
    pub fn finish(mut self) -> Result<Gaussian, EvalError> {
        self.flush();
        if self.count < 2 {
            return Err(EvalError::TooFew { count: self.count, needed: 2, what: "a covariance" });
        }
        let covariance = &self.scatter / (self.count - 1) as f64;
        let gaussian = Gaussian { mean: self.mean, covariance };
        gaussian.check_finite().map(|()| gaussian)
    }
}

impl Gaussian {
    /// Length of the vectors.
    pub fn dims(&self) -> usize {
        self.mean.size()[0] as usize
    }

    /// Checks that mean and covariance are finite.
    ///
    /// # Errors
    /// [`EvalError::NotFinite`]; the device fails.
    pub fn check_finite(&self) -> Result<(), EvalError> {
        let is_finite = |values: &Tensor| -> Result<bool, ModelError> {
            let all = values.f_isfinite().and_then(|finite| finite.f_all()).map_err(ModelError::torch("checking"))?;
            Ok(all.int64_value(&[]) == 1)
        };
        if is_finite(&self.mean)? && is_finite(&self.covariance)? { Ok(()) } else { Err(EvalError::NotFinite) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Barrier, Mutex};
    use tokengrid_test_support::stream;

    const DIMS: usize = 5;

    fn rows(count: usize) -> Vec<f64> {
        // A large mean, with which a sum of squares would lose its digits.
        stream("moments", count * DIMS).map(|v| 1e6 + v).collect()
    }

    fn of(parts: &[&[f64]]) -> Moments {
        let mut moments = Moments::new(DIMS);
        parts.iter().for_each(|part| moments.push(part.iter().copied()));
        moments
    }

    fn literal(rows: &[f64]) -> Vec<f64> {
        let count = (rows.len() / DIMS) as f64;
        let mean = |j: usize| rows.iter().skip(j).step_by(DIMS).sum::<f64>() / count;
        let means: Vec<f64> = (0..DIMS).map(mean).collect();
        let covariance = |i: usize, j: usize| {
            let products = rows.chunks_exact(DIMS).map(|row| (row[i] - means[i]) * (row[j] - means[j]));
            products.sum::<f64>() / (count - 1.0)
        };
        (0..DIMS * DIMS).map(|k| covariance(k / DIMS, k % DIMS)).collect()
    }

    fn values(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(&tensor.contiguous().view([-1])).unwrap()
    }

    /// Threads in place of processes: a tensor is replaced by the sum of the tensors of all threads.
    fn sum_among(threads: &Barrier, brought: &Mutex<Vec<Tensor>>, tensor: &Tensor) {
        brought.lock().unwrap().push(tensor.copy());
        threads.wait();
        let sum = Tensor::stack(&brought.lock().unwrap(), 0).sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
        threads.wait();
        brought.lock().unwrap().clear();
        tensor.shallow_clone().copy_(&sum);
        // No thread contributes the next tensor before the slots are empty.
        threads.wait();
    }

    #[test]
    fn all_processes_get_the_moments_of_the_whole_set() {
        let rows = rows(700);
        let whole = of(&[&rows]).finish().unwrap();
        let (left, right) = rows.split_at(333 * DIMS);
        let (threads, brought) = (Barrier::new(3), Mutex::new(vec![]));
        let share = |part: &[f64]| {
            let mut moments = of(&[part]);
            let sum = |tensor: &Tensor| {
                sum_among(&threads, &brought, tensor);
                Ok::<(), ()>(())
            };
            moments.share(sum).unwrap();
            assert_eq!(moments.count(), 700);
            moments.finish().unwrap()
        };
        let shared = std::thread::scope(|scope| {
            let (share, nothing): (_, &[f64]) = (&share, &[]);
            let running = [left, right, nothing].map(|part| scope.spawn(move || share(part)));
            running.map(|thread| thread.join().unwrap())
        });
        for gaussian in shared {
            assert!(gaussian.mean.allclose(&whole.mean, 1e-12, 0.0, false));
            assert!(gaussian.covariance.allclose(&whole.covariance, 0.0, 1e-9, false));
        }
    }

    #[test]
    fn a_large_mean_costs_no_digits() {
        let rows = rows(700);
        let got = values(&of(&[&rows]).finish().unwrap().covariance);
        for (got, want) in got.iter().zip(literal(&rows)) {
            assert!((got - want).abs() < 1e-9, "{got} {want}");
        }
    }

    #[test]
    fn results_do_not_depend_on_the_blocks_of_rows_and_parts_can_be_merged() {
        let rows = rows(700);
        let whole = of(&[&rows]).finish().unwrap();
        let (head, tail) = rows.split_at(3 * DIMS);
        let pieces = of(&[head, tail]).finish().unwrap();
        assert_eq!(values(&whole.covariance), values(&pieces.covariance));
        let (left, right) = rows.split_at(333 * DIMS);
        let mut merged = of(&[left]);
        merged.merge(of(&[right]));
        merged.merge(Moments::new(DIMS));
        assert_eq!(merged.count(), 700);
        for (a, b) in values(&merged.finish().unwrap().covariance).iter().zip(values(&whole.covariance)) {
            assert!((a - b).abs() < 1e-9, "{a} {b}");
        }
    }

    #[test]
    fn one_vector_has_no_covariance_and_nan_is_refused() {
        let error = of(&[&[1.0; DIMS]]).finish().unwrap_err().to_string();
        assert!(error.contains("at least 2"), "{error}");
        assert!(matches!(of(&[&[f64::NAN; 2 * DIMS]]).finish(), Err(EvalError::NotFinite)));
    }
}
