//! The kernels of one width, and the table of all widths that each kind of them makes.

type NarrowKernel = fn(&[u8], &mut [u32]);
type WideKernel = fn(&[u8], &mut [i64]);
type SplitKernel = fn(&[u8], u32, &mut [i64], &mut [i64]);

/// The three kernels of one width. A loader looks them up once and calls them for every row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernels {
    pub(super) narrow: NarrowKernel,
    pub(super) wide: WideKernel,
    pub(super) split: SplitKernel,
}

impl Kernels {
    /// `packed` has `packed_bytes(out.len(), bits)` bytes, and so below.
    #[inline]
    pub(crate) fn narrow(&self, packed: &[u8], out: &mut [u32]) {
        (self.narrow)(packed, out);
    }

    #[inline]
    pub(crate) fn wide(&self, packed: &[u8], out: &mut [i64]) {
        (self.wide)(packed, out);
    }

    #[inline]
    pub(crate) fn split(&self, packed: &[u8], low_bits: u32, pre: &mut [i64], post: &mut [i64]) {
        (self.split)(packed, low_bits, pre, post);
    }
}

/// One [`Kernels`] per width, 1 to 24, of three functions that are generic over it.
macro_rules! kernel_table {
    ($narrow:ident, $wide:ident, $split:ident) => {
        kernel_table!(@ $narrow, $wide, $split, 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24)
    };
    (@ $narrow:ident, $wide:ident, $split:ident, $($bits:literal)*) => {
        [$(Kernels { narrow: $narrow::<$bits>, wide: $wide::<$bits>, split: $split::<$bits> }),*]
    };
}
pub(super) use kernel_table;
