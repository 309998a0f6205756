//! The table's blocks as operations.

use super::layout::{BlockLayout, Branch as BranchLayout, Layer, Pool};
use tch::{Device, Kind, TchError, Tensor};
use tokengrid_model::Params;

/// Epsilon of every BatchNorm of the network.
const NORM_EPS: f64 = 1e-3;

/// Branches whose outputs are concatenated.
pub(super) struct Block {
    pub name: &'static str,
    branches: Vec<Branch>,
}

struct Branch {
    pool: Pool,
    chain: Vec<Conv>,
    heads: Vec<Conv>,
}

/// A convolution that the BatchNorm behind it has been folded into, and a ReLU.
struct Conv {
    weight: Tensor,
    bias: Tensor,
    stride: i64,
    padding: [i64; 2],
}

impl Block {
    pub(super) fn new(layout: &BlockLayout, params: &Params, device: Device) -> Block {
        let conv = |layer: &Layer| Conv::new(&layout.full_name(layer), layer, params, device);
        let branch = |branch: &BranchLayout| Branch {
            pool: branch.pool,
            chain: branch.chain.iter().map(conv).collect(),
            heads: branch.heads.iter().map(conv).collect(),
        };
        Block { name: layout.name, branches: layout.branches.iter().map(branch).collect() }
    }

    pub(super) fn forward(&self, x_bchw: &Tensor) -> Result<Tensor, TchError> {
        let mut outputs = vec![];
        for branch in &self.branches {
            branch.forward(x_bchw, &mut outputs)?;
        }
        // The stem has one branch: nothing to concatenate.
        if outputs.len() == 1 { Ok(outputs.remove(0)) } else { Tensor::f_cat(&outputs, 1) }
    }
}

impl Branch {
    fn forward(&self, x_bchw: &Tensor, outputs: &mut Vec<Tensor>) -> Result<(), TchError> {
        let mut x_bchw = self.pool.forward(x_bchw)?;
        for conv in &self.chain {
            x_bchw = conv.forward(&x_bchw)?;
        }
        for head in &self.heads {
            outputs.push(head.forward(&x_bchw)?);
        }
        if self.heads.is_empty() {
            outputs.push(x_bchw);
        }
        Ok(())
    }
}

impl Pool {
    fn forward(self, x_bchw: &Tensor) -> Result<Tensor, TchError> {
        let count_padding = false;
        match self {
            Pool::None => Ok(x_bchw.shallow_clone()),
            Pool::Average => x_bchw.f_avg_pool2d([3, 3], [1, 1], [1, 1], false, count_padding, None),
            Pool::Max => x_bchw.f_max_pool2d([3, 3], [1, 1], [1, 1], [1, 1], false),
            Pool::MaxHalf => x_bchw.f_max_pool2d([3, 3], [2, 2], [0, 0], [1, 1], false),
        }
    }
}

impl Conv {
    /// Folds in f64 and rounds once.
    fn new(name: &str, layer: &Layer, params: &Params, device: Device) -> Conv {
        let get = |part: &str| params.get(&format!("{name}.{part}")).to_kind(Kind::Double);
        let scale = get("bn.weight") / (get("bn.running_var") + NORM_EPS).sqrt();
        let bias = get("bn.bias") - get("bn.running_mean") * &scale;
        let weight = get("conv.weight") * scale.view([-1, 1, 1, 1]);
        let place = |tensor: Tensor| tensor.to_kind(Kind::Float).to_device(device);
        Conv { weight: place(weight), bias: place(bias), stride: layer.stride, padding: layer.padding }
    }

    fn forward(&self, x_bchw: &Tensor) -> Result<Tensor, TchError> {
        let stride = [self.stride, self.stride];
        x_bchw.f_conv2d(&self.weight, Some(&self.bias), stride, self.padding, [1, 1], 1)?.f_relu_()
    }
}
