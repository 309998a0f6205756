//! Vectors of f32, in the widths that processors have.
//!
//! A kernel is written once, over [`Simd`], and runs on what the processor offers ([`Level::detect`]). Every operation is
//! exact or rounded once, as IEEE 754 says, and kernels fix the order of their sums, so all widths give the same bits.

use std::sync::OnceLock;

/// Vectors of a kernel's inner loop: two side by side.
pub(crate) const VECTORS: usize = 2;

/// The widest vector, in floats.
pub(crate) const LANES_MAX: usize = 16;

/// An instruction set. A value of it is the proof that the processor has it.
pub trait Simd: Copy {
    /// [`Simd::LANES`] floats.
    type V: Copy;
    /// Floats of a vector.
    const LANES: usize;
    /// Rows of results that fit the registers, `VECTORS` vectors each.
    const ROWS: usize;

    /// Reads a vector.
    ///
    /// # Safety
    /// `LANES` floats lie at `from`.
    unsafe fn load(self, from: *const f32) -> Self::V;

    /// Writes a vector.
    ///
    /// # Safety
    /// There is room for `LANES` floats at `to`.
    unsafe fn store(self, to: *mut f32, v: Self::V);

    /// The same value in all lanes.
    fn splat(self, value: f32) -> Self::V;
    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a` within `low ..= high`; not for NaN.
    fn clamp(self, a: Self::V, low: f32, high: f32) -> Self::V;
    /// `2^n` for integers `-126 <= n <= 127`, given as `n + 2^23 + 2^22 + 127`: the sum's low bits are the exponent.
    fn pow2(self, biased: Self::V) -> Self::V;
}

/// Work that is written over [`Simd`].
pub trait Kernel {
    /// Does it. Implementations are `#[inline(always)]`, so that they are compiled for the instruction set.
    fn run<S: Simd>(self, s: S);
}

/// What the processor offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// x86 with AVX-512: F, VL, BW and DQ.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// x86 with AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Plain code for the compiler; fast where fused multiplication is part of the base instructions.
    Portable,
}

impl Level {
    /// The best that this processor has; `None` where the kernels would be slow: x86 without FMA, unknown processors.
    pub fn detect() -> Option<Level> {
        #[cfg(target_arch = "x86_64")]
        return Level::all().into_iter().find(|&level| level != Level::Portable);
        #[cfg(not(target_arch = "x86_64"))]
        return cfg!(target_arch = "aarch64").then_some(Level::Portable);
    }

    /// The best that this processor has, even if it is slow: what kernels without an alternative run with.
    pub fn best() -> Level {
        static BEST: OnceLock<Level> = OnceLock::new();
        *BEST.get_or_init(|| Level::all()[0])
    }

    /// All that run here, the best first.
    pub fn all() -> Vec<Level> {
        let mut levels = vec![];
        #[cfg(target_arch = "x86_64")]
        {
            if x86::has_avx2() && x86::has_avx512() {
                levels.push(Level::Avx512);
            }
            if x86::has_avx2() {
                levels.push(Level::Avx2);
            }
        }
        levels.push(Level::Portable);
        levels
    }

    /// Runs `kernel` with this instruction set.
    ///
    /// # Panics
    /// When the processor does not have it.
    pub fn run(self, kernel: impl Kernel) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => {
                assert!(x86::has_avx512() && x86::has_avx2());
                // SAFETY: just checked.
                unsafe { x86::with_avx512(kernel) }
            }
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => {
                assert!(x86::has_avx2());
                // SAFETY: just checked.
                unsafe { x86::with_avx2(kernel) }
            }
            Level::Portable => kernel.run(Portable),
        }
    }
}

/// `x * sigmoid(x)`, within 2 units in the last place.
#[inline(always)]
pub(crate) fn swish<S: Simd>(s: S, x: S::V) -> S::V {
    let negative = s.sub(s.splat(0.0), x);
    s.div(x, s.add(s.splat(1.0), exp(s, negative)))
}

/// 2^23 + 2^22: a float this large has no fraction, so adding it rounds to an integer.
const ROUND: f32 = 12_582_912.0;
/// ln 2 in two parts; the first has few enough bits that an integer below 128 times it is exact.
const LN2_HIGH: f32 = 355.0 / 512.0;
const LN2_LOW: f32 = (std::f64::consts::LN_2 - 355.0 / 512.0) as f32;
/// 1 / 7!, 1 / 6!, ... 1 / 2!: on |r| <= ln 2 / 2 the series is off by less than 6e-9.
const SERIES: [f32; 6] = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5];

/// `e^x` for -87 <= x <= 88, and for others the value at the nearer end. Not [`super::math::exp`], which rounds differently:
/// tokens depend on this one.
#[inline(always)]
fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    // e^x = 2^n * e^r with n the integer next to x / ln 2.
    let x = s.clamp(x, -87.0, 88.0);
    let rounded = s.fma(x, s.splat(std::f32::consts::LOG2_E), s.splat(ROUND));
    let n = s.sub(rounded, s.splat(ROUND));
    let r = s.fma(n, s.splat(-LN2_HIGH), x);
    let r = s.fma(n, s.splat(-LN2_LOW), r);
    let mut sum = s.splat(SERIES[0]);
    for factor in &SERIES[1..] {
        sum = s.fma(sum, r, s.splat(*factor));
    }
    let sum = s.fma(s.fma(sum, r, s.splat(1.0)), r, s.splat(1.0));
    s.mul(sum, s.pow2(s.add(rounded, s.splat(127.0))))
}

/// Arrays, which the compiler turns into what vectors it has.
#[derive(Clone, Copy)]
pub struct Portable;

const PORTABLE_LANES: usize = 8;

#[inline(always)]
fn zip(a: [f32; PORTABLE_LANES], b: [f32; PORTABLE_LANES], f: impl Fn(f32, f32) -> f32) -> [f32; PORTABLE_LANES] {
    std::array::from_fn(|lane| f(a[lane], b[lane]))
}

impl Simd for Portable {
    type V = [f32; PORTABLE_LANES];
    const LANES: usize = PORTABLE_LANES;
    const ROWS: usize = 6;

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::V {
        // SAFETY: the caller vouches for the range; a float's alignment is an array's.
        unsafe { from.cast::<Self::V>().read() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: Self::V) {
        // SAFETY: the caller vouches for the range; a float's alignment is an array's.
        unsafe { to.cast::<Self::V>().write(v) }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Self::V {
        [value; PORTABLE_LANES]
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        std::array::from_fn(|lane| a[lane].mul_add(b[lane], c[lane]))
    }

    #[inline(always)]
    fn clamp(self, a: Self::V, low: f32, high: f32) -> Self::V {
        a.map(|a| a.max(low).min(high))
    }

    #[inline(always)]
    fn pow2(self, biased: Self::V) -> Self::V {
        biased.map(|biased| f32::from_bits(biased.to_bits() << 23))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Kernel, Simd};
    use std::arch::x86_64::*;

    /// Whether the processor has what [`super::Level::Avx2`] stands for.
    pub(crate) fn has_avx2() -> bool {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
    }

    /// Whether it has what [`super::Level::Avx512`] stands for beyond that: all server processors since 2017, and not the ones
    /// with a part of it before them.
    pub(crate) fn has_avx512() -> bool {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
    }

    /// Runs `kernel` compiled for AVX-512.
    #[target_feature(enable = "avx512f,avx2,fma")]
    pub(crate) fn with_avx512<K: Kernel>(kernel: K) {
        kernel.run(Avx512(()));
    }

    /// Runs `kernel` compiled for AVX2.
    #[target_feature(enable = "avx2,fma")]
    pub(crate) fn with_avx2<K: Kernel>(kernel: K) {
        kernel.run(Avx2(()));
    }

    /// Made by [`with_avx512`] alone.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(());

    /// Made by [`with_avx2`] alone.
    #[derive(Clone, Copy)]
    pub(super) struct Avx2(());

    /// The functions of [`Simd`] that are one intrinsic each.
    macro_rules! intrinsics {
        ($($name:ident($($arg:ident: $kind:ty),*) -> $result:ty = $intrinsic:ident;)*) => {$(
            #[inline(always)]
            fn $name(self, $($arg: $kind),*) -> $result {
                // SAFETY: `self` exists, so the processor has the instruction.
                unsafe { $intrinsic($($arg),*) }
            }
        )*};
    }

    impl Simd for Avx512 {
        type V = __m512;
        const LANES: usize = 16;
        const ROWS: usize = 14;

        #[inline(always)]
        unsafe fn load(self, from: *const f32) -> __m512 {
            // SAFETY: the caller vouches for the range, `self` for the instruction.
            unsafe { _mm512_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32, v: __m512) {
            // SAFETY: the caller vouches for the range, `self` for the instruction.
            unsafe { _mm512_storeu_ps(to, v) }
        }

        intrinsics! {
            splat(value: f32) -> __m512 = _mm512_set1_ps;
            add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps;
            sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps;
            mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps;
            div(a: __m512, b: __m512) -> __m512 = _mm512_div_ps;
            fma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps;
        }

        #[inline(always)]
        fn clamp(self, a: __m512, low: f32, high: f32) -> __m512 {
            // SAFETY: `self` exists, so the processor has the instructions.
            unsafe { _mm512_min_ps(_mm512_max_ps(a, _mm512_set1_ps(low)), _mm512_set1_ps(high)) }
        }

        #[inline(always)]
        fn pow2(self, biased: __m512) -> __m512 {
            // SAFETY: `self` exists, so the processor has the instructions.
            unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(biased))) }
        }
    }

    impl Simd for Avx2 {
        type V = __m256;
        const LANES: usize = 8;
        const ROWS: usize = 6;

        #[inline(always)]
        unsafe fn load(self, from: *const f32) -> __m256 {
            // SAFETY: the caller vouches for the range, `self` for the instruction.
            unsafe { _mm256_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32, v: __m256) {
            // SAFETY: the caller vouches for the range, `self` for the instruction.
            unsafe { _mm256_storeu_ps(to, v) }
        }

        intrinsics! {
            splat(value: f32) -> __m256 = _mm256_set1_ps;
            add(a: __m256, b: __m256) -> __m256 = _mm256_add_ps;
            sub(a: __m256, b: __m256) -> __m256 = _mm256_sub_ps;
            mul(a: __m256, b: __m256) -> __m256 = _mm256_mul_ps;
            div(a: __m256, b: __m256) -> __m256 = _mm256_div_ps;
            fma(a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps;
        }

        #[inline(always)]
        fn clamp(self, a: __m256, low: f32, high: f32) -> __m256 {
            // SAFETY: `self` exists, so the processor has the instructions.
            unsafe { _mm256_min_ps(_mm256_max_ps(a, _mm256_set1_ps(low)), _mm256_set1_ps(high)) }
        }

        #[inline(always)]
        fn pow2(self, biased: __m256) -> __m256 {
            // SAFETY: `self` exists, so the processor has the instructions.
            unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(biased))) }
        }
    }
}
