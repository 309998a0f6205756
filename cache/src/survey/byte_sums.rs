//! Sums over the bits of a packed grid that are set: of `N` weights per bit, a byte at a time.
//!
//! For each byte of a grid there is a table of what each of its 256 values adds, so that a grid of 4,608 bits costs 576
//! additions instead of 4,608.

/// Tables for grids of a number of bytes.
pub(super) struct ByteSums<const N: usize> {
    /// `[bytes][256]`.
    sums: Vec<[f32; N]>,
}

impl<const N: usize> ByteSums<N> {
    /// For `weights`, one per bit of the packed grid: eight per byte, from the lowest bit on.
    pub(super) fn new(weights: &[[f32; N]]) -> ByteSums<N> {
        let mut sums = vec![[0.0; N]; weights.len() / 8 * 256];
        for (table, weights) in sums.chunks_exact_mut(256).zip(weights.chunks_exact(8)) {
            for value in 1..256usize {
                // Each value is one that was summed already, with its lowest bit more.
                let (rest, lowest) = (value & (value - 1), value.trailing_zeros() as usize);
                table[value] = std::array::from_fn(|i| table[rest][i] + weights[lowest][i]);
            }
        }
        ByteSums { sums }
    }

    /// The sums of the weights of the bits that are set in `grid`.
    #[inline]
    pub(super) fn of(&self, grid: &[u8]) -> [f32; N] {
        let mut sum = [0.0; N];
        for (table, byte) in self.sums.chunks_exact(256).zip(grid) {
            let part = &table[usize::from(*byte)];
            sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
        sum
    }
}

/// Calls `visit` with the number of each bit of a packed grid that is set.
pub(super) fn for_each_set_bit(grid: &[u8], mut visit: impl FnMut(usize)) {
    for (at, byte) in grid.iter().enumerate() {
        let mut rest = *byte;
        while rest != 0 {
            visit(8 * at + rest.trailing_zeros() as usize);
            rest &= rest - 1;
        }
    }
}
