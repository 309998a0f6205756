//! Pictures to the network's input: 299 x 299 pixels in [-1, 1].

use serde::Serialize;
use tch::{Device, Kind, TchError, Tensor};
use tokengrid_model::transfer::upload;

/// Side of the input.
const SIDE: i64 = 299;

/// The suite whose protocol is followed. Both use the same weights and differ in how pictures are resized and scaled, and in
/// the logits of the inception score, so metrics of one are not comparable with metrics or statistics of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// As pytorch-fid: pixel centres at half integers, `v / 127.5 - 1`, logits with their bias.
    #[default]
    PytorchFid,
    /// As the ADM suite and torch-fidelity: TensorFlow 1's resize (pixel i of the output is at i times the scale),
    /// `(v - 128) / 128`, logits without their bias.
    Adm,
}

impl Protocol {
    /// Whether the logits have their bias.
    pub(super) fn has_bias(self) -> bool {
        self == Protocol::PytorchFid
    }
}

/// Bytes `[B, height, width, 3]` to f32 `[B, 3, 299, 299]` on `device`. Bilinear, without antialiasing.
pub(super) fn to_input(
    rgb: &[u8],
    width: usize,
    height: usize,
    protocol: Protocol,
    device: Device,
) -> Result<Tensor, TchError> {
    let (width, height) = (width as i64, height as i64);
    let bytes_bhwc =
        Tensor::f_from_data_size(rgb, &[rgb.len() as i64 / (width * height * 3), height, width, 3], Kind::Uint8)?;
    let values_bchw = upload(&bytes_bhwc, device).f_permute([0, 3, 1, 2])?.f_to_kind(Kind::Float)?.f_contiguous()?;
    match protocol {
        Protocol::PytorchFid => of_unit(&(values_bchw / 255.0)),
        Protocol::Adm => {
            let resized_bchw = resize_like_tensorflow1(&resize_like_tensorflow1(&values_bchw, 2)?, 3)?;
            Ok((resized_bchw - 128.0) / 128.0)
        }
    }
}

/// Values f32 `[B, 3, H, W]` in [0, 1] to f32 `[B, 3, 299, 299]`, as pytorch-fid resizes them.
pub(super) fn of_unit(unit_bchw: &Tensor) -> Result<Tensor, TchError> {
    Ok(unit_bchw.f_upsample_bilinear2d([SIDE, SIDE], false, None, None)? * 2.0 - 1.0)
}

/// Linear interpolation along one dimension: output pixel i lies at `i * size / 299`.
fn resize_like_tensorflow1(x_bchw: &Tensor, dim: i64) -> Result<Tensor, TchError> {
    let size = x_bchw.size()[dim as usize];
    let scale = size as f32 / SIDE as f32;
    let place = |i: i64| i as f32 * scale;
    let low: Vec<i64> = (0..SIDE).map(|i| (place(i) as i64).min(size - 1)).collect();
    let high: Vec<i64> = low.iter().map(|&low| (low + 1).min(size - 1)).collect();
    let share: Vec<f32> = (0..SIDE).zip(&low).map(|(i, &low)| place(i) - low as f32).collect();
    let take = |places: &[i64]| x_bchw.f_index_select(dim, &Tensor::from_slice(places).to_device(x_bchw.device()));
    let (low, high) = (take(&low)?, take(&high)?);
    let shape = if dim == 2 { [1, 1, SIDE, 1] } else { [1, 1, 1, SIDE] };
    let share = Tensor::from_slice(&share).view(shape).to_device(x_bchw.device());
    Ok(&low + (high - &low) * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensorflow_1_puts_the_first_pixel_at_the_corner_and_pytorch_between() {
        // A ramp of 598 columns: the scale is 2.
        let rgb: Vec<u8> = (0..2 * 598 * 3).map(|i| (i / 3 % 598 / 4) as u8).collect();
        let row = |protocol| {
            let input = to_input(&rgb, 598, 2, protocol, Device::Cpu).unwrap();
            assert_eq!(input.size(), [1, 3, SIDE, SIDE]);
            move |x: i64| input.double_value(&[0, 1, 0, x])
        };
        let adm = row(Protocol::Adm);
        assert_eq!((adm(0), adm(2)), (-1.0, (1.0 - 128.0) / 128.0));
        let fid = row(Protocol::PytorchFid);
        // Half way between columns 2 and 3, both 0; and 6 and 7, both 1.
        assert!((fid(1) + 1.0).abs() < 1e-6 && (fid(3) - (1.0 / 127.5 - 1.0)).abs() < 1e-6);
    }
}
