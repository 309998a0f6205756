//! Bytes to the model's input and its output back to bytes.
//!
//! In: `u8 / 127.5 - 1`, computed in f64 and rounded once to f32 (a table, so that it is exact).
//! Out: clamp to [-1, 1], then `((x + 1) / 2 * 255)` truncated.

use std::sync::LazyLock;
use tch::{Device, Kind, Tensor};

static TABLE: LazyLock<[f32; 256]> = LazyLock::new(|| std::array::from_fn(|v| (v as f64 / 127.5 - 1.0) as f32));

/// The model's input value for every byte.
pub fn table() -> &'static [f32; 256] {
    &TABLE
}

/// Images `[B, H, W, 3]` of bytes (row-major, `batch * height * width * 3` of them) to f32 `[B, 3, H, W]` in
/// [-1, 1] on `device`, row-major.
///
/// # Panics
/// When `bytes` has another length than the shape needs.
pub fn to_input(bytes: &[u8], batch: i64, height: i64, width: i64, device: Device) -> Tensor {
    assert_eq!(bytes.len() as i64, batch * height * width * 3, "image bytes do not fill the shape");
    let shape_bhwc = [batch, height, width, 3];
    let input_bhwc = if device == Device::Cpu {
        let values: Vec<f32> = bytes.iter().map(|&v| TABLE[v as usize]).collect();
        Tensor::from_slice(&values).view(shape_bhwc)
    } else {
        // A quarter of the bytes cross the bus, from pinned memory, so that the call does not wait for them; the table lookup
        // happens there.
        let pinned = Tensor::from_slice(bytes).pin_memory(device);
        let index = pinned.to_device_(device, Kind::Uint8, true, false).to_kind(Kind::Int);
        Tensor::from_slice(&TABLE[..]).to_device(device).index_select(0, &index).view(shape_bhwc)
    };
    input_bhwc.permute([0, 3, 1, 2]).contiguous()
}

/// Model output f32 `[B, 3, H, W]` to bytes `[B, H, W, 3]`, truncating as the reference does.
pub fn to_bytes(output_bchw: &Tensor) -> Vec<u8> {
    let bytes_bhwc = ((output_bchw.to_kind(Kind::Float).clamp(-1.0, 1.0) + 1.0) / 2.0 * 255.0)
        .to_kind(Kind::Uint8)
        .permute([0, 2, 3, 1])
        .contiguous()
        .to_device(Device::Cpu);
    let mut bytes = vec![0u8; bytes_bhwc.numel()];
    let count = bytes.len();
    bytes_bhwc.copy_data_u8(&mut bytes, count);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_the_round_trip_within_one_level() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut rgb = vec![];
        bytes.iter().for_each(|&b| rgb.extend([b, b, b]));
        let back = to_bytes(&to_input(&rgb, 1, 16, 16, Device::Cpu));
        assert!(rgb.iter().zip(&back).all(|(a, b)| a.abs_diff(*b) <= 1));
        assert_eq!((back[0], back[3 * 255]), (0, 255));
    }
}
