//! The peak signal-to-noise ratio of 8-bit pictures: one definition for evaluation, validation and the inspector.

/// Peak signal-to-noise ratio of two pictures of one size, in dB: `10 log10(255^2 / mean squared difference)`. Infinite for
/// equal pictures.
///
/// # Panics
/// When the pictures have different sizes.
///
/// ```
/// assert_eq!(tokengrid_ingest::psnr(&[0, 10], &[255, 10]), 10.0 * 2f64.log10());
/// assert_eq!(tokengrid_ingest::psnr(&[7], &[7]), f64::INFINITY);
/// ```
pub fn psnr(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len(), "pictures of one size");
    let squares: u64 = a.iter().zip(b).map(|(a, b)| u64::from(a.abs_diff(*b)).pow(2)).sum();
    let mean = squares as f64 / a.len().max(1) as f64;
    10.0 * (255.0 * 255.0 / mean).log10()
}
