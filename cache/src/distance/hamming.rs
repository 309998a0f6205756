//! In how many bits two packed grids differ: the Hamming distance.
//!
//! Grids that have nothing to do with each other differ in about half of their bits, so most comparisons are over after
//! the first 64 bytes. [`scalar`] is the definition; the others do the same with what the processor has for it.

/// Bytes that are compared before the sum is looked at.
const STEP_BYTES: usize = 64;

/// The distance of two grids of one length where it is at most a bound, else any number above the bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hamming {
    within: fn(&[u8], &[u8], u32) -> u32,
}

impl Hamming {
    /// The fastest that this machine can run.
    pub(crate) fn best() -> Hamming {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vpopcntdq")
            {
                return Hamming { within: x86::avx512 };
            }
            if is_x86_feature_detected!("popcnt") {
                return Hamming { within: x86::popcnt };
            }
        }
        Hamming { within: scalar }
    }

    /// The distance of `a` and `b`; `None` where it is more than `max`.
    #[inline]
    pub(crate) fn within(self, a: &[u8], b: &[u8], max: u32) -> Option<u32> {
        debug_assert_eq!(a.len(), b.len(), "grids of one shape");
        let distance = (self.within)(a, b, max);
        (distance <= max).then_some(distance)
    }
}

fn scalar(a: &[u8], b: &[u8], max: u32) -> u32 {
    words(a, b, max)
}

/// Eight bytes at a time.
#[inline(always)]
fn words(a: &[u8], b: &[u8], max: u32) -> u32 {
    let mut sum = 0;
    for (a, b) in a.chunks(STEP_BYTES).zip(b.chunks(STEP_BYTES)) {
        let ((words_a, rest_a), (words_b, rest_b)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
        for (a, b) in words_a.iter().zip(words_b) {
            sum += (u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b)).count_ones();
        }
        sum += rest_a.iter().zip(rest_b).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
        if sum > max {
            break;
        }
    }
    sum
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::STEP_BYTES;
    use std::arch::x86_64::{
        _mm512_loadu_si512, _mm512_maskz_loadu_epi8, _mm512_popcnt_epi64, _mm512_reduce_add_epi64, _mm512_xor_si512,
    };

    pub(super) fn popcnt(a: &[u8], b: &[u8], max: u32) -> u32 {
        // SAFETY: `Hamming::best` found that the processor counts bits.
        unsafe { popcnt_words(a, b, max) }
    }

    /// # Safety
    /// POPCNT is there.
    #[target_feature(enable = "popcnt")]
    unsafe fn popcnt_words(a: &[u8], b: &[u8], max: u32) -> u32 {
        super::words(a, b, max)
    }

    pub(super) fn avx512(a: &[u8], b: &[u8], max: u32) -> u32 {
        // SAFETY: `Hamming::best` found these features.
        unsafe { avx512_steps(a, b, max) }
    }

    /// # Safety
    /// AVX-512 F, BW and VPOPCNTDQ are there.
    #[target_feature(enable = "avx512f,avx512bw,avx512vpopcntdq")]
    unsafe fn avx512_steps(a: &[u8], b: &[u8], max: u32) -> u32 {
        let mut sum = 0;
        for (a, b) in a.chunks(STEP_BYTES).zip(b.chunks(STEP_BYTES)) {
            let length = a.len().min(b.len());
            // SAFETY: the loads touch the first `length` bytes of both, which are there.
            let (x, y) = unsafe {
                if length == STEP_BYTES {
                    (_mm512_loadu_si512(a.as_ptr().cast()), _mm512_loadu_si512(b.as_ptr().cast()))
                } else {
                    let mask = (1u64 << length) - 1;
                    (_mm512_maskz_loadu_epi8(mask, a.as_ptr().cast()), _mm512_maskz_loadu_epi8(mask, b.as_ptr().cast()))
                }
            };
            sum += _mm512_reduce_add_epi64(_mm512_popcnt_epi64(_mm512_xor_si512(x, y))) as u32;
            if sum > max {
                break;
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every kernel that this machine can run.
    fn kernels() -> Vec<(&'static str, Hamming)> {
        let mut kernels = vec![("scalar", Hamming { within: scalar }), ("best", Hamming::best())];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("popcnt") {
            kernels.push(("popcnt", Hamming { within: x86::popcnt }));
        }
        kernels
    }

    proptest! {
        #[test]
        fn every_kernel_counts_the_bits_that_differ(
            pairs in prop::collection::vec((any::<u8>(), any::<u8>()), 0..300), max in 0u32..1500
        ) {
            let (a, b): (Vec<u8>, Vec<u8>) = pairs.into_iter().unzip();
            let expected: u32 = a.iter().zip(&b).map(|(a, b)| (a ^ b).count_ones()).sum();
            for (name, kernel) in kernels() {
                prop_assert_eq!(kernel.within(&a, &b, u32::MAX), Some(expected), "{}", name);
                prop_assert_eq!(kernel.within(&a, &b, max), (expected <= max).then_some(expected), "{}", name);
            }
        }
    }
}
