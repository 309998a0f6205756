//! Which bit of a token is which channel.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Which bit of a token channel 0 is. Caches have it lowest, as the published code of Open-MAGVIT2 has had since September
/// 2024; sets that were made with earlier code have it highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BitOrder {
    /// Channel 0 is the lowest bit. Written `low-first`.
    LowFirst,
    /// Channel 0 is the highest bit. Written `high-first`.
    HighFirst,
}

impl BitOrder {
    /// A token of `bits` bits (1 to 24) of this order as one of a cache's, and the other way round: both orders are their own
    /// inverse.
    #[inline]
    pub fn convert(self, token: u32, bits: u32) -> u32 {
        match self {
            BitOrder::LowFirst => token,
            BitOrder::HighFirst => token.reverse_bits() >> (32 - bits),
        }
    }
}

impl fmt::Display for BitOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BitOrder::LowFirst => "low-first",
            BitOrder::HighFirst => "high-first",
        })
    }
}

impl FromStr for BitOrder {
    type Err = String;

    fn from_str(text: &str) -> Result<BitOrder, String> {
        match text {
            "low-first" => Ok(BitOrder::LowFirst),
            "high-first" => Ok(BitOrder::HighFirst),
            _ => Err("expected low-first or high-first".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_their_own_inverse() {
        assert_eq!(BitOrder::HighFirst.convert(1, 18), 1 << 17);
        assert_eq!(BitOrder::HighFirst.convert(0b0011, 4), 0b1100);
        for token in [0, 1, 5, 131_071, 262_143] {
            for order in [BitOrder::LowFirst, BitOrder::HighFirst] {
                assert_eq!(order.convert(order.convert(token, 18), 18), token);
                assert_eq!(order.to_string().parse(), Ok(order));
            }
        }
    }
}
