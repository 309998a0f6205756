//! LPIPS over many pairs: the mean over images.

use crate::EvalError;
use tch::{Device, Tensor};
use tokengrid_model::ModelError;
use tokengrid_model::perceptual::{Backbone, Lpips};

/// A perceptual distance to compute.
#[derive(Clone, Copy)]
pub struct Net<'a> {
    /// The net's architecture.
    pub backbone: Backbone,
    /// The net, on its device.
    pub lpips: &'a Lpips,
}

impl Net<'_> {
    /// The distances of images and their reconstructions, f32 `[B, 3, H, W]` in [-1, 1]; none where a side is too short.
    pub(super) fn distances(&self, a_bchw: &Tensor, b_bchw: &Tensor) -> Result<Vec<Option<f64>>, EvalError> {
        let _no_grad = tch::no_grad_guard();
        let (images, _, height, width) = a_bchw.size4().map_err(ModelError::torch("looking at images"))?;
        if width.min(height) < self.backbone.min_side() {
            return Ok(vec![None; images as usize]);
        }
        let distances_b = self.lpips.forward(a_bchw, b_bchw).to_device(Device::Cpu);
        let distances = Vec::<f32>::try_from(&distances_b).map_err(ModelError::torch("copying distances"))?;
        Ok(distances.into_iter().map(|distance| Some(f64::from(distance))).collect())
    }
}

/// The sum over the pairs so far.
pub(super) struct LpipsSum<'a> {
    net: Net<'a>,
    sum: f64,
    images: usize,
    /// Images with a side that is too short for the net.
    too_small: usize,
}

impl<'a> LpipsSum<'a> {
    pub(crate) fn new(net: Net<'a>) -> LpipsSum<'a> {
        LpipsSum { net, sum: 0.0, images: 0, too_small: 0 }
    }

    pub(crate) fn backbone(&self) -> Backbone {
        self.net.backbone
    }

    /// Adds the distance of a pair; `None` where the pair is too small for the net.
    pub(crate) fn add(&mut self, distance: Option<f64>) {
        self.images += 1;
        self.too_small += usize::from(distance.is_none());
        self.sum += distance.unwrap_or(0.0);
    }

    /// The mean, or why there is none.
    pub(crate) fn mean(&self) -> Result<f64, String> {
        if self.too_small == 0 {
            return Ok(self.sum / self.images as f64);
        }
        Err(format!("{} images have a side below {} pixels", self.too_small, self.net.backbone.min_side()))
    }
}
