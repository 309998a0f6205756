//! LPIPS of many pairs: the mean over images.

use super::extremes::Pair;
use crate::SampleError;
use tch::{Device, Tensor};
use tokengrid_tokenize::{TokenizeError, pixels};
use tokengrid_train::perceptual::{Backbone, Lpips};

/// A perceptual distance that is wanted.
#[derive(Clone, Copy)]
pub struct Net<'a> {
    /// Which it is.
    pub backbone: Backbone,
    /// The net, on its device.
    pub lpips: &'a Lpips,
}

/// The sum over the pairs so far.
pub(super) struct LpipsSum<'a> {
    net: Net<'a>,
    device: Device,
    sum: f64,
    images: usize,
    /// Images with a side that is too short for the net.
    too_small: usize,
}

impl<'a> LpipsSum<'a> {
    pub fn new(net: Net<'a>, device: Device) -> LpipsSum<'a> {
        LpipsSum { net, device, sum: 0.0, images: 0, too_small: 0 }
    }

    pub fn backbone(&self) -> Backbone {
        self.net.backbone
    }

    /// Takes pairs of one size.
    pub fn add(&mut self, pairs: &[Pair]) -> Result<(), SampleError> {
        let _no_grad = tch::no_grad_guard();
        let Some(Pair { original, .. }) = pairs.first() else { return Ok(()) };
        let (width, height) = (original.width as i64, original.height as i64);
        self.images += pairs.len();
        if width.min(height) < self.net.backbone.min_side() {
            self.too_small += pairs.len();
            return Ok(());
        }
        // On the CPU one by one: a distance is then the same whatever else is in the batch.
        let call = if self.device == Device::Cpu { 1 } else { pairs.len() };
        for pairs in pairs.chunks(call) {
            let input = |side: fn(&Pair) -> &[u8]| -> Tensor {
                let bytes: Vec<u8> = pairs.iter().flat_map(side).copied().collect();
                pixels::to_input(&bytes, pairs.len() as i64, height, width, self.device)
            };
            let (a_bchw, b_bchw) = (input(|pair| &pair.original.rgb), input(|pair| &pair.reconstruction.rgb));
            let distances_b = self.net.lpips.forward(&a_bchw, &b_bchw).to_device(Device::Cpu);
            let distances = Vec::<f32>::try_from(&distances_b).map_err(TokenizeError::torch("copying distances"))?;
            self.sum = distances.into_iter().fold(self.sum, |sum, distance| sum + f64::from(distance));
        }
        Ok(())
    }

    /// The mean, or why there is none.
    pub fn mean(&self) -> Result<f64, String> {
        if self.too_small == 0 {
            return Ok(self.sum / self.images as f64);
        }
        Err(format!("{} images have a side below {} pixels", self.too_small, self.net.backbone.min_side()))
    }
}
