//! Bytes to the model's input and its output back to bytes.
//!
//! In: `u8 / 127.5 - 1`, computed in f64 and rounded once to f32 (a table, so that it is exact).
//! Out: clamp to [-1, 1], then `((x + 1) / 2 * 255)` truncated.

use crate::Runtime;
use crate::transfer::upload;
use std::sync::LazyLock;
use tch::{Device, Kind, Tensor};

/// The model's input value for every byte.
static TABLE: LazyLock<[f32; 256]> = LazyLock::new(|| std::array::from_fn(|v| (v as f64 / 127.5 - 1.0) as f32));

/// Images `[B, H, W, 3]` of bytes (row-major, `batch * height * width * 3` of them) to f32 `[B, 3, H, W]` in
/// [-1, 1] on the runtime's device, row-major.
///
/// # Panics
/// When `bytes` has another length than the shape needs.
pub fn to_input(bytes: &[u8], batch: i64, height: i64, width: i64, runtime: Runtime) -> Tensor {
    assert_eq!(bytes.len() as i64, batch * height * width * 3, "image bytes do not fill the shape");
    let shape_bhwc = [batch, height, width, 3];
    let input_bhwc = if runtime.route.runs_ahead {
        // A quarter of the bytes cross the bus; the table is made and looked up there.
        let index = upload(&Tensor::from_slice(bytes), runtime.device).to_kind(Kind::Int);
        let table = (Tensor::arange(256, (Kind::Double, runtime.device)) / 127.5 - 1.0).to_kind(Kind::Float);
        table.index_select(0, &index).view(shape_bhwc)
    } else {
        let values: Vec<f32> = bytes.iter().map(|&v| TABLE[v as usize]).collect();
        Tensor::from_slice(&values).view(shape_bhwc)
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
    use crate::runtime::Route;

    #[test]
    fn every_byte_survives_the_round_trip_within_one_level() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut rgb = vec![];
        bytes.iter().for_each(|&b| rgb.extend([b, b, b]));
        let back = to_bytes(&to_input(&rgb, 1, 16, 16, Runtime::EXACT));
        assert!(rgb.iter().zip(&back).all(|(a, b)| a.abs_diff(*b) <= 1));
        assert_eq!((back[0], back[3 * 255]), (0, 255));
    }

    #[test]
    fn a_device_makes_the_same_values() {
        let bytes: Vec<u8> = (0..=255).cycle().take(2 * 3 * 128).collect();
        let on_device = Runtime { route: Route::DEVICE, ..Runtime::EXACT };
        assert!(to_input(&bytes, 2, 8, 16, Runtime::EXACT).equal(&to_input(&bytes, 2, 8, 16, on_device)));
    }
}
