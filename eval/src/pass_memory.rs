//! Checks that a whole picture fits through the tokenizer before it is decoded.

use tch::{Device, Kind};
use tokengrid_model::Tokenizer;
use tokengrid_sample::memory::available_bytes;

/// Memory of a picture in the tokenizer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PassMemory {
    /// Sides grow to multiples of this.
    factor: u64,
    /// Bytes for each of those pixels, at least: input and output of a layer in full resolution.
    pixel_bytes: u64,
    device: Device,
}

impl PassMemory {
    /// For a tokenizer on `device`.
    pub(crate) fn new(tokenizer: &Tokenizer, device: Device) -> PassMemory {
        let element_bytes = if tokenizer.decoder.kind() == Kind::Float { 4 } else { 2 };
        let architecture = &tokenizer.architecture;
        let pixel_bytes = 2 * element_bytes * architecture.ch.unsigned_abs();
        PassMemory { factor: u64::from(architecture.factor()), pixel_bytes, device }
    }

    /// Checks a size, in pixels, against what the machine has available. What a GPU has is not known beforehand.
    ///
    /// # Errors
    /// One line: what is needed, what is available, what to do.
    pub(crate) fn check(&self, width: u32, height: u32) -> Result<(), String> {
        match (self.device, available_bytes()) {
            (Device::Cpu, Some(available)) => self.check_against(width, height, available),
            _ => Ok(()),
        }
    }

    fn check_against(&self, width: u32, height: u32, available: u64) -> Result<(), String> {
        let side = |pixels: u32| u64::from(pixels).next_multiple_of(self.factor);
        let needed = side(width).saturating_mul(side(height)).saturating_mul(self.pixel_bytes);
        if needed <= available {
            return Ok(());
        }
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        Err(format!(
            "{width} x {height} pixels take at least {:.1} GiB in the tokenizer at their original size, and {:.1} GiB are \
             available; give --size N for squares of N pixels",
            gib(needed),
            gib(available)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_count_with_their_margins() {
        let memory = PassMemory { factor: 16, pixel_bytes: 1024, device: Device::Cpu };
        let bytes = 16 * 48 * 1024;
        assert!(memory.check_against(1, 33, bytes).is_ok());
        let refused = memory.check_against(1, 33, bytes - 1).unwrap_err();
        assert!(refused.contains("1 x 33 pixels") && refused.contains("--size"), "{refused}");
        assert!(memory.check_against(1, 178_956_970, 1 << 40).is_err(), "16 columns of this height");
        assert!(memory.check_against(u32::MAX, u32::MAX, u64::MAX - 1).is_err());
    }
}
