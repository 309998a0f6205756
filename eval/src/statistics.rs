//! Features and statistics in files: matrices of feature vectors, and `.npz` files with `mu` and `sigma`.
//!
//! pytorch-fid saves `mu` and `sigma` of pool3. The ADM suite's reference files hold those, `mu_s` and `sigma_s` of the
//! spatial features, and some of the pictures as `arr_0`.

use crate::EvalError;
use crate::moments::{Gaussian, Moments};
use std::path::Path;
use tch::Tensor;
use tokengrid_sample::arrays::{ArrayError, ArrayReader, Dtype, NamedArray, Npz, write_npz};

/// Rows that are read at a time.
const ROWS: usize = 256;

/// Longer vectors would need more than 2 GiB for a covariance.
const DIMS_MAX: usize = 16_384;

/// Mean and covariance of the rows of a matrix `[N, D]` in a `.npy` file.
///
/// # Errors
/// The file is unreadable or no matrix of floats, has too few rows, or values that are not finite.
pub fn of_features(path: &Path) -> Result<Gaussian, EvalError> {
    let mut array = ArrayReader::open(path)?;
    let [rows, dims] = *array.shape.as_slice() else {
        return Err(array
            .refuse(format!("its shape is {:?}; expected features, [pictures, values]", array.shape))
            .into());
    };
    if !(1..=DIMS_MAX).contains(&dims) {
        return Err(array.refuse(format!("its vectors have {dims} values; expected 1 to {DIMS_MAX}")).into());
    }
    let mut moments = Moments::new(dims);
    for first in (0..rows).step_by(ROWS) {
        let count = ROWS.min(rows - first);
        moments.push(array.read_values(count * dims)?);
    }
    moments.finish().map_err(|e| match e {
        EvalError::TooFew { .. } | EvalError::NotFinite => array.refuse(e.to_string()).into(),
        other => other,
    })
}

/// Saved statistics: of pool3, and of the spatial features where the file has them.
#[derive(Debug)]
pub struct Saved {
    /// `mu` and `sigma`.
    pub pool3: Gaussian,
    /// `mu_s` and `sigma_s`.
    pub spatial: Option<Gaussian>,
}

impl Saved {
    /// Reads the statistics of an `.npz` file; `None` when it has none.
    ///
    /// # Errors
    /// Only one array of a pair is there, a shape is wrong, or values are not finite.
    pub fn read(npz: &mut Npz) -> Result<Option<Saved>, EvalError> {
        let Some(pool3) = read_pair(npz, "mu", "sigma")? else { return Ok(None) };
        Ok(Some(Saved { pool3, spatial: read_pair(npz, "mu_s", "sigma_s")? }))
    }

    /// Writes an `.npz` file that pytorch-fid and the ADM suite read.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(path: &Path, pool3: &Gaussian, spatial: Option<&Gaussian>) -> Result<(), EvalError> {
        let mut arrays = vec![named("mu", &pool3.mean), named("sigma", &pool3.covariance)];
        if let Some(spatial) = spatial {
            arrays.extend([named("mu_s", &spatial.mean), named("sigma_s", &spatial.covariance)]);
        }
        Ok(write_npz(path, &arrays)?)
    }
}

fn read_pair(npz: &mut Npz, mean: &str, covariance: &str) -> Result<Option<Gaussian>, EvalError> {
    if !npz.has(mean) && !npz.has(covariance) {
        return Ok(None);
    }
    let (mean_d, mean_shape) = read_whole(npz, mean)?;
    let (covariance_dd, shape) = read_whole(npz, covariance)?;
    let dims = mean_d.len();
    if mean_shape.len() != 1 || shape != [dims, dims] || dims == 0 {
        let what = format!("`{mean}` has shape {mean_shape:?}, `{covariance}` {shape:?}; expected [D] and [D, D]");
        return Err(ArrayError::Content { path: npz.path().into(), what }.into());
    }
    let size = dims as i64;
    let gaussian = Gaussian {
        mean: Tensor::from_slice(&mean_d),
        covariance: Tensor::from_slice(&covariance_dd).view([size, size]),
    };
    let refuse = |e: EvalError| ArrayError::Content { path: npz.path().into(), what: e.to_string() };
    gaussian.check_finite().map_err(refuse)?;
    Ok(Some(gaussian))
}

fn read_whole(npz: &mut Npz, name: &str) -> Result<(Vec<f64>, Vec<usize>), EvalError> {
    let mut array = npz.array(name)?;
    let count: usize = array.shape.iter().product();
    if count > DIMS_MAX * DIMS_MAX {
        return Err(array
            .refuse(format!("`{name}` has shape {:?}; expected at most {DIMS_MAX} values a side", array.shape))
            .into());
    }
    Ok((array.read_values(count)?, array.shape))
}

fn named(name: &'static str, values: &Tensor) -> NamedArray {
    let shape = values.size().iter().map(|&size| size as usize).collect();
    let values = Vec::<f64>::try_from(&values.contiguous().view([-1])).expect("statistics are f64 on the CPU");
    NamedArray { name, dtype: Dtype::F64, shape, bytes: values.iter().flat_map(|value| value.to_le_bytes()).collect() }
}
