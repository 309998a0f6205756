//! Where the eight tokens of a group lie in two 16-byte loads: what the SIMD kernels share.
//!
//! Each half of a group, four tokens of up to 24 bits, fits one load. A byte shuffle brings the bytes of each token to
//! the bottom of a 32-bit lane, a shift by 0 to 7 and a mask finish it.

/// A lane of a shuffle that becomes zero.
const ZERO: u8 = 0x80;

/// The two loads of a group of eight tokens of `B` bits.
pub(super) struct Halves<const B: usize>;

impl<const B: usize> Halves<B> {
    /// Where each half's 16 bytes begin, counted from the group's first byte. The second load of wide tokens ends where
    /// the group does, so nothing after it is touched.
    pub(super) const LOADS: [usize; 2] = [0, if B >= 16 { B - 16 } else { B / 2 }];

    /// Bytes that the two loads touch from the group's first byte on.
    const REACH: usize = if B < 16 { Self::LOADS[1] + 16 } else { B };

    /// For every byte of the four lanes of each half, the byte of the load to move there.
    pub(super) const SHUFFLES: [[u8; 16]; 2] = [Self::shuffle(0), Self::shuffle(1)];

    /// How far each lane is shifted down.
    pub(super) const SHIFTS: [[u32; 4]; 2] = [Self::shifts(0), Self::shifts(1)];

    /// The bits of a token.
    pub(super) const MASK: u32 = (1 << B) - 1;

    /// Groups of a row of `num_bytes` bytes and `num_groups` whole groups whose loads stay inside the row.
    #[inline]
    pub(super) fn safe_groups(num_bytes: usize, num_groups: usize) -> usize {
        match num_bytes.checked_sub(Self::REACH) {
            Some(spare) => (spare / B + 1).min(num_groups),
            None => 0,
        }
    }

    const fn shuffle(half: usize) -> [u8; 16] {
        let mut bytes = [ZERO; 16];
        let mut lane = 0;
        while lane < 4 {
            let first_bit = (4 * half + lane) * B;
            let mut byte = 0;
            while byte < 4 {
                let source = first_bit / 8 + byte;
                // Bytes without a bit of the token may lie outside the load; they stay zero.
                if source * 8 < first_bit + B {
                    let index = source - Self::LOADS[half];
                    assert!(index < 16, "every bit of a token lies inside its half's load");
                    bytes[4 * lane + byte] = index as u8;
                }
                byte += 1;
            }
            lane += 1;
        }
        bytes
    }

    const fn shifts(half: usize) -> [u32; 4] {
        let mut shifts = [0; 4];
        let mut lane = 0;
        while lane < 4 {
            shifts[lane] = ((4 * half + lane) * B % 8) as u32;
            lane += 1;
        }
        shifts
    }
}
