//! Structural similarity (Wang et al. 2004) of 8-bit pictures, as scikit-image computes it by default.
//!
//! A 7x7 uniform window, sample covariances, K1 = 0.01, K2 = 0.03, windows that lie wholly inside the picture, mean over
//! windows and channels. The sums over a window are integers and are moved along by adding and subtracting columns, so they
//! are exact: only the quotient is computed in f64.

/// Side of the window.
const WINDOW: usize = 7;
const CHANNELS: usize = 3;

/// Constants on the scale of window sums: with n = 49 values, level L = 255 and sums S, `n^2 L^2 C`.
const PIXELS: i64 = (WINDOW * WINDOW) as i64;
const C1: f64 = 0.01 * 0.01 * (PIXELS * PIXELS * 255 * 255) as f64;
/// The sample covariance has n - 1 in place of one n.
const C2: f64 = 0.03 * 0.03 * (PIXELS * (PIXELS - 1) * 255 * 255) as f64;

/// Sums over the values of a column or a window: x, y, x^2 + y^2, x y. 49 * 2 * 255^2 fits.
#[derive(Clone, Copy, Default)]
struct Sums {
    x: i32,
    y: i32,
    squares: i32,
    product: i32,
}

impl Sums {
    fn of(x: u8, y: u8) -> Sums {
        let (x, y) = (i32::from(x), i32::from(y));
        Sums { x, y, squares: x * x + y * y, product: x * y }
    }

    fn add(&mut self, other: Sums) {
        self.x += other.x;
        self.y += other.y;
        self.squares += other.squares;
        self.product += other.product;
    }

    fn subtract(&mut self, other: Sums) {
        self.x -= other.x;
        self.y -= other.y;
        self.squares -= other.squares;
        self.product -= other.product;
    }

    /// The index of one window. Both factors of numerator and denominator are scaled alike.
    fn ssim(&self) -> f64 {
        let [x, y, squares, product] = [self.x, self.y, self.squares, self.product].map(i64::from);
        let (means, mean_squares) = (2 * x * y, x * x + y * y);
        let covariances = 2 * (PIXELS * product - x * y);
        let variances = PIXELS * squares - mean_squares;
        let numerator = (means as f64 + C1) * (covariances as f64 + C2);
        numerator / ((mean_squares as f64 + C1) * (variances as f64 + C2))
    }
}

/// Mean structural similarity of two RGB pictures, row-major bytes `[height, width, 3]`; `None` when they are smaller than
/// the window.
///
/// # Panics
/// When the bytes do not fill the size.
pub fn ssim(a: &[u8], b: &[u8], width: usize, height: usize) -> Option<f64> {
    assert!(a.len() == width * height * CHANNELS && b.len() == a.len(), "pixels fill the picture");
    if width < WINDOW || height < WINDOW {
        return None;
    }
    let row_bytes = width * CHANNELS;
    let row = |y: usize| (&a[y * row_bytes..][..row_bytes], &b[y * row_bytes..][..row_bytes]);
    // Sums over the last seven rows, for every column and channel.
    let mut columns = vec![Sums::default(); row_bytes];
    let mut total = 0.0;
    for y in 0..height {
        let (row_a, row_b) = row(y);
        for (column, (&x, &y)) in columns.iter_mut().zip(row_a.iter().zip(row_b)) {
            column.add(Sums::of(x, y));
        }
        if y + 1 < WINDOW {
            continue;
        }
        total += sum_over_windows(&columns);
        let (row_a, row_b) = row(y + 1 - WINDOW);
        for (column, (&x, &y)) in columns.iter_mut().zip(row_a.iter().zip(row_b)) {
            column.subtract(Sums::of(x, y));
        }
    }
    let windows = (width + 1 - WINDOW) * (height + 1 - WINDOW) * CHANNELS;
    Some(total / windows as f64)
}

/// Sum of the index over all windows of a row.
fn sum_over_windows(columns: &[Sums]) -> f64 {
    let mut windows = [Sums::default(); CHANNELS];
    let mut total = 0.0;
    for (x, pixel) in columns.chunks_exact(CHANNELS).enumerate() {
        for (channel, column) in pixel.iter().enumerate() {
            let window = &mut windows[channel];
            window.add(*column);
            if x + 1 >= WINDOW {
                total += window.ssim();
                window.subtract(columns[(x + 1 - WINDOW) * CHANNELS + channel]);
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, window by window, on values from 0 to 1.
    fn literal(a: &[u8], b: &[u8], width: usize, height: usize) -> f64 {
        let at = |pixels: &[u8], x: usize, y: usize, c: usize| f64::from(pixels[(y * width + x) * 3 + c]) / 255.0;
        let mut indices = vec![];
        for (c, y, x) in windows(width, height) {
            let values = |pixels: &[u8]| -> Vec<f64> { (0..49).map(|i| at(pixels, x + i % 7, y + i / 7, c)).collect() };
            let (p, q) = (values(a), values(b));
            let mean = |v: &[f64]| v.iter().sum::<f64>() / 49.0;
            let (mp, mq) = (mean(&p), mean(&q));
            let covariance = |v: &[f64], w: &[f64], mv: f64, mw: f64| {
                v.iter().zip(w).map(|(v, w)| (v - mv) * (w - mw)).sum::<f64>() / 48.0
            };
            let (vp, vq, cov) = (covariance(&p, &p, mp, mp), covariance(&q, &q, mq, mq), covariance(&p, &q, mp, mq));
            let (c1, c2) = (0.01f64.powi(2), 0.03f64.powi(2));
            indices.push((2.0 * mp * mq + c1) * (2.0 * cov + c2) / ((mp * mp + mq * mq + c1) * (vp + vq + c2)));
        }
        indices.iter().sum::<f64>() / indices.len() as f64
    }

    fn windows(width: usize, height: usize) -> impl Iterator<Item = (usize, usize, usize)> {
        let row = move |c, y| (0..=width - 7).map(move |x| (c, y, x));
        let channel = move |c| (0..=height - 7).flat_map(move |y| row(c, y));
        (0..3).flat_map(channel)
    }

    fn pictures() -> impl Strategy<Value = (usize, usize, Vec<u8>, Vec<u8>)> {
        (7usize..20, 7usize..20).prop_flat_map(|(width, height)| {
            let bytes = || proptest::collection::vec(any::<u8>(), width * height * 3);
            (Just(width), Just(height), bytes(), bytes())
        })
    }

    proptest! {
        #[test]
        fn equals_the_definition((width, height, a, b) in pictures()) {
            let got = ssim(&a, &b, width, height).unwrap();
            prop_assert!((got - literal(&a, &b, width, height)).abs() < 1e-12);
        }
    }

    #[test]
    fn equal_pictures_have_index_one_and_pictures_below_the_window_have_none() {
        let picture: Vec<u8> = (0..16 * 9 * 3).map(|i| (i * 37 % 256) as u8).collect();
        assert_eq!(ssim(&picture, &picture, 16, 9), Some(1.0));
        assert_eq!(ssim(&[0; 6 * 9 * 3], &[0; 6 * 9 * 3], 6, 9), None);
    }
}
